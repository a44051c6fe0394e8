"""Ctrl-C and SIGTERM as a request that work notices where it can stop cleanly.

    with Stop() as stop:
        work(progress=stop.watching(progress))      # raises Cancelled at the next report after a signal

The first signal asks; the second interrupts at once. A command that a node started (SAFERULE_STOP_WITH_PARENT) ends
when that has died, whatever it is doing: nobody is left to stop it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType

from saferule_core.errors import Cancelled
from saferule_core.progress import Progress

PARENT_CHECK_S = 0.5

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Catches signals while its block runs; for the main thread.

    Attributes:
        asked: a signal came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def watching(self, progress: Progress) -> Progress:
        """Return `progress`, which raises Cancelled once a stop was asked for."""

        def report(phase: str, fraction: float, message: str = "", **losses: float) -> None:
            if self.asked:
                raise Cancelled("stopped by a signal")
            progress(phase, fraction, message, **losses)

        return report

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def end_with_parent() -> None:
    """Let this process, with those that it started if it leads their group, end soon after the one that started it.

    The variable may name that process, which then may have died before this one came to look.
    """
    asked = os.environ.get("SAFERULE_STOP_WITH_PARENT", "")
    if not asked:
        return
    parent = int(asked) if asked.isdigit() and int(asked) > 1 else os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_S)
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(0) == os.getpid():
                os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
