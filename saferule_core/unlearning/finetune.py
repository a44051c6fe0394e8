"""Fine-tuning on the retained data: go on training the running agent, forget by dilution.

    result = unlearn("finetune", problem, steps=800)

The agent's own training step, warm-started, with fast targets and policy averages so that it moves in few steps.

Options that mean the same in every baseline: `steps`, gradient steps of all phases together; `learning_rate`, of the
phase that forgets, here of all steps; `target_rate` and `policy_rate`, of the agent's own training step;
`repair_labels`, costs that are learned from are recomputed through the robot description, or by the learned cost
model where there is none, instead of taken as logged.
"""

from __future__ import annotations

from saferule_core.progress import Progress
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult, method
from saferule_core.unlearning.convergence import complete_clone, converge, critics_state
from saferule_core.unlearning.evidence import labelled


@method("finetune")
def finetune(
    problem: UnlearningProblem,
    progress: Progress,
    steps: int = 800,
    learning_rate: float | None = None,
    target_rate: float = 0.05,
    policy_rate: float = 0.05,
    repair_labels: bool = True,
) -> UnlearningResult:
    """Continue the running agent's training on the retained data for `steps` gradient steps.

    learning_rate: None for the agent's own.

    Raises:
        UnlearningError: the agent's algorithm needs critics that were dropped, or labels cannot be repaired.
    """
    agent = complete_clone("finetune", problem)
    retain, _, source = labelled(problem, repair_labels)
    rates = {"target_rate": target_rate, "policy_rate": policy_rate}
    if learning_rate is not None:
        rates["learning_rate"] = learning_rate
    converge(agent, problem, retain, steps, rates, progress)
    return UnlearningResult(
        agent,
        succeeded=True,
        message=f"fine-tuned on retained data for {steps} steps; not audited",
        steps=steps,
        critics=critics_state(problem, agent, retain, steps),
        diagnostics={"cost_source": source},
    )
