"""Cells on a cluster: each is a Ray task that runs the same worker process.

    python -m benchmarks.unlearning run --preset full --backend ray

Ray is optional (`pip install ray`). Every node needs this repository at the same path with its packages, and the cache
folder on a shared file system. Lines come back when their cell is finished.
"""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from typing import Any

import msgspec

from benchmarks.unlearning.jobs import HEARTBEAT_S, MODULE, Event, environment
from saferule_core.errors import DataError


def remote_cell(request: bytes, variables: dict[str, str]) -> tuple[bytes, bytes, int]:
    """Run a worker on this node; return what it wrote to stdout and stderr, and its exit status."""
    ended = subprocess.run(
        [sys.executable, "-m", MODULE], input=request, capture_output=True, env=variables, check=False
    )
    return ended.stdout, ended.stderr, ended.returncode


class RayBackend:
    """Workers as Ray tasks of one CPU each."""

    def __init__(self) -> None:
        """Connect to the cluster that RAY_ADDRESS names, or start Ray here.

        Raises:
            DataError: Ray is not installed.
        """
        try:
            import ray
        except ImportError as error:
            raise DataError("--backend ray: expected the package ray to be installed (pip install ray)") from error
        self._ray = ray
        variables = environment()
        ray.init(ignore_reinit_error=True, runtime_env={"env_vars": {"PYTHONPATH": variables["PYTHONPATH"]}})
        self.capacity = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        self._variables = {name: variables[name] for name in variables if name.startswith(("PYTHON", "OMP", "MKL"))}
        self._remote = ray.remote(num_cpus=1, max_retries=0)(remote_cell)
        self._running: dict[Any, int] = {}
        self._events: deque[Event] = deque()

    def start(self, number: int, request: dict[str, Any]) -> None:
        self._running[self._remote.remote(msgspec.json.encode(request), self._variables)] = number

    def next_event(self) -> Event | None:
        if self._events:
            return self._events.popleft()
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=HEARTBEAT_S)
        for reference in ready:
            self._events.extend(self._answers(reference, self._running.pop(reference)))
        return self._events.popleft() if self._events else None

    def _answers(self, reference: Any, number: int) -> list[Event]:
        try:
            output, words, status = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return [Event(number, {"killed": f"the Ray task ended: {error}"})]
        lines = output[: output.rfind(b"\n") + 1].splitlines()
        events = [Event(number, msgspec.json.decode(line, type=dict[str, Any])) for line in lines]
        if not events or not {"done", "error"} & set(events[-1].answer):
            told = words.decode(errors="replace").strip()[-2000:]
            kind = "killed" if status < 0 else "error"
            events.append(Event(number, {kind: f"the process ended with status {status}: {told}"}))
        return events

    def stop(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()
