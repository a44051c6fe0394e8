"""Transition gap: what the log says to have followed is not what this robot does, or not what the log goes on with.

    score = rms_t  | (s_{t+1} - s_t - f(s_t, a_t)) / spread |  +  rms_t | (s'_t - s_{t+1}) / spread |

f is a cross-fitted model of the robot's dynamics, spread the trusted episodes' residual per feature; s'_t is the logged
next observation, and s_{t+1} the observation of the following row. Sees changed actions, and observations that were
changed step by step; blind to changed labels, and to whole episodes that are moved consistently.
"""

from __future__ import annotations

import numpy as np

from saferule_core.detection.base import Case, Suspicion, detector
from saferule_core.detection.models import cross_fitted, robust_scale

LARGEST = 100.0


@detector("transition_gap")
def transition_gap(case: Case) -> Suspicion:
    """Return how far each episode is from the dynamics of the others, in their usual residuals."""
    data = case.data
    inputs = np.concatenate([data.observations, data.actions], axis=1)
    change = data.next_observations - data.observations
    residual = change - cross_fitted(case, inputs, change)
    _, spread = robust_scale(case, residual)
    surprise = np.sqrt(np.mean(np.clip(residual / spread, -LARGEST, LARGEST) ** 2, axis=1))
    jump = np.zeros_like(data.observations)
    jump[:-1] = data.observations[1:] - data.next_observations[:-1]
    jump[data.episode_ends] = 0.0
    gap = np.sqrt(np.mean(np.clip(jump / spread, -LARGEST, LARGEST) ** 2, axis=1))
    scores = np.sqrt(case.means(surprise**2)) + np.sqrt(case.means(gap**2))
    reasons = []
    for score, row, part in zip(scores, case.largest(surprise), data.episodes(), strict=True):
        broken = int((gap[part] > 1e-3).sum())
        words = f"moves {score:.3g} times as far from the modelled dynamics as usual, most at step {case.step(row)}"
        reasons.append(words + (f"; {broken} next observations are not the following ones" if broken else ""))
    return Suspicion(scores, tuple(reasons))
