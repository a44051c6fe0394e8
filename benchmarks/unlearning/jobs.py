"""Runs cells in processes of their own, as many at a time as there are cores, and writes what they find.

    failures = run_jobs(jobs, LocalBackend(workers=2), results, screen)

A cell whose process is killed is started again; what it had found by then is kept. A cell that cannot be run is told
at the end and tried again by the next run. Leaving early, by Ctrl-C for example, ends all processes.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from benchmarks.unlearning.grid import Cell
from benchmarks.unlearning.results import Results
from benchmarks.unlearning.screen import Screen

ROOT = Path(__file__).parents[2]
MODULE = "benchmarks.unlearning.worker"
ATTEMPTS = 3
HEARTBEAT_S = 0.5
PATIENCE_S = 5.0
LAST_LINES = 12


@dataclass(frozen=True)
class Job:
    """A cell with the methods that it still lacks; attempts: how often it was started."""

    cell: Cell
    methods: tuple[str, ...]
    attempts: int = 0

    def request(self, cache: Path, nice: int) -> dict[str, Any]:
        """Return what the worker reads."""
        cell = dataclasses.asdict(self.cell)
        return {"cell": cell, "methods": self.methods, "cache": str(cache.resolve()), "nice": nice}


@dataclass(frozen=True)
class Event:
    """An answer of a worker (see `worker.py`), or its end by a signal: {"killed": words}."""

    number: int
    answer: dict[str, Any]


class Backend(Protocol):
    """Where workers run."""

    capacity: int

    def start(self, number: int, request: dict[str, Any]) -> None:
        """Start a worker, known as `number` in its events."""

    def next_event(self) -> Event | None:
        """Wait for an event; None after a while without one."""

    def stop(self) -> None:
        """End all workers."""


def run_jobs(
    jobs: Sequence[Job], backend: Backend, results: Results, screen: Screen, cache: Path, nice: int = 0
) -> dict[str, str]:
    """Run `jobs`, append their lines to `results`, and return why cells could not be run, by name."""
    waiting, running, failures, started = deque(jobs), {}, {}, 0
    try:
        while waiting or running:
            while waiting and len(running) < backend.capacity:
                job = waiting.popleft()
                running[started] = dataclasses.replace(job, attempts=job.attempts + 1)
                backend.start(started, job.request(cache, nice))
                screen.begin(started, job.cell.name)
                started += 1
            event = backend.next_event()
            if event is None:
                continue
            answer, job = event.answer, running[event.number]
            if "progress" in answer:
                screen.show(event.number, answer["progress"])
            elif "line" in answer:
                results.append(answer["line"])
                left = tuple(name for name in job.methods if name != answer["line"]["method"])
                running[event.number] = dataclasses.replace(job, methods=left)
            else:
                job = running.pop(event.number)
                failure = (answer.get("error") or answer.get("killed")) if job.methods else None
                again = failure is not None and "killed" in answer and job.attempts < ATTEMPTS
                if again:
                    waiting.append(job)
                elif failure is not None:
                    failures[job.cell.name] = failure
                screen.end(event.number, failure, again)
    finally:
        backend.stop()
    return failures


class LocalBackend:
    """Processes on this machine; `workers` are those that run, by number."""

    def __init__(self, workers: int) -> None:
        self.capacity = workers
        self._events: queue.Queue[Event] = queue.Queue()
        self.workers: dict[int, Worker] = {}

    def start(self, number: int, request: dict[str, Any]) -> None:
        self.workers[number] = Worker(number, request, self._events.put)

    def next_event(self) -> Event | None:
        try:
            event = self._events.get(timeout=HEARTBEAT_S)
        except queue.Empty:
            return None
        if not {"progress", "line"} & set(event.answer):
            self.workers.pop(event.number).stop(PATIENCE_S)
        return event

    def stop(self) -> None:
        for worker in self.workers.values():
            worker.stop()
        self.workers.clear()


class Worker:
    """One process; a thread passes on what it says, another keeps its last words."""

    def __init__(self, number: int, request: dict[str, Any], tell: Callable[[Event], None]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,  # Ctrl-C is for the parent, which then ends its workers
        )
        self._last_words: deque[bytes] = deque(maxlen=LAST_LINES)
        self._threads = [
            threading.Thread(target=self._read, args=(number, tell), daemon=True),
            threading.Thread(target=lambda: self._last_words.extend(self.process.stderr), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        try:
            self.process.stdin.write(msgspec.json.encode(request))
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; its end says why

    def _read(self, number: int, tell: Callable[[Event], None]) -> None:
        ended = False
        for line in self.process.stdout:
            try:
                answer = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                break  # half a line: it was killed while it wrote
            ended = ended or bool({"done", "error"} & set(answer))
            tell(Event(number, answer))
        if not ended:
            status = self.process.wait()
            self._threads[1].join(timeout=PATIENCE_S)
            words = b"".join(self._last_words).decode(errors="replace").strip()
            kind, how = ("killed", f"signal {-status}") if status < 0 else ("error", f"status {status}")
            tell(Event(number, {kind: f"the process ended with {how}: {words or '(it wrote nothing to stderr)'}"}))

    def stop(self, patience: float = 0.0) -> None:
        """End the process and what it started, if it does not end within `patience` [s]; free what it held."""
        for end in (signal.SIGTERM, signal.SIGKILL):
            try:
                self.process.wait(timeout=patience)
                break
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, end)
                patience = PATIENCE_S
        self.process.wait()
        for thread in self._threads:
            thread.join(timeout=PATIENCE_S)
        self.process.stdout.close()
        self.process.stderr.close()


def environment() -> dict[str, str]:
    """Return the environment of a worker: it imports what this process can import, and uses one thread."""
    importable = [str(ROOT), *(os.path.abspath(entry) for entry in sys.path)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(importable)),
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
