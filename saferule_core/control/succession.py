"""Which policy is in the loop, which was before it, and which may come: swap, blend, shadow, probation, and back.

    succession = Succession(policy, policy_id, settings)
    succession.swap(candidate, candidate_id, next_tick, blend_ticks=5, terms=ProbationTerms(ticks=1500, limit=5.0))
    hold = succession.take_back(next_tick)      # before each tick; a reason where the robot has to be held instead
    reverted = succession.reported()            # what was taken back since the last call
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from saferule_core.control.probation import Probation, ProbationTerms
from saferule_core.control.ranges import RangeCheck
from saferule_core.control.settings import ControlSettings
from saferule_core.control.shadow import Shadow
from saferule_core.control.slot import Policy, Slot


@dataclass(frozen=True)
class Reverted:
    """A policy that failed its probation. previous_id: what drives instead, empty where the robot is held."""

    policy_id: str
    previous_id: str
    reason: str


class Succession:
    """Policies that come and go; all of it happens between two ticks.

    Attributes:
        slot: the policy in the loop. shadow: a candidate beside it, or None. probation: of the policy in the loop, or
            None. rejected_id: the policy that was taken back last, or empty.
        swaps, reverts: how many there were since the loop began. last_swap_tick: first tick of the newest policy.
        last_swap_duration_s: wall time of the assignment [s].
    """

    def __init__(self, policy: Policy, policy_id: str, settings: ControlSettings) -> None:
        self._settings = settings
        self.slot = Slot(policy, policy_id, self._range_check(policy))
        self.probation: Probation | None = None
        self.rejected_id = ""
        self._reverted: Reverted | None = None
        self.begin()

    def begin(self) -> None:
        """Count anew for a new activation. Policies stay, with a probation; a shadow and blending end."""
        self.slot = replace(self.slot, first_tick=0, blend_ticks=0)
        self.shadow: Shadow | None = None
        self.swaps = self.reverts = self.last_swap_tick = 0
        self.last_swap_duration_s = 0.0

    def swap(
        self, policy: Policy, policy_id: str, next_tick: int, blend_ticks: int, terms: ProbationTerms | None
    ) -> str:
        """Put a policy into the loop from `next_tick` on; return the id of the one before it.

        Where it is there already nothing is exchanged: the way back to the one before it stays, and so does a probation
        that has begun, with its terms.
        """
        if policy_id == self.slot.policy_id:
            if terms is not None and self.probation is None:
                self.probation = Probation(policy_id, terms)
            return policy_id
        previous, check = self.slot, self._range_check(policy)
        begun = time.perf_counter()
        self.slot = previous.followed_by(policy, policy_id, check, next_tick, blend_ticks)
        self.last_swap_duration_s = time.perf_counter() - begun
        self.probation = None if terms is None else Probation(policy_id, terms)
        self.swaps += 1
        self.last_swap_tick = next_tick
        return previous.policy_id

    def take_back(self, next_tick: int) -> str:
        """Let the policy before the present one drive again, where that has failed its probation.

        Returns:
            Why the robot has to be held, where no better policy is at hand; else nothing.
        """
        if self.probation is None or not self.probation.failure:
            return ""
        failed, self.probation = self.probation, None
        self.rejected_id = failed.policy_id
        if failed.terms.hold or self.slot.previous is None:
            self._reverted = Reverted(failed.policy_id, "", failed.failure)
            return f"{failed.failure}; no better policy is at hand"
        self.slot = self.slot.taken_back(next_tick)
        self.reverts += 1
        self._reverted = Reverted(failed.policy_id, self.slot.policy_id, failed.failure)
        return ""

    def reported(self) -> Reverted | None:
        """Return what was taken back since the last call."""
        reverted, self._reverted = self._reverted, None
        return reverted

    def count(self, drove: bool, overran: bool) -> str:
        """Count a tick of the probation; return the id of a policy that has passed with it, else nothing."""
        if self.probation is None:
            return ""
        self.probation.take_tick(drove, overran)
        if not self.probation.passed:
            return ""
        passed, self.probation = self.probation.policy_id, None
        return passed

    def _range_check(self, policy: Policy) -> RangeCheck | None:
        ranges = getattr(policy, "ranges", None)
        if ranges is None or self._settings.ood == "off":
            return None
        return RangeCheck(ranges, self._settings.ood_margin)
