"""Results of a repair's phases on disk, so that it can go on where it broke off.

    keep = Checkpoints("repairs/3f9a")
    keep.begin(request, spec)                        # or: request = keep.resume(spec)
    data = keep.data() or read_data(...)

    request.json                 what was asked, of which policy, when, and for which robot description
    phase                        the phase that runs
    retain.safetensors, forget.safetensors, data.json      see `repair_data`; the arrays go when the repair has ended
    candidate.json               id and figures of what was made; the policy itself is in the store
    incumbent.jsonl, candidate.jsonl       validation, one line per episode that was driven
    verdict.json                 the gate's
    result.json                  what came of it: with this file the request has ended
    failed.json                  why it broke off: phase and message; gone when it goes on

Each file appears whole or not at all, but for the lines of validation, of which a last one that was cut off is ignored.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from saferule_core import repair_data
from saferule_core.errors import DataError, DiskError
from saferule_core.progress import Progress
from saferule_core.repair_data import RepairData
from saferule_core.sim.rollout import EpisodeRecord
from saferule_core.spec import RobotSpec
from saferule_core.store.files import replace_file
from saferule_core.unlearning.request import RepairRequest
from saferule_core.validation.gate import Verdict

FORMAT = 1
REQUEST, PHASE, CANDIDATE, VERDICT = "request.json", "phase", "candidate.json", "verdict.json"
RESULT, FAILED = "result.json", "failed.json"
SCRATCH = "scratch"
"""Folder for temporary files of a worker; whoever starts the worker makes and removes it."""

T = TypeVar("T")


class _Asked(msgspec.Struct):
    request: RepairRequest
    spec_hash: str
    created: str
    format: int = FORMAT


class _Line(msgspec.Struct):
    seed: int
    reward: float
    cost: float
    steps: int
    path: list[tuple[float, float]]


class _Judged(msgspec.Struct):
    verdict: Verdict
    seconds: float


@dataclass(frozen=True)
class Failure:
    """Why a request broke off."""

    phase: str
    message: str
    time: str = ""


class Checkpoints:
    """The folder of one request; None keeps nothing."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.created = ""
        self._phase = ""

    # -- a request begins, goes on, ends ---------------------------------------------------------------------------

    def begin(self, request: RepairRequest, spec: RobotSpec, policy_id: str) -> RepairRequest:
        """Write down what is asked, and return it; `policy_id`: the policy to repair.

        Raises:
            DataError: there is a request in the folder already. DiskError: it cannot be written.
        """
        request = replace(request, policy=policy_id)
        if self.folder is None:
            return request
        if (self.folder / REQUEST).exists():
            raise DataError(f"{self.folder}: expected a new folder, found the checkpoints of a request; resume it")
        self.created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._write(REQUEST, _Asked(request, spec.hash, self.created))
        return request

    def resume(self, spec: RobotSpec) -> RepairRequest:
        """Return the request that broke off here.

        Raises:
            DataError: there is none, it has ended, or it is for another robot description.
        """
        asked = self._read(REQUEST, _Asked)
        if asked is None:
            raise DataError(f"{self.folder}: expected the checkpoints of a request, found none; ask anew")
        if asked.format != FORMAT:
            raise DataError(f"{self.folder / REQUEST}: format: expected {FORMAT}, found {asked.format}; ask anew")
        if (self.folder / RESULT).exists():
            raise DataError(f"{self.folder}: expected a request that broke off, found one that has ended; ask anew")
        if asked.spec_hash != spec.hash:
            raise DataError(
                f"{self.folder / REQUEST}: spec_hash: expected {spec.hash[:12]} ({spec.source}), found "
                f"{asked.spec_hash[:12]}; the robot description was changed: ask anew"
            )
        self.created = asked.created
        (self.folder / FAILED).unlink(missing_ok=True)
        return asked.request

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result; nothing goes on from here."""
        if self.folder is not None:
            self._write(RESULT, result)
            (self.folder / FAILED).unlink(missing_ok=True)
            repair_data.drop(self.folder)

    def fail(self, message: str) -> Failure:
        """Write down why the work broke off; what was kept so far stays."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        failure = Failure(self.phase, message, now)
        self._write(FAILED, failure)
        return failure

    @property
    def phase(self) -> str:
        """The phase that was reported last, empty where none was."""
        with contextlib.suppress(OSError):
            return (self.folder / PHASE).read_text(encoding="utf-8").strip()
        return ""

    @property
    def broke_off(self) -> bool:
        """Whether there is a request that has begun and not ended."""
        return (self.folder / REQUEST).exists() and not (self.folder / RESULT).exists()

    @property
    def failure(self) -> Failure | None:
        """Why the work broke off, if somebody wrote it down."""
        return self._read(FAILED, Failure)

    def tidy(self) -> None:
        """Remove what a killed worker may have left half written; only while none works here."""
        shutil.rmtree(self.folder / SCRATCH, ignore_errors=True)
        for left in self.folder.glob(".*-????????"):
            left.unlink(missing_ok=True)

    def watching(self, progress: Progress) -> Progress:
        """Return `progress`, which also writes down which phase runs."""
        if self.folder is None:
            return progress

        def report(phase: str, fraction: float, message: str = "", **losses: float) -> None:
            if phase != self._phase:
                self._phase = phase
                self._put(PHASE, phase.encode())
            progress(phase, fraction, message, **losses)

        return report

    # -- phases ----------------------------------------------------------------------------------------------------

    def data(self) -> RepairData | None:
        """Return what was read from the bags."""
        return None if self.folder is None else repair_data.load(self.folder)

    def keep_data(self, data: RepairData) -> None:
        """Keep what was read from the bags."""
        if self.folder is not None:
            repair_data.save(data, self.folder)

    def candidate(self) -> dict[str, Any] | None:
        """Return the facts about what was made."""
        return self._read(CANDIDATE, dict[str, Any])

    def keep_candidate(self, facts: Mapping[str, Any]) -> None:
        """Keep facts about what was made."""
        self._write(CANDIDATE, facts)

    def records(self, who: str) -> dict[int, EpisodeRecord]:
        """Return seed -> episode that "incumbent" or "candidate" drove."""
        found: dict[int, EpisodeRecord] = {}
        if self.folder is None:
            return found
        with contextlib.suppress(OSError):
            for line in (self.folder / f"{who}.jsonl").read_bytes().split(b"\n"):
                with contextlib.suppress(msgspec.DecodeError):
                    read = msgspec.json.decode(line, type=_Line)
                    path = np.asarray(read.path, np.float64).reshape(-1, 2)
                    found[read.seed] = EpisodeRecord(read.seed, read.reward, read.cost, read.steps, path)
        return found

    def keep_record(self, who: str, record: EpisodeRecord) -> None:
        """Add an episode. Raises DiskError if it cannot be written."""
        if self.folder is None:
            return
        line = _Line(record.seed, record.reward, record.cost, record.steps, record.path.tolist())
        path = self.folder / f"{who}.jsonl"
        try:
            with path.open("ab") as file:
                file.write(b"\n" + msgspec.json.encode(line))  # a line that was cut off before ends here
        except OSError as error:
            raise DiskError(f"{path}: expected to write an episode, found: {error.strerror}") from error

    def verdict(self) -> tuple[Verdict, float] | None:
        """Return the gate's verdict, and how long validation took [s]."""
        read = self._read(VERDICT, _Judged)
        return None if read is None else (read.verdict, read.seconds)

    def keep_verdict(self, verdict: Verdict, seconds: float) -> None:
        """Keep the gate's verdict."""
        self._write(VERDICT, _Judged(verdict, seconds))

    # -- files -----------------------------------------------------------------------------------------------------

    def _read(self, name: str, kind: type[T]) -> T | None:
        if self.folder is None:
            return None
        try:
            return msgspec.json.decode((self.folder / name).read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError):
            return None

    def _write(self, name: str, content: Any) -> None:
        if self.folder is not None:
            self._put(name, msgspec.json.encode(content, enc_hook=_plain) + b"\n")

    def _put(self, name: str, content: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / name, content)
        except OSError as error:
            raise DiskError(f"{self.folder / name}: expected to write it, found: {error.strerror}") from error


NOWHERE = Checkpoints()
"""Keeps nothing."""


def _plain(value: object) -> object:
    """Return a numpy number or array as plain Python, and a path as text."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else str(value)
