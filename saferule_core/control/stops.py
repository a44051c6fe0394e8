"""Stop and hold: both latch, and only an explicit resume lets the policy drive again.

    stops = Stops()
    stops.stop("topic odom: ...")         # the first reason stays
    stops.set_monitor(True)               # the cost monitor's `safety_stop`; its release does not re-arm
    stops.resume()                        # raises ResumeRefused while the monitor's stop is up
"""

from __future__ import annotations

from saferule_core.errors import SaferuleError

MONITOR_STOP = "safety stop of the cost monitor"


class ResumeRefused(SaferuleError):
    """What stopped the robot is still there; the message says what to do first."""


class Stops:
    """Why the policy may not drive; empty reasons: it may."""

    def __init__(self, monitor_stops: bool = False) -> None:
        self.monitor_stops = monitor_stops
        self.stopped = MONITOR_STOP if monitor_stops else ""
        self.held = ""

    def stop(self, reason: str) -> None:
        """Latch a stop; where one is latched already, its reason stays."""
        self.stopped = self.stopped or reason

    def hold(self, reason: str) -> None:
        """Latch a hold: an operator's wish, or no danger but nothing to drive on."""
        self.held = self.held or reason

    def set_monitor(self, stops: bool) -> None:
        """Take what the cost monitor asks for; a release only makes `resume` possible."""
        self.monitor_stops = stops
        if stops:
            self.stop(MONITOR_STOP)

    def resume(self) -> None:
        """Re-arm.

        Raises:
            ResumeRefused: the cost monitor still asks for a stop.
        """
        if self.monitor_stops:
            raise ResumeRefused("the cost monitor's stop is still latched: first call ~/reset_stop of cost_monitor")
        self.stopped = self.held = ""
