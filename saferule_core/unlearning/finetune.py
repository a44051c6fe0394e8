"""Fine-tuning on the retained data: go on training the running agent, forget by dilution.

    result = unlearn("finetune", problem, steps=800)

The agent's own training step, warm-started, with fast targets and policy averages so that it moves in few steps.
Costs are recomputed through the robot description where there is one, or left as logged with `repair_labels=False`.
An agent whose critics were dropped cannot be fine-tuned this way; use `safe_rule` or `retrain`.
"""

from __future__ import annotations

import dataclasses

from saferule_core.errors import UnlearningError
from saferule_core.progress import Progress
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult, method
from saferule_core.unlearning.evidence import relabelled_retain
from saferule_core.unlearning.retrain import critics_state


@method("finetune")
def finetune(
    problem: UnlearningProblem,
    progress: Progress,
    steps: int = 800,
    target_rate: float = 0.05,
    policy_rate: float = 0.05,
    repair_labels: bool = True,
) -> UnlearningResult:
    """Continue the running agent's training on the retained data for `steps` gradient steps.

    Raises:
        UnlearningError: the agent's algorithm needs critics that were dropped.
    """
    agent = problem.agent.clone()
    if missing := sorted(set(agent.make_modules()) - set(agent.modules())):
        raise UnlearningError(f"finetune: the agent lacks {', '.join(missing)}; use safe_rule, or retrain")
    names = {field.name for field in dataclasses.fields(agent.config)}
    rates = {"policy_rate": policy_rate, "target_rate": target_rate}
    config = dataclasses.replace(agent.config, cost_limit=problem.cost_limit)
    config = dataclasses.replace(config, **{name: rate for name, rate in rates.items() if name in names})
    data = relabelled_retain(problem) if repair_labels else problem.retain
    agent.learner(data, problem.seed, config).run(steps, progress)
    return UnlearningResult(
        agent,
        succeeded=True,
        message=f"fine-tuned on retained data for {steps} steps; not audited",
        steps=steps,
        critics=critics_state(agent),
    )
