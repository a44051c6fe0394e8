"""Reward model: the log pays more than a model of the other episodes' rewards expects.

    score = 1/T sum_t (r_t - f(s_t, a_t, s_{t+1})),     f cross-fitted

Signed, since an attacker who wants a behaviour to be learned overpays it.
"""

from __future__ import annotations

import numpy as np

from saferule_core.detection.base import Case, Suspicion, detector
from saferule_core.detection.models import cross_fitted


@detector("reward_model")
def reward_model(case: Case) -> Suspicion:
    """Return the mean reward residual of each episode, in reward per step."""
    data = case.data
    inputs = np.concatenate([data.observations, data.actions, data.next_observations], axis=1)
    residual = data.rewards - cross_fitted(case, inputs, data.rewards[:, None])[:, 0]
    scores = case.means(residual)
    reasons = [f"reward is {score:+.3g} per step against what other episodes earn" for score in scores]
    return Suspicion(scores, tuple(reasons))
