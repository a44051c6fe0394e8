"""Random rewards: tell the agent that what it should forget pays at random, and train it on everything.

    result = unlearn("random_reward", problem, steps=800)

The forget set's rewards are drawn evenly between the least and the largest reward of the retained data; its costs
are repaired like the retained ones. The agent's own training step then runs on both sets. One of the baselines of
TrajDeleter (arXiv 2404.12530). Options as in `finetune`; with `repair_labels=False` false costs stay in use.
"""

from __future__ import annotations

import numpy as np

from saferule_core.data.transitions import Transitions
from saferule_core.progress import Progress
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult, method
from saferule_core.unlearning.convergence import complete_clone, converge, critics_state
from saferule_core.unlearning.evidence import labelled


@method("random_reward")
def random_reward(
    problem: UnlearningProblem,
    progress: Progress,
    steps: int = 800,
    learning_rate: float | None = None,
    target_rate: float = 0.05,
    policy_rate: float = 0.05,
    repair_labels: bool = True,
) -> UnlearningResult:
    """Train on the retained and the relabelled forget set for `steps` gradient steps.

    learning_rate: None for the agent's own.

    Raises:
        UnlearningError: the agent's algorithm needs critics that were dropped, or labels cannot be repaired.
    """
    agent = complete_clone("random_reward", problem)
    retain, forget, source = labelled(problem, repair_labels)
    random = np.random.default_rng(problem.seed)
    drawn = random.uniform(retain.rewards.min(), retain.rewards.max(), len(forget))
    both = Transitions.concatenate([retain, forget.replace(rewards=drawn)])
    rates = {"target_rate": target_rate, "policy_rate": policy_rate}
    if learning_rate is not None:
        rates["learning_rate"] = learning_rate
    converge(agent, problem, both, steps, rates, progress)
    return UnlearningResult(
        agent,
        succeeded=True,
        message=f"trained for {steps} steps, the forget set with random rewards; not audited",
        steps=steps,
        critics=critics_state(problem, agent, retain, steps if repair_labels else 0),
        diagnostics={"cost_source": source},
    )
