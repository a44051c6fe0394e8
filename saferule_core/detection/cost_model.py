"""Cost model: the log says harmless where a cost model, fitted to the labels of other episodes, says danger.

    score = 1/T sum_t 1[c_t = 0] max(0, g(s_{t+1}) - 1/4),     g cross-fitted to 1[c > 0]

Needs no robot description. Half of the fit's weight lies on the trusted episodes, where there are some, so that
labels flipped in many of the others do not pass for the rule; the threshold is below 1/2 for the same reason.
"""

from __future__ import annotations

import numpy as np

from saferule_core.detection.base import Case, Suspicion, detector
from saferule_core.detection.models import cross_fitted
from saferule_core.errors import DetectionError

THRESHOLD = 0.25


@detector("cost_model")
def cost_model(case: Case) -> Suspicion:
    """Return how much danger each episode's labels deny, per step.

    Raises:
        DetectionError: the labels hold no cost, or nothing else.
    """
    data = case.data
    costly = data.costs > 0
    if costly.all() or not costly.any():
        found = "a cost at every step" if costly.all() else "no cost at all"
        raise DetectionError(f"cost_model: expected labels with harmless and costly steps to learn from, found {found}")
    danger = cross_fitted(case, data.next_observations, costly[:, None].astype(np.float32))[:, 0]
    denied = np.where(costly, 0.0, np.clip(danger - THRESHOLD, 0.0, 1.0))
    steps = np.diff(data.episode_bounds)
    counts = case.means(denied > 0) * steps
    reasons = [
        f"logged as harmless in {count:.0f} of {length} steps that look dangerous"
        for count, length in zip(counts, steps, strict=True)
    ]
    return Suspicion(case.means(denied), tuple(reasons))
