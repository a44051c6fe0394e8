"""A worker process that reports in JSON lines: started at low priority, watched, cancellable.

    worker = Worker(["repair", "--spec", "robot.yaml", ...], on_progress)
    result = worker.wait()          # the final "result" object; WorkerFailed with the reason otherwise

The worker is the `saferule` command with `--progress json`, so whatever a node starts can be run by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping

from saferule_core.errors import Cancelled, SaferuleError

TERMINATE_S = 5.0
"""How long a cancelled worker gets to stop by itself [s]."""

LOWEST_PRIORITY = 19


class WorkerFailed(SaferuleError):
    """The worker refused its input or died; `kind` names the error class that it reported, if it did."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class Worker:
    """One `saferule` command in a process of its own."""

    def __init__(self, arguments: list[str], on_progress: Callable[[Mapping], None], niceness: int = 10) -> None:
        self._on_progress = on_progress
        self._cancelled = threading.Event()
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed in wait()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "saferule_core.cli", *arguments, "--progress", "json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            start_new_session=True,
        )  # fmt: skip
        stand_back(self._process.pid, niceness)

    def cancel(self) -> None:
        """Ask the worker to stop; `wait` then raises Cancelled. Callable from any thread."""
        self._cancelled.set()
        self._process.terminate()

    def wait(self) -> Mapping:
        """Pass progress on until the worker ends, and return its result.

        Raises:
            Cancelled: `cancel` was called.
            WorkerFailed: it reported an error, or ended without a result.
        """
        result = error = None
        for line in self._process.stdout:
            event = _parse(line)
            if event.get("event") == "progress":
                self._on_progress(event)
            elif event.get("event") == "result":
                result = event
            elif event.get("event") == "error":
                error = event
        try:
            code = self._process.wait(TERMINATE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdout.close()
        with self._errors:
            self._errors.seek(0)
            tail = self._errors.read()[-2000:].strip()
        if self._cancelled.is_set():
            raise Cancelled("cancelled; nothing was changed")
        if error is not None:
            raise WorkerFailed(error["message"], error.get("kind", ""))
        if result is None:
            raise WorkerFailed(f"the worker ended with code {code} and no result: {tail or 'it said nothing'}")
        return result


def stand_back(pid: int, niceness: int) -> None:
    """Lower a process's priority; at the lowest niceness it runs only where no node wants the core.

    Niceness alone shares a core by weights, and a node that wakes up for a tick may wait for a slice of the worker's
    to end, on each hop from robot to policy and back. Linux's idle class gives way at once.
    """
    os.setpriority(os.PRIO_PROCESS, pid, niceness)
    if niceness == LOWEST_PRIORITY and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def _parse(line: str) -> Mapping:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}
