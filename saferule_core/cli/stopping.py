"""Ctrl-C and SIGTERM as a request that work notices where it can stop cleanly.

    with Stop() as stop:
        work(progress=stop.watching(progress))      # raises Cancelled at the next report after a signal

The first signal asks; the second interrupts at once.
"""

from __future__ import annotations

import signal
from types import FrameType

from saferule_core.errors import Cancelled
from saferule_core.progress import Progress

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
