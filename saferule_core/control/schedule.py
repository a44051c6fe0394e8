"""When ticks are due, and what became of the periods in which none came.

    schedule = TickSchedule(period_ns)
    timing = schedule.tick(now_ns, wall_ns)     # timing.missed, timing.lateness_s, timing.jumped

`now_ns` is the clock that the tick timer follows: a steady one on a robot, ROS time under `use_sim_time`. `wall_ns` is
always steady. The two together tell apart what looks alike on one of them:

pause            the timer's clock stands still: no ticks, nothing is missed, and the next tick is an ordinary one
other speed      the wall time between two ticks changes, the schedule does not
jump back        the timer's clock is behind the last tick: the schedule begins anew
jump ahead       the clock ran on by many periods although the tick came after its usual wall time: the schedule begins
                 anew. Where the wall time is as long, the loop itself was held up, and the periods count as missed
"""

from __future__ import annotations

from dataclasses import dataclass

JUMP_NS = 1_000_000_000
"""Shortest step ahead of the timer's clock that may be a jump [ns]."""

_JUMP_PERIODS = 3
_USUAL_SHARE = 0.1


@dataclass(frozen=True)
class Timing:
    """How a tick came.

    missed: periods without a tick just before it. lateness_s: how long after it was due, on the timer's clock [s].
    interval_s: wall time since the tick before [s]. jumped: the timer's clock was set.
    """

    missed: int
    lateness_s: float
    interval_s: float
    jumped: bool


class TickSchedule:
    """Ticks on a grid of periods that the first one sets."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._last_ns: int | None = None
        self._due_ns = 0
        self._last_wall_ns = 0
        self._usual_wall_ns = 0.0

    def tick(self, now_ns: int, wall_ns: int) -> Timing:
        """Take a tick at `now_ns` [ns] on the timer's clock and `wall_ns` [ns] on a steady one."""
        if self._last_ns is None:
            self._last_ns, self._last_wall_ns, self._due_ns = now_ns, wall_ns, now_ns + self._period_ns
            return Timing(0, 0.0, 0.0, False)
        elapsed, interval = now_ns - self._last_ns, wall_ns - self._last_wall_ns
        self._last_ns, self._last_wall_ns = now_ns, wall_ns
        if elapsed < 0 or self._jumped_ahead(elapsed, interval):
            self._due_ns = now_ns + self._period_ns
            return Timing(0, 0.0, interval / 1e9, True)
        self._learn_usual(interval)
        late = now_ns - self._due_ns
        # A tick before it was due means that the first one was late itself: the grid moves to the earlier one.
        self._due_ns += self._period_ns * (1 + late // self._period_ns) if late > 0 else self._period_ns + late
        missed = max(0, round(elapsed / self._period_ns) - 1)
        return Timing(missed, max(0, late) / 1e9, interval / 1e9, False)

    def _jumped_ahead(self, elapsed: int, interval: int) -> bool:
        far = elapsed > max(JUMP_NS, _JUMP_PERIODS * self._period_ns)
        return far and self._usual_wall_ns > 0.0 and interval <= 2.0 * self._usual_wall_ns

    def _learn_usual(self, interval: int) -> None:
        """Follow changes of speed within a few ticks; a pause counts for little."""
        if not self._usual_wall_ns:
            self._usual_wall_ns = float(interval)
        bounded = min(float(interval), 4.0 * self._usual_wall_ns)
        self._usual_wall_ns += _USUAL_SHARE * (bounded - self._usual_wall_ns)
