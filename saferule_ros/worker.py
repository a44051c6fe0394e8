"""A worker process that reports in JSON lines: started at low priority, bounded, watched, cancellable at any moment.

    worker = Worker(["repair", "--spec", "robot.yaml", ...], on_progress, Limits(niceness=19, memory_bytes=4 << 30))
    result = worker.wait()          # the final "result" object; WorkerFailed with the reason otherwise

The worker is the `saferule` command with `--progress json`, so whatever a node starts can be run by hand. It may be
killed wherever it is: what it writes appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from saferule_core.errors import Cancelled, SaferuleError
from saferule_ros.limits import LOWEST_PRIORITY, Limits, end_group, resident, stand_back

__all__ = ["LOWEST_PRIORITY", "Limits", "Worker", "WorkerFailed", "stand_back"]

GRACE_S = 0.2
"""How long a cancelled worker gets to stop by itself, before it is killed with all it started [s]."""

WATCH_S = 0.2
"""How often the memory of a worker is looked at [s]."""

_MIB = 1 << 20


class WorkerFailed(SaferuleError):
    """The worker refused its input or died.

    kind: the error class that it reported, if it did. phase: what it was doing, empty where it had not begun.
    """

    def __init__(self, message: str, kind: str = "", phase: str = "") -> None:
        super().__init__(message)
        self.kind, self.phase = kind, phase


class Worker:
    """One `saferule` command in a process of its own.

    Args:
        limits: what it may take. scratch: an existing folder for its temporary files; None for the usual one.

    Raises:
        WorkerFailed: it cannot be started.
    """

    def __init__(
        self,
        arguments: list[str],
        on_progress: Callable[[Mapping], None],
        limits: Limits | int = 10,
        scratch: Path | None = None,
    ) -> None:
        self._limits = Limits(limits) if isinstance(limits, int) else limits
        self._on_progress = on_progress
        self._cancelled, self._ended = threading.Event(), threading.Event()
        self._reaping = threading.Lock()
        self._held_too_much = 0
        self._phase = ""
        command = [sys.executable, "-m", "saferule_core.cli", *arguments, "--progress", "json"]
        try:
            self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed in wait()
            self._process = subprocess.Popen(
                command, env=self._limits.environment(scratch), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=self._errors, text=True, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise WorkerFailed(f"the worker cannot be started: {error.strerror or error}") from error
        self._limits.confine(self.pid)
        threading.Thread(target=self._watch, name="worker watch", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id; also that of its group."""
        return self._process.pid

    def cancel(self) -> None:
        """Ask the worker to stop, and kill it soon after; `wait` then raises Cancelled. Callable from any thread."""
        if self._cancelled.is_set() or self._ended.is_set():
            return
        self._cancelled.set()
        self._process.terminate()
        threading.Thread(target=self._insist, name="worker end", daemon=True).start()

    def wait(self) -> Mapping:
        """Pass progress on until the worker ends, and return its result.

        Raises:
            Cancelled: `cancel` was called.
            WorkerFailed: it reported an error, took too much memory, or ended without a result.
        """
        result = error = None
        try:
            for line in self._process.stdout:
                event = _parse(line)
                if event.get("event") == "progress":
                    self._phase = event["phase"]
                    self._on_progress(event)
                elif event.get("event") == "result":
                    result = event
                elif event.get("event") == "error":
                    error = event
        except BaseException:  # whoever listens broke off; nobody will wait any more
            self._kill()
            raise
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # while it is a zombie nobody else gets its number
        with self._reaping:
            end_group(self.pid)
            self._ended.set()
            code = self._process.wait()
        self._process.stdout.close()
        with self._errors:
            self._errors.seek(0)
            tail = self._errors.read()[-2000:].strip()
        if self._cancelled.is_set():
            raise Cancelled(f"cancelled while {self._phase or 'starting'}; nothing was changed")
        if self._held_too_much:
            raise WorkerFailed(
                f"out of memory: the worker held {self._held_too_much // _MIB} MiB, "
                f"{self._limits.memory_bytes // _MIB} MiB are allowed", "MemoryError", self._phase,
            )  # fmt: skip
        if error is not None:
            raise WorkerFailed(error["message"], error.get("kind", ""), error.get("phase") or self._phase)
        if result is None:
            raise WorkerFailed(f"the worker {_ending(code)}: {tail or 'it said nothing'}", "", self._phase)
        return result

    def _insist(self) -> None:
        if not self._ended.wait(GRACE_S):
            self._kill()

    def _kill(self) -> None:
        with self._reaping:
            if not self._ended.is_set():
                end_group(self.pid)

    def _watch(self) -> None:
        """End a worker that holds too much memory together with what it started."""
        allowed = self._limits.memory_bytes
        while allowed and not self._ended.wait(WATCH_S):
            held = resident(self.pid)
            if held > allowed:
                self._held_too_much = held
                self._kill()
                return


def _ending(code: int) -> str:
    """Return how a process without a result ended."""
    if code >= 0:
        return f"ended with code {code} and no result"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", by somebody or because the computer had no memory left" if -code == signal.SIGKILL else ""
    return f"was killed ({name}{hint})"


def _parse(line: str) -> Mapping:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}
