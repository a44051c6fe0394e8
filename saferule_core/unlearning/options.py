"""Hyperparameters of `safe_rule`: one set for every task and agent, tuned on data that is not reported.

    options = parse_options({"forget_weight": 0.0})
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from saferule_core.errors import UnlearningError

Count = Annotated[int, msgspec.Meta(ge=1)]
Weight = Annotated[float, msgspec.Meta(ge=0.0)]
Rate = Annotated[float, msgspec.Meta(gt=0.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Stages = Annotated[tuple[tuple[float, Count], ...], msgspec.Meta(min_length=1)]


@dataclass(frozen=True)
class SafeRuleOptions:
    """Plain policies and conditioned ones differ in their stages, (beta, steps) in order.

    multiplier, multiplier_rate, multiplier_bound: first and least value of lambda, step of dual ascent on its
    logarithm, and its upper end. margin: share of the cost limit that the audit allows. extra_stages, extra_steps: how
    many stages may follow, and their steps, while the audit is not content; conditioned policies repeat their last one.
    forget_weight: nu, weight of the forget term. forget_rows, habitat_rows: how many dangerous states of the forget set
    are taught, and among how many states of the policy's habitat the nearest is sought. sign_weight: mu, weight of the
    term on signs, where there are any; sign_patience: how many times the steps of a conditioned policy are then taken.
    target_quantiles: what a conditioned policy may ask for, best first. critic_steps: 0 drops the critics.
    warm_start: False starts from a fresh policy (an ablation).
    """

    stages: Stages = ((4.0, 300),)
    conditioned_stages: Stages = ((0.0, 150),)
    extra_stages: Annotated[int, msgspec.Meta(ge=0)] = 8
    extra_steps: Count = 150
    batch_size: Annotated[int, msgspec.Meta(ge=2)] = 128
    forget_batch_size: Count = 32
    learning_rate: Rate = 5e-3
    final_learning_rate: Rate = 1e-4
    policy_rate: Share = 0.05
    multiplier: Rate = 0.1
    multiplier_rate: Weight = 2.0
    multiplier_bound: Rate = 8.0
    forget_weight: Weight = 0.1
    sign_weight: Weight = 0.3
    sign_batch_size: Count = 64
    sign_patience: Count = 2
    forget_rows: Count = 2000
    habitat_rows: Count = 2000
    target_quantiles: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1)] = (0.98, 0.95, 0.9, 0.8, 0.5)
    margin: Annotated[float, msgspec.Meta(le=1.0)] = 0.4
    model_steps: Count = 150
    critic_steps: Annotated[int, msgspec.Meta(ge=0)] = 150
    audit_starts: Annotated[int, msgspec.Meta(ge=2)] = 64
    least_safe_episodes: Count = 5
    warm_start: bool = True


def parse_options(values: dict[str, Any]) -> SafeRuleOptions:
    """Return options with some values replaced.

    Raises:
        UnlearningError: a name that is not an option, or a value that it cannot have.
    """
    known = {field.name for field in dataclasses.fields(SafeRuleOptions)}
    if unknown := sorted(set(values) - known):
        raise UnlearningError(f"safe_rule: expected options among {', '.join(sorted(known))}, found {unknown[0]}")
    try:
        return msgspec.convert(values, SafeRuleOptions)
    except msgspec.ValidationError as error:
        raise UnlearningError(f"safe_rule: {error}") from error
