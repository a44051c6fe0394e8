"""Retraining from scratch on the retained data: the reference that unlearning is compared with.

    result = unlearn("retrain", problem)                  # the deployed agent's own configuration
    result = unlearn("retrain", problem, fast=True)       # half the steps, quick targets and averages

`repair_labels` means what it means in `finetune`.
"""

from __future__ import annotations

import dataclasses

from saferule_core.agents.base import build
from saferule_core.progress import Progress
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult, method
from saferule_core.unlearning.evidence import labelled

FAST_RATES = ("target_rate", "policy_rate")


@method("retrain")
def retrain(
    problem: UnlearningProblem,
    progress: Progress,
    fast: bool = False,
    steps: int | None = None,
    repair_labels: bool = True,
) -> UnlearningResult:
    """Train a new agent of the same configuration on the retained data.

    fast: half the steps with fast averages, steps: another number of gradient steps, both for this time only.

    Raises:
        UnlearningError: labels cannot be repaired.
    """
    incumbent = problem.agent
    config = dataclasses.replace(incumbent.config, cost_limit=problem.cost_limit)
    if fast:
        config = faster(config)
    if steps is not None:
        config = dataclasses.replace(config, steps=int(steps))
    hyperparameters = dataclasses.asdict(config)
    agent = build(incumbent.algorithm, incumbent.obs_dim, incumbent.action_dim, hyperparameters)
    retain, _, source = labelled(problem, repair_labels)
    agent.fit(retain, problem.seed, progress)
    agent.config = dataclasses.replace(incumbent.config, cost_limit=problem.cost_limit)
    return UnlearningResult(
        agent,
        succeeded=True,
        message=f"retrained from scratch on retained data, {config.steps} steps; not audited",
        steps=config.steps,
        critics="none" if agent.reward_critic is None and agent.cost_critic is None else "repaired",
        diagnostics={"cost_source": source},
    )


def faster(config: object) -> object:
    """Return the configuration with half the steps and fast targets and policy averages."""
    names = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, steps=config.steps // 2, **{rate: 0.05 for rate in FAST_RATES if rate in names})
