"""The policy in the loop. Swapping is one reference assignment of a new slot; a slot itself never changes.

    slot = Slot(policy, policy_id)
    slot = slot.followed_by(candidate, candidate_id, first_tick=101, blend_ticks=5)
    action = slot.act(observation, memory, tick=101)      # 1/6 the candidate's, 5/6 the incumbent's

While it is blended both policies are asked, with the same memory of what was really done, so a policy that looks back
has a right history whichever of them was heard.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from saferule_core.agents.memory import Memory
from saferule_core.control.ranges import RangeCheck


class Policy(Protocol):
    """What drives, for example a `saferule_core.store.bundle.Policy`.

    It may have an attribute `ranges`, the `ObservationRanges` of its training data.
    """

    def act(self, observations: np.ndarray, memory: Memory) -> np.ndarray:
        """Return actions (N, action_dim) in [-1, 1] for observations (N, obs_dim) float32 and what came before."""


@dataclass(frozen=True)
class Slot:
    """A policy, its id and its range check; and, after a swap, the slot before it and the ticks of blending."""

    policy: Policy
    policy_id: str
    check: RangeCheck | None = None
    previous: Slot | None = None
    first_tick: int = 0
    blend_ticks: int = 0

    def followed_by(
        self, policy: Policy, policy_id: str, check: RangeCheck | None, first_tick: int, blend_ticks: int
    ) -> Slot:
        """Return the slot of a policy that takes over at `first_tick`; it remembers this one and nothing older."""
        return Slot(policy, policy_id, check, replace(self, previous=None), first_tick, blend_ticks)

    def taken_back(self, first_tick: int) -> Slot:
        """Return the slot before this one, which drives at once and alone."""
        return replace(self.previous, first_tick=first_tick, blend_ticks=0)

    def share(self, tick: int) -> float:
        """Return how much of the action of `tick` is this policy's, in (0, 1]."""
        if self.previous is None or not self.blend_ticks:
            return 1.0
        return min(1.0, (tick - self.first_tick + 1) / (self.blend_ticks + 1))

    def act(self, observation: np.ndarray, memory: Memory, tick: int) -> np.ndarray:
        """Return the answer (1, action_dim) to an observation (obs_dim,); nobody has checked it yet."""
        answer = self.policy.act(observation[None], memory)
        share = self.share(tick)
        if share == 1.0 or not np.isfinite(answer).all():
            return answer
        before = self.previous.policy.act(observation[None], memory)
        if np.shape(before) != np.shape(answer) or not np.isfinite(before).all():
            return answer
        return share * np.clip(answer, -1.0, 1.0) + (1.0 - share) * np.clip(before, -1.0, 1.0)
