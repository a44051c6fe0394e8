"""Inputs that cannot be used: the safe command at once, and a latched stop when that lasts.

    watch = InputWatch(timeout_ns)
    watch.usable()                       # a tick with a good observation
    if watch.unusable(now_ns): ...       # a tick without one: True where it has lasted for too long

A message that is late by a tick must not take a robot out of service, and a sensor that is gone must not let it go on
by surprise when it comes back. Until the first good observation of an activation the loop only waits.
"""

from __future__ import annotations


class InputWatch:
    """Knows since when the inputs have been unusable; times are of the node's clock [ns]."""

    def __init__(self, timeout_ns: int) -> None:
        self._timeout_ns = timeout_ns
        self._had_some = False
        self._since_ns: int | None = None

    def usable(self) -> None:
        """Take note of a tick with a good observation."""
        self._had_some, self._since_ns = True, None

    def unusable(self, now_ns: int) -> bool:
        """Take note of a tick without one; return whether this has lasted longer than the timeout."""
        if self._since_ns is None:
            self._since_ns = now_ns
        return self._had_some and now_ns - self._since_ns > self._timeout_ns

    def restart(self) -> None:
        """Count anew from the next tick on: somebody resumed, or the clock was set."""
        self._since_ns = None
