"""When a simulated robot senses, ticks and moves, paced by the wall clock as a real robot is. No ROS in here.

    pacer = Pacer(period_ns=10_000_000, lead=0.3)
    pacer.begin(now_ns)              # sensors are due now
    due = pacer.sensed(begun_ns, now_ns)     # -> when /clock is due
    due = pacer.ticked(now_ns)               # -> when the robot moves and senses again

Small delays are made up for, so that the mean rate is kept. Where one is larger, the whole schedule slips by it:
whoever answers to the tick always gets his share of the period, and there never is a burst to catch up.
"""

from __future__ import annotations

ABSORBED = 0.2
"""Share of the period up to which a delay is made up for within that period."""


class Pacer:
    """Says when the next event is due on a steady clock [ns]; counts how late they were.

    Attributes:
        late_periods: events that came so late that the schedule slipped. slipped_ns: by how much in all [ns].
        worst_ns: longest delay of an event [ns].

    Args:
        period_ns: wall time of a control period [ns].
        lead: share of it that passes between the sensors and the tick, in [0, 1).
    """

    def __init__(self, period_ns: int, lead: float) -> None:
        self.period_ns = period_ns
        self._lead_ns = round(lead * period_ns)
        self._absorbed_ns = round(ABSORBED * period_ns)
        self._base_ns = 0
        self.late_periods = 0
        self.slipped_ns = 0
        self.worst_ns = 0

    def begin(self, now_ns: int) -> None:
        """Start a schedule: the sensors are due at `now_ns`. What came before is neither late nor made up for."""
        self._base_ns = now_ns

    def sensed(self, begun_ns: int, published_ns: int) -> int:
        """Take note that the robot moved at `begun_ns` and its sensors are published; return when the tick is due."""
        self._keep_up(begun_ns - self._base_ns)
        return max(self._base_ns + self._lead_ns, published_ns + self._lead_ns // 2)

    def ticked(self, now_ns: int) -> int:
        """Take note that the tick is published at `now_ns`; return when the robot moves on and senses again."""
        self._keep_up(now_ns - self._base_ns - self._lead_ns)
        self._base_ns += self.period_ns
        return self._base_ns

    def _keep_up(self, late_ns: int) -> None:
        self.worst_ns = max(self.worst_ns, late_ns)
        if late_ns > self._absorbed_ns:
            self.late_periods += 1
            self.slipped_ns += late_ns
            self._base_ns += late_ns
