"""A policy that was just swapped in, under a tighter budget: what the loop itself sees is enough to take it back.

    probation = Probation(candidate_id, ProbationTerms(ticks=1500, limit=5.0))
    probation.take_cost(policy_id, episode, step, cost, confirmed)    # each cost_status
    probation.take_tick(drove=True, overran=False)                    # each tick
    if probation.failure: ...                                         # the next tick is the previous policy's

It fails when the candidate's own steps of one episode cost more than the limit, when the monitor is certain that its
mean cost is over the limit, when it gives no finite action, or in a burst of overruns. A violation that was there when
the candidate took over does not count until the first step without any cost. The candidate has `grace` ticks of driving
to end it; where it does not (what it learned need not cover such a state), the safe command is given for as many ticks
at most, those of a hold among them. The probation itself is counted in ticks that it drove, so a pause, a hold or
another speed of the clock neither shortens nor ends it.

`saferule_core.probation` judges the same policy more slowly, by the mean of whole episodes, for the unlearning server.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

OVERRUN_WINDOW = 50
OVERRUN_BURST = 10
"""So many overruns within `OVERRUN_WINDOW` ticks are a burst."""


@dataclass(frozen=True)
class ProbationTerms:
    """ticks: how many the policy has to drive. limit: what its steps of one episode may cost.

    hold: where it fails, hold the robot; the policy before it is known to be no better. grace: how many ticks it, and
    then the safe command, have to end a violation that was there before it.
    """

    ticks: int
    limit: float
    hold: bool = False
    grace: int = 0


class Probation:
    """Watches one policy; `failure` says why it has to go, `passed` that it has served its time."""

    def __init__(self, policy_id: str, terms: ProbationTerms) -> None:
        self.policy_id, self.terms = policy_id, terms
        self.failure = ""
        self._driven = 0
        self._episode: int | None = None
        self._step: int | None = None
        self._cost = 0.0
        self._inherits = True
        self._waited = 0
        self._overruns: deque[bool] = deque(maxlen=OVERRUN_WINDOW)

    @property
    def ticks_left(self) -> int:
        """Ticks that the policy still has to drive."""
        return max(0, self.terms.ticks - self._driven)

    @property
    def passed(self) -> bool:
        """Whether it has driven long enough without a failure."""
        return not self.failure and not self.ticks_left

    @property
    def wait_reason(self) -> str:
        """Why the safe command has to be given for now, empty where the policy may drive."""
        inherited = self._inherits and self._episode is not None
        if not inherited or self._driven < self.terms.grace or self._waited >= self.terms.grace:
            return ""
        return f"{self.policy_id[:12]} has not ended the violation that was there before it: the safe command is sent"

    def take_cost(self, policy_id: str, episode: int, step: int, cost: float, confirmed: bool) -> None:
        """Take the monitor's account of one step; other policies' steps and repeated ones count for nothing.

        confirmed: the monitor is certain that the policy's mean episode cost exceeds the limit.
        """
        if policy_id != self.policy_id or not math.isfinite(cost):
            return
        if episode != self._episode:
            self._episode, self._step, self._cost = episode, None, 0.0
        if step != self._step:
            self._step = step
            in_grace = min(self._driven, self._waited) < self.terms.grace
            self._inherits = self._inherits and cost > 0.0 and in_grace
            if not self._inherits:
                self._cost += cost
        if self._cost > self.terms.limit:
            self.fail(f"expected a cost of at most {self.terms.limit:g} per episode, found {self._cost:g}")
        elif confirmed:
            self.fail("the cost monitor is certain that its mean episode cost is over the limit")

    def take_tick(self, drove: bool, overran: bool) -> None:
        """Take note of a tick: whether the policy drove, and whether it was an overrun."""
        self._waited += bool(self.wait_reason)
        self._driven += drove
        self._overruns.append(overran)
        if sum(self._overruns) >= OVERRUN_BURST:
            self.fail(f"expected fewer than {OVERRUN_BURST} overruns in {OVERRUN_WINDOW} ticks, found as many")

    def fail(self, reason: str) -> None:
        """End it; the first reason stays."""
        self.failure = self.failure or f"{self.policy_id[:12]} failed its probation: {reason}"
