"""Action gap: the action in the log is not the one that brings this robot from one logged state to the next.

    score = rms_t  | (a_t - h(s_t, s_{t+1} - s_t)) / spread |

h is a cross-fitted inverse model of the dynamics, spread the trusted episodes' residual per channel. Sees actions that
were replaced, also where a single step is too short for them to move the robot visibly off a forward model.
"""

from __future__ import annotations

import numpy as np

from saferule_core.detection.base import Case, Suspicion, detector
from saferule_core.detection.models import cross_fitted, robust_scale

LARGEST = 100.0


@detector("action_gap")
def action_gap(case: Case) -> Suspicion:
    """Return how far logged actions are from those that the motion tells, in their usual residuals."""
    data = case.data
    inputs = np.concatenate([data.observations, data.next_observations - data.observations], axis=1)
    residual = data.actions - cross_fitted(case, inputs, data.actions)
    _, spread = robust_scale(case, residual)
    surprise = np.mean(np.clip(residual / spread, -LARGEST, LARGEST) ** 2, axis=1)
    scores = np.sqrt(case.means(surprise))
    reasons = [
        f"actions are {score:.3g} times as far as usual from those that its motion tells, most at step {case.step(row)}"
        for score, row in zip(scores, case.largest(surprise), strict=True)
    ]
    return Suspicion(scores, tuple(reasons))
