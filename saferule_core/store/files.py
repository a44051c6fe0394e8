"""Files that survive a crash: written whole or not at all, and guarded by a lock between processes.

write_durably(path, data)                  # the bytes are on disk when this returns
replace_link(root / "active", target)      # readers see the old target or the new one, never none
with locked(root / ".lock"): ...
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saferule_core.errors import StoreError

_POLL_INTERVAL = 0.02


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on disk; not atomic by itself, so write where nobody looks yet."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Wait until the entries of `directory` (creations, renames) are on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, beside: Path | None = None) -> None:
    """Put `data` at `path` in one step.

    beside: the new file is written next to this path first (same file system), where `path`'s own directory may hold
    nothing but known files at any moment.
    """
    neighbour = path if beside is None else beside
    temporary = neighbour.with_name(f".{neighbour.name}-{secrets.token_hex(4)}")
    try:
        write_durably(temporary, data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def replace_file_with(path: Path, write: Callable[[Path], object]) -> None:
    """Put at `path`, in one step, what `write` writes to the path that it is given."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def replace_link(link: Path, target: str) -> None:
    """Point the symbolic link `link` at `target` (relative to its directory) in one step."""
    temporary = link.with_name(f".{link.name}-{secrets.token_hex(4)}")
    os.symlink(target, temporary)
    os.replace(temporary, link)
    sync_directory(link.parent)


@contextmanager
def locked(path: Path, timeout: float = 10.0) -> Iterator[None]:
    """Hold the lock file `path` against other processes and threads; the system frees it if the holder dies.

    Args:
        timeout: how long to wait for it [s].

    Raises:
        StoreError: somebody else held it all that time, or it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{path}: expected a writable lock file, found: {error.strerror}") from error
    try:
        _wait_for(descriptor, path, timeout)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"{path}: expected the policy store to be free within {timeout:g} s, "
                    "found it locked by another process"
                ) from error
            time.sleep(_POLL_INTERVAL)
