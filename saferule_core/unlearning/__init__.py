"""Removing the influence of named data from a trained agent, one method per file behind one registry.

    from saferule_core.unlearning import UnlearningProblem, unlearn
    result = unlearn("safe_rule", UnlearningProblem(agent, retain, forget, 10.0, seed=0, relabel=spec.relabel))

Methods: `safe_rule` (default), `retrain` (the reference to compare with), and baselines: `finetune`,
`gradient_ascent`, `random_reward`, `trajdeleter`, `paper` and `paper_fixed`.
"""

from saferule_core.unlearning import (
    finetune,
    gradient_ascent,
    paper,
    random_reward,
    retrain,
    safe_rule,
    trajdeleter,
)
from saferule_core.unlearning.base import METHODS, UnlearningProblem, UnlearningResult, unlearn

__all__ = [
    "METHODS",
    "UnlearningProblem",
    "UnlearningResult",
    "finetune",
    "gradient_ascent",
    "paper",
    "random_reward",
    "retrain",
    "safe_rule",
    "trajdeleter",
    "unlearn",
]
