"""Retraining from scratch on the retained data: the reference that unlearning is compared with.

    result = unlearn("retrain", problem)                  # the deployed agent's own configuration
    result = unlearn("retrain", problem, fast=True)       # half the steps, targets and averages five times as quick

Costs are recomputed through the robot description where there is one, or left as logged with `repair_labels=False`.
"""

from __future__ import annotations

import dataclasses

from saferule_core.agents.base import Agent, build
from saferule_core.progress import Progress
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult, method
from saferule_core.unlearning.evidence import relabelled_retain


@method("retrain")
def retrain(
    problem: UnlearningProblem,
    progress: Progress,
    fast: bool = False,
    steps: int | None = None,
    repair_labels: bool = True,
) -> UnlearningResult:
    """Train a new agent of the same configuration on the retained data.

    fast: half the steps with fast averages. steps: overrides the number of gradient steps.
    """
    incumbent = problem.agent
    config = dataclasses.replace(incumbent.config, cost_limit=problem.cost_limit)
    if fast:
        config = faster(config)
    if steps is not None:
        config = dataclasses.replace(config, steps=int(steps))
    hyperparameters = dataclasses.asdict(config)
    agent = build(incumbent.algorithm, incumbent.obs_dim, incumbent.action_dim, hyperparameters)
    agent.fit(relabelled_retain(problem) if repair_labels else problem.retain, problem.seed, progress)
    return UnlearningResult(
        agent,
        succeeded=True,
        message=f"retrained from scratch on retained data, {config.steps} steps; not audited",
        steps=config.steps,
        critics=critics_state(agent),
    )


def faster(config: object) -> object:
    """Return the configuration with half the steps and fast targets and policy averages."""
    quick = {"steps": config.steps // 2, "policy_rate": 0.05}
    if hasattr(config, "target_rate"):
        quick["target_rate"] = 0.05
    return dataclasses.replace(config, **quick)


def critics_state(agent: Agent) -> str:
    """Return "repaired" for an agent whose critics were trained on retained data, "none" if it has no critics."""
    return "repaired" if agent.has("cost_critic") else "none"
