"""How serious the safety cost of a driving robot is: OK, NEAR, VIOLATED, and when to stop. No ROS in here.

    judge = LevelJudge(Limits(near_share=0.8, trigger_ticks=3, release_ticks=10))
    level = judge.judge(Evidence(violated="", spent=False, budget_share=0.9, margins={...}, shares={...}))
    level.state, level.reason, level.stop

A level rises when it was reached in `trigger_ticks` judged states in a row, and falls when it was not in
`release_ticks`; repeated looks at the same state count once. What the cost is, and its sum, is not debounced: a
recorded drive is charged the same.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields

from saferule_core.errors import DataError


class CostState(enum.Enum):
    """Whether the cost is known, and within its limits.

    WAITING: no state has been judged yet. STALE: some were, but now an input is missing, too old or not a number.
    NEAR: a bound is close or crossed, or most of a budget is spent. VIOLATED: a budget is spent or the mean is
    confirmed to be over the limit.
    """

    WAITING = "waiting"
    OK = "ok"
    NEAR = "near"
    VIOLATED = "violated"
    STALE = "stale"


@dataclass(frozen=True)
class Limits:
    """What counts as close and as broken, besides the budget per episode of the description.

    window_s: length of the sliding window [s], 0 for none; window_limit: what it may cost.
    near_share: share of a budget from which it counts as close, 1 or more for never.
    near_margin: margin to a bound from which it counts as close, in the units of the constraint, 0 for its crossing.
    near_margin_share: the same as a share of the bound.
    trigger_ticks, release_ticks: judged states in a row for a level to rise and to fall.

    Raises:
        DataError: a number is out of range.
    """

    window_s: float = 0.0
    window_limit: float = 0.0
    near_share: float = 0.8
    near_margin: float = 0.0
    near_margin_share: float = 0.05
    trigger_ticks: int = 1
    release_ticks: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 1 if field.name.endswith("_ticks") else 0
            if not (math.isfinite(value) and value >= least):
                raise DataError(f"cost monitor: {field.name}: expected a number of at least {least}, found {value}")


class SlidingCost:
    """Cost of the last `window_s` seconds of robot time, whatever episode they belong to."""

    def __init__(self, window_s: float) -> None:
        self._window_ns = round(1e9 * window_s)
        self.clear()

    def clear(self) -> None:
        """Forget what was spent."""
        self._charges: deque[tuple[int, float]] = deque()
        self.total = 0.0

    def add(self, stamp_ns: int, cost: float) -> float:
        """Charge a state of ROS time `stamp_ns` [ns] and return the cost of the window that ends with it."""
        if self._charges and stamp_ns < self._charges[-1][0]:
            self.clear()  # the clock was set back
        if cost > 0.0:
            self._charges.append((stamp_ns, cost))
            self.total += cost
        while self._charges and self._charges[0][0] <= stamp_ns - self._window_ns:
            self.total -= self._charges.popleft()[1]
        if not self._charges:
            self.total = 0.0  # no rounding errors are kept
        return self.total


class Debounce:
    """Lets a level (a number, larger is worse) rise after `trigger` looks in a row and fall after `release`."""

    def __init__(self, trigger: int, release: int, calm: int = 0) -> None:
        self.level = calm
        self._rising = deque([calm] * trigger, maxlen=trigger)
        self._falling: deque[int] = deque(maxlen=release)

    def update(self, level: int) -> int:
        """Take a look and return the level that counts."""
        self._rising.append(level)
        self._falling.append(level)
        self.level = max(self.level, min(self._rising))
        if len(self._falling) == self._falling.maxlen:
            self.level = min(self.level, max(self._falling))
        return self.level


@dataclass(frozen=True)
class Evidence:
    """What is known of one judged state.

    violated: why a limit is broken, empty where none is. spent: that is a budget that asks for a stop.
    budget_share: largest share of a budget that is spent. margins, shares: per constraint, as `Margins` gives them.
    """

    violated: str
    spent: bool
    budget_share: float
    margins: Mapping[str, float]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Level:
    """The debounced answer; `stop`: the budget was spent long enough to ask for a stop."""

    state: CostState
    reason: str
    stop: bool


_RANKS = (CostState.OK, CostState.NEAR, CostState.VIOLATED)


class LevelJudge:
    """Turns the evidence of each judged state into a level."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._debounce = Debounce(limits.trigger_ticks, limits.release_ticks)
        self._spent = 0
        self._reasons = ["", "", ""]

    def judge(self, evidence: Evidence) -> Level:
        """Take a judged state; call it once per state."""
        near = self._near(evidence)
        raw = 2 if evidence.violated else 1 if near else 0
        self._reasons[1:] = [near or self._reasons[1], evidence.violated or self._reasons[2]]
        self._spent = self._spent + 1 if evidence.spent else 0
        rank = self._debounce.update(raw)
        return Level(_RANKS[rank], self._reasons[rank], self._spent >= self._limits.trigger_ticks)

    def _near(self, evidence: Evidence) -> str:
        """Return what is close, empty where nothing is; a margin that is not known (NaN) is not."""
        limits = self._limits
        for name, margin in evidence.margins.items():
            if margin < 0.0:
                return f"{name}: {-margin:.3g} beyond the bound"
            if margin < limits.near_margin or evidence.shares[name] < limits.near_margin_share:
                return f"{name}: {margin:.3g} left to the bound"
        if limits.near_share < 1.0 and evidence.budget_share >= limits.near_share:
            return f"{evidence.budget_share:.0%} of the budget is spent"
        return ""
