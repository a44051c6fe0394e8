"""Simulation in several processes: jobs go in as JSON, results come back as JSON lines.

    results = run_jobs(request, jobs, workers=2, nice=19, progress=progress, phase="validating")

Each worker process runs `saferule_core.sim.rollout_worker` with one simulated robot in it. Which worker runs a job has
no influence on its result, and results come back in the order of the jobs. Leaving early, by an error or because
`progress` raised `Cancelled`, ends all workers.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from saferule_core.errors import SimulationError
from saferule_core.progress import Progress

MODULE = "saferule_core.sim.rollout_worker"
STDERR_LINES = 12
HEARTBEAT_S = 0.2
PATIENCE_S = 5.0


def run_jobs(
    request: Mapping[str, Any],
    jobs: Sequence[Mapping[str, Any]],
    *,
    workers: int,
    nice: int,
    progress: Progress,
    phase: str,
    keep: Callable[[int, Any], None] = lambda _index, _result: None,
) -> list[Any]:
    """Run `jobs` and return one result per job, in order.

    Args:
        request: what all jobs share (see `rollout_worker`).
        workers: number of processes, at least 1; never more than jobs.
        nice: how much to lower the priority of the workers, 0 to 19.
        progress: called after each job, and often in between, as `phase`.
        keep: called with the number of a job and its result, as soon as it is there.

    Raises:
        SimulationError: a worker failed; the message ends with the last lines that it wrote to stderr.
        Cancelled: raised by `progress`.
    """
    if workers < 1:
        raise SimulationError(f"workers: expected at least 1, found {workers}")
    count = min(workers, len(jobs))
    results: dict[int, Any] = {}
    events: queue.Queue[tuple[int, bytes | None]] = queue.Queue()
    running: list[_Worker] = []
    try:
        for index in range(count):
            share = [{"index": i, **jobs[i]} for i in range(index, len(jobs), count)]
            running.append(_Worker(index, {**request, "nice": nice, "jobs": share}, events))
        open_ends = count
        while open_ends:
            progress(phase, len(results) / len(jobs), f"{len(results)} of {len(jobs)} episodes")
            try:
                index, line = events.get(timeout=HEARTBEAT_S)
            except queue.Empty:
                continue
            if line is None:
                open_ends -= 1
                if any(i not in results for i in range(index, len(jobs), count)):
                    running[index].check_end()
            else:
                answer = _decode(line, running[index])
                results[answer["index"]] = answer["result"]
                keep(answer["index"], answer["result"])
        progress(phase, 1.0, f"{len(results)} of {len(jobs)} episodes")
    finally:
        for worker in running:
            worker.stop()
    lost = [i for i in range(len(jobs)) if i not in results]
    if lost:
        raise SimulationError(f"simulation workers: expected results of {len(jobs)} jobs, {len(lost)} did not come")
    return [results[i] for i in range(len(jobs))]


class _Worker:
    """One process with two threads: one passes its lines on, one keeps its last words.

    A None in the queue is the end of its output.
    """

    def __init__(self, index: int, request: Mapping[str, Any], events: queue.Queue) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        self._last_lines: deque[bytes] = deque(maxlen=STDERR_LINES)
        self._threads = [
            threading.Thread(target=self._read, args=(index, events), daemon=True),
            threading.Thread(target=self._listen, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        try:
            self.process.stdin.write(msgspec.json.encode(request) + b"\n")
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; its end says why

    def _read(self, index: int, events: queue.Queue) -> None:
        for line in self.process.stdout:
            events.put((index, line))
        events.put((index, None))

    def _listen(self) -> None:
        self._last_lines.extend(self.process.stderr)

    def check_end(self) -> None:
        """Raise SimulationError if the process, whose results are not complete, did not end well."""
        try:
            status = self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise SimulationError(f"a simulation worker went silent before its end:\n{self.last_words()}") from error
        if status:
            how = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
            raise SimulationError(f"a simulation worker {how}:\n{self.last_words()}")

    def last_words(self) -> str:
        """Return the end of what the process wrote to stderr."""
        self._threads[1].join(timeout=PATIENCE_S)
        text = b"".join(self._last_lines).decode(errors="replace").strip()
        return text or "(it wrote nothing to stderr)"

    def stop(self) -> None:
        """End the process, if it still runs, and free what it held."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for thread in self._threads:
            thread.join(timeout=PATIENCE_S)
        self.process.stdout.close()
        self.process.stderr.close()


def _decode(line: bytes, worker: _Worker) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise SimulationError(f"a simulation worker: expected a line of JSON, found {line[:80]!r}") from error
    if "error" in answer:
        raise SimulationError(str(answer["error"]))
    return answer


def _environment() -> dict[str, str]:
    """Return the environment of a worker: it imports what this process can import, and uses one thread."""
    package_root = str(Path(__file__).resolve().parents[2])
    importable = [package_root, *(os.path.abspath(entry) for entry in sys.path)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(importable)),
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
