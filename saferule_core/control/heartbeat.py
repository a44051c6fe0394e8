"""The cost monitor's heartbeat: its status comes once per control period, and its silence stops the robot.

    heartbeat = Heartbeat(timeout_s=0.5, required=False)
    heartbeat.beat(wall_ns)                 # a cost_status came
    reason = heartbeat.tick(wall_ns)        # once per tick; empty while all is well

Silence is measured on a steady clock, but only counts once some ticks went by in it: while a simulation is paused the
monitor's clock stands still like everybody's, and after a delay of the executor itself its messages are still queued.
"""

from __future__ import annotations

SILENT_TICKS = 3
"""Ticks without a status that have to go by, however slowly the clock runs."""


class Heartbeat:
    """Watches for silence from the first beat on; `required`: from the first tick on. Timeout 0: it watches nothing."""

    def __init__(self, timeout_s: float, required: bool) -> None:
        self._timeout_ns = round(1e9 * timeout_s)
        self._required = required
        self._last_ns: int | None = None
        self._silent_ticks = 0

    @property
    def heard(self) -> bool:
        """Whether a beat came, or one was due."""
        return self._last_ns is not None

    def beat(self, wall_ns: int) -> None:
        """Take a sign of life at steady time [ns]."""
        self._last_ns, self._silent_ticks = wall_ns, 0

    def tick(self, wall_ns: int) -> str:
        """Count a tick at steady time [ns]; return why the robot has to stop, or nothing."""
        if self._last_ns is None and self._required:
            self._last_ns = wall_ns
        self._silent_ticks += 1
        if not self.is_silent(wall_ns):
            return ""
        silence = (wall_ns - self._last_ns) / 1e9
        return (
            f"cost monitor: expected a cost_status within {self._timeout_ns / 1e9:g} s, found silence for "
            f"{silence:.2f} s; start it, then ~/resume"
        )

    def is_silent(self, wall_ns: int) -> bool:
        """Say whether the monitor has been silent for too long."""
        if not self._timeout_ns or self._last_ns is None:
            return False
        return self._silent_ticks >= SILENT_TICKS and wall_ns - self._last_ns > self._timeout_ns
