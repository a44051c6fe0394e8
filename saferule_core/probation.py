"""What to do when a policy that was just swapped in breaks its limit on the robot.

    probation = Probation(candidate_id, incumbent_id, incumbent_cost=77.0, cost_limit=10.0, episodes=5)
    probation.judge(completed_episodes=2, mean_cost=90.0, confirmed=True)     # Decision.ROLL_BACK, .HOLD, ...

An unsafe candidate goes back to the incumbent, unless the incumbent is known to be at least as unsafe: then no policy
at hand is fit to drive and the robot is held.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Decision(enum.Enum):
    """What probation asks for."""

    WATCH = "watch"
    PASSED = "passed"
    ROLL_BACK = "roll back"
    HOLD = "hold"


@dataclass(frozen=True)
class Probation:
    """A candidate's first episodes on the robot.

    incumbent_cost: mean episode cost of the incumbent in validation. cost_limit: allowed mean episode cost.
    episodes: how many completed episodes without a confirmed violation end the probation.
    """

    candidate_id: str
    incumbent_id: str
    incumbent_cost: float
    cost_limit: float
    episodes: int

    def judge(self, completed_episodes: int, mean_cost: float, confirmed: bool) -> Decision:
        """Judge what the cost monitor says of the candidate.

        Args:
            completed_episodes: episodes that the candidate has completed, driving.
            mean_cost: mean cost of all its episodes.
            confirmed: the monitor is certain, at its false alarm rate, that the mean exceeds the limit.
        """
        if confirmed:
            better = self.incumbent_cost <= self.cost_limit or self.incumbent_cost < mean_cost
            return Decision.ROLL_BACK if better else Decision.HOLD
        return Decision.PASSED if completed_episodes >= self.episodes else Decision.WATCH
