"""Removing the influence of named data from a trained agent, one method per file behind one registry.

    from saferule_core.unlearning import UnlearningProblem, unlearn
    result = unlearn("safe_rule", UnlearningProblem(agent, retain, forget, 10.0, seed=0, relabel=spec.relabel))

Methods: `safe_rule` (default), `retrain` (the reference to compare with), `finetune`.
"""

from saferule_core.unlearning import finetune, retrain, safe_rule
from saferule_core.unlearning.base import METHODS, UnlearningProblem, UnlearningResult, unlearn

__all__ = ["METHODS", "UnlearningProblem", "UnlearningResult", "finetune", "retrain", "safe_rule", "unlearn"]
