"""The folder of a server of repairs: one subfolder per request, claimed by one server, searched for what broke off.

    work = WorkFolder("repairs")
    work.claim()                                 # SpecError if another server works there
    for folder in work.broken_off(): ...
    folder = work.open("3f9a12c4d5e6")           # with room for a worker's temporary files
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from saferule_core.checkpoints import REQUEST, SCRATCH, Checkpoints, Failure
from saferule_core.errors import SaferuleError, SpecError, StoreError
from saferule_core.store.files import locked, replace_file

REQUEST_ID = re.compile(r"[0-9a-f]{12}")
ASKED = "asked.json"


class WorkFolder:
    """The subfolders of requests, named by their ids: 12 hex digits."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._held = contextlib.ExitStack()

    def claim(self) -> None:
        """Keep other servers away until `release` or the end of this process.

        Raises:
            SpecError: another one works here, or the folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(locked(self.root / ".lock", timeout=0.0))
        except (OSError, StoreError) as error:
            raise SpecError(
                f"parameter work_dir: {self.root}: expected a folder that can be written and that no other "
                f"unlearning_server uses, found: {error}"
            ) from error

    def release(self) -> None:
        """Let other servers work here."""
        self._held.close()

    def broken_off(self, but: Collection[str] = ()) -> list[Path]:
        """Return the folders of requests that have begun and not ended, oldest first; but: ids of running ones."""
        found = [path for path in self.root.iterdir() if REQUEST_ID.fullmatch(path.name)]
        found = [path for path in found if path.name not in but and Checkpoints(path).broke_off]
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def tidy(self) -> dict[str, Failure]:
        """Remove what a killed server and its worker left half written; return id -> why the request broke off.

        Where nobody wrote down why, the server was stopped or killed.
        """
        found = {}
        for folder in self.broken_off():
            keep = Checkpoints(folder)
            keep.tidy()
            with contextlib.suppress(SaferuleError):
                found[folder.name] = keep.failure or keep.fail("unlearning_server was stopped or killed")
        return found

    def can_resume(self, request_id: str) -> bool:
        """Say whether there is such a request, and it broke off."""
        return bool(REQUEST_ID.fullmatch(request_id)) and Checkpoints(self.root / request_id).broke_off

    def open(self, request_id: str) -> Path:
        """Return the folder of a request, with a place for temporary files in it. Raises OSError."""
        folder = self.root / request_id
        (folder / SCRATCH).mkdir(parents=True, exist_ok=True)
        return folder

    def close(self, folder: Path) -> None:
        """Remove what is left of a worker, and the folder of a request that never began."""
        Checkpoints(folder).tidy()
        if not (folder / REQUEST).exists():
            shutil.rmtree(folder, ignore_errors=True)


def note_asked(folder: Path, swap: bool) -> None:
    """Write down what only the server knows of a request, for one that goes on after a restart. Raises OSError."""
    replace_file(folder / ASKED, msgspec.json.encode({"swap": swap}) + b"\n")


def asked_to_swap(folder: Path) -> bool:
    """Say whether the request of a folder wanted its policy to drive; no, where that is not known."""
    try:
        return msgspec.json.decode((folder / ASKED).read_bytes(), type=dict[str, bool]).get("swap", False)
    except (OSError, msgspec.DecodeError):
        return False
