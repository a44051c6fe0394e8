"""Hyperparameters of `safe_rule`: one set for every task and agent, tuned on data that is not reported.

    options = parse_options({"forget_weight": 0.0})
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from saferule_core.errors import UnlearningError


@dataclass(frozen=True)
class SafeRuleOptions:
    """Plain policies and conditioned ones differ in their stages, (beta, steps) in order, batches and first lambda.

    multiplier, multiplier_rate, multiplier_bound: first and least value of lambda, step of dual ascent on its
    logarithm, and its upper end. margin: share of the cost limit that the audit allows. extra_stages, extra_steps: how
    many stages may follow, and their steps, while the audit is not content; conditioned policies repeat their last one.
    forget_weight: nu, weight of the forget term. forget_rows, habitat_rows: how many dangerous states of the forget set
    are taught, and among how many states of the policy's habitat the nearest is sought. sign_weight: mu, weight of the
    term on signs, where there are any; sign_patience: how many times the steps of a conditioned policy are then taken.
    target_quantiles: what a conditioned policy may ask for, best first. critic_steps: 0 drops the critics.
    warm_start: False starts from a fresh policy (an ablation).
    """

    stages: tuple[tuple[float, int], ...] = ((4.0, 400),)
    conditioned_stages: tuple[tuple[float, int], ...] = ((0.0, 100),)
    extra_stages: int = 8
    extra_steps: int = 150
    batch_size: int = 128
    conditioned_batch_size: int = 256
    forget_batch_size: int = 32
    learning_rate: float = 3e-3
    final_learning_rate: float = 1e-4
    policy_rate: float = 0.05
    multiplier: float = 0.1
    conditioned_multiplier: float = 0.3
    multiplier_rate: float = 2.0
    multiplier_bound: float = 8.0
    forget_weight: float = 0.1
    sign_weight: float = 0.3
    sign_batch_size: int = 64
    sign_patience: int = 2
    forget_rows: int = 2000
    habitat_rows: int = 2000
    target_quantiles: tuple[float, ...] = (0.98, 0.95, 0.9, 0.8, 0.5)
    margin: float = 0.4
    model_steps: int = 150
    critic_steps: int = 150
    audit_starts: int = 64
    least_safe_episodes: int = 5
    warm_start: bool = True


def parse_options(values: dict[str, Any]) -> SafeRuleOptions:
    """Return options with some values replaced.

    Raises:
        UnlearningError: a name that is not an option.
    """
    known = {field.name for field in dataclasses.fields(SafeRuleOptions)}
    if unknown := sorted(set(values) - known):
        raise UnlearningError(f"safe_rule: expected options among {', '.join(sorted(known))}, found {unknown[0]}")
    return SafeRuleOptions(**values)
