"""Label disagreement: the log says one cost (or reward), the sensors in the same log another.

    score = sum_t |c_t - c(s_t, a_t, s_{t+1})| / T  +  sum_t |r_t - r(s_t, a_t, s_{t+1})| / (T std r)

Exact where the robot description computes cost and reward from what was recorded, blind to an attacker who changes
the recording itself consistently.
"""

from __future__ import annotations

import numpy as np

from saferule_core.detection.base import Case, Suspicion, detector
from saferule_core.detection.models import robust_scale
from saferule_core.errors import DetectionError

TOLERANCE = 1e-3


@detector("label_disagreement")
def label_disagreement(case: Case) -> Suspicion:
    """Return how far logged labels are from recomputed ones, per step.

    Raises:
        DetectionError: nothing was recomputed.
    """
    data, costs, rewards = case.data, case.recomputed_costs, case.recomputed_rewards
    if costs is None and rewards is None:
        raise DetectionError("label_disagreement: expected recomputed costs or rewards to compare with, found neither")
    cost_gap = np.zeros(len(data)) if costs is None else np.abs(data.costs - costs)
    reward_gap, spread = np.zeros(len(data)), 1.0
    if rewards is not None:
        spread = float(robust_scale(case, rewards[:, None])[1][0])
        reward_gap = np.abs(data.rewards - rewards) / spread
    cost_gap, reward_gap = (np.where(gap > TOLERANCE, gap, 0.0) for gap in (cost_gap, reward_gap))
    true_costs = None if costs is None else case.means(costs) * np.diff(data.episode_bounds)
    reward_offsets = None if rewards is None else case.means(data.rewards - rewards)
    steps = case.means(cost_gap > 0) * np.diff(data.episode_bounds)
    reasons = []
    for episode in range(data.episode_count):
        words = []
        if steps[episode] > 0:
            words.append(
                f"cost is logged as {data.episode_costs[episode]:g} and recomputed as {true_costs[episode]:g} "
                f"({steps[episode]:.0f} steps differ)"
            )
        if rewards is not None and reward_gap[data.episodes()[episode]].any():
            words.append(f"reward is logged {reward_offsets[episode]:+.3g} per step against the recomputed one")
        reasons.append("; ".join(words) or "labels agree with the sensors")
    return Suspicion(case.means(cost_gap) + case.means(reward_gap), tuple(reasons))
