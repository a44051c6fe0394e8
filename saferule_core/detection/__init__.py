"""Finding the poison: how suspicious is each logged episode, and why. One detector per file behind one registry.

    from saferule_core.detection import Case, detect
    found = detect(Case(data, trusted, recomputed_costs=spec.relabel(data).costs))
    found.ensemble.scores, found.p_values, found.ensemble.reasons

Detectors: `label_disagreement`, `cost_model`, `reward_model`, `transition_gap`, `action_gap`, `value_outlier`,
`gradient_similarity`, `spectral`, and the `ensemble` of them all. docs/DETECTION.md says what each of them finds.
"""

from saferule_core.detection import (
    action_gap,
    cost_model,
    ensemble,
    gradient_similarity,
    label_disagreement,
    reward_model,
    spectral,
    transition_gap,
    value_outlier,
)
from saferule_core.detection.base import DETECTORS, Case, Suspicion, suspicion
from saferule_core.detection.ensemble import MEMBERS, Detection, detect

__all__ = [
    "DETECTORS",
    "MEMBERS",
    "Case",
    "Detection",
    "Suspicion",
    "action_gap",
    "cost_model",
    "detect",
    "ensemble",
    "gradient_similarity",
    "label_disagreement",
    "reward_model",
    "spectral",
    "suspicion",
    "transition_gap",
    "value_outlier",
]
