"""A node as a plain process: its output with its name in front, and an end that leaves nothing behind.

    process = NodeProcess("cost_monitor", command, environment, print)
    ...
    stop([process])
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

INTERRUPT_S = 8.0
"""How long nodes get to leave the robot safe and end by themselves [s]."""

TERMINATE_S = 3.0
"""How long they get after that, before they are killed [s]."""


class NodeProcess:
    """One process, in a session of its own: Ctrl-C in a terminal reaches only the process that started it."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], show: Callable[[str], None]
    ) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=15)
        self._show = show
        self._process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name=f"{name} output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """Return its last lines of output."""
        self._reader.join(timeout=1.0)
        return "\n".join(self.tail) or "(no output)"

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.exit_code is None:
            self._process.send_signal(number)

    def end(self) -> None:
        """Kill whatever is left of it, its own child processes included, and collect its output."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=1.0)

    def _read(self) -> None:
        with self._process.stdout as output:
            for line in output:
                self.tail.append(line.rstrip("\n"))
                self._show(f"[{self.name}] {line.rstrip()}")


def stop(processes: Sequence[NodeProcess]) -> None:
    """End processes together: Ctrl-C first, then more firmly; none of them is left."""
    for number, patience_s in ((signal.SIGINT, INTERRUPT_S), (signal.SIGTERM, TERMINATE_S)):
        for process in processes:
            process.send(number)
        deadline = time.monotonic() + patience_s
        while any(process.exit_code is None for process in processes) and time.monotonic() < deadline:
            time.sleep(0.02)
    for process in processes:
        process.end()
