"""What one control tick gives: a command, who decided on it, and how the tick came."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from saferule_core.control.schedule import Timing
from saferule_core.control.succession import Reverted


class ControlState(enum.Enum):
    """Who decides on the command."""

    RUNNING = "running"
    HOLDING = "holding"
    STOPPED = "stopped"
    WAITING = "waiting"


@dataclass(frozen=True)
class Tick:
    """One control tick.

    command: channel name -> command units. reason: why the state is not RUNNING. warning: what is odd although the
    policy drives. timing: how the tick came. inference_s: wall time of the policy's answer [s], 0 where it was not
    asked. compute_s: wall time from the newest sensors to the command [s]. reverted: what was taken back just before
    this tick. passed: id of a policy that has passed its probation with this tick, else empty.
    """

    number: int
    command: dict[str, float]
    state: ControlState
    reason: str
    warning: str
    timing: Timing
    inference_s: float
    compute_s: float
    reverted: Reverted | None
    passed: str
