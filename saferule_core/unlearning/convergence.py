"""The phase that most methods end with: the agent's own training steps, and what became of its critics.

    agent = complete_clone("trajdeleter", problem)
    converge(agent, problem, retain, steps=400, rates={"policy_rate": 0.05}, progress=progress)
    state = critics_state(problem, agent, retain, steps=400)       # "none", "poisoned" or "repaired"
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from saferule_core.agents.base import Agent
from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.errors import UnlearningError
from saferule_core.progress import Progress
from saferule_core.tensors import tensor
from saferule_core.unlearning.base import UnlearningProblem

RUNAWAY = 2.0
CHECKED_ROWS = 4096
TAIL = 20


def complete_clone(name: str, problem: UnlearningProblem) -> Agent:
    """Return a copy of the problem's agent, with the problem's cost limit, that its own training step can work on.

    Raises:
        UnlearningError: modules that its algorithm trains were dropped.
    """
    agent = problem.agent.clone()
    if missing := sorted(set(agent.make_modules()) - set(agent.modules())):
        raise UnlearningError(f"{name}: the agent lacks {', '.join(missing)}; use safe_rule, or retrain")
    agent.config = dataclasses.replace(agent.config, cost_limit=problem.cost_limit)
    return agent


def converge(
    agent: Agent,
    problem: UnlearningProblem,
    data: Transitions,
    steps: int,
    rates: dict[str, float],
    progress: Progress,
    turn: int = 0,
) -> None:
    """Take `steps` of the agent's own training steps on `data`, with those of the `rates` that its steps have.

    turn: another number draws other batches.
    """
    names = {field.name for field in dataclasses.fields(agent.config)}
    known = {name: rate for name, rate in rates.items() if name in names}
    config = dataclasses.replace(agent.config, **known)
    agent.learner(data, problem.seed + turn, config).run(steps, progress)


def critics_state(problem: UnlearningProblem, agent: Agent, retain: Transitions, steps: int) -> str:
    """Say what became of the agent's critics: "none", "poisoned" or "repaired".

    Repaired means trained on retained data at the end, for `steps` > 0 steps, and not run away: no critic is further
    from the retained returns than `RUNAWAY` times what it was in the problem's agent.
    """
    before, after = critic_errors(problem.agent, retain), critic_errors(agent, retain)
    if not after:
        return "none"
    sound = all(error <= RUNAWAY * old for error, old in zip(after, before, strict=True))
    return "repaired" if steps > 0 and sound else "poisoned"


def critic_errors(agent: Agent, data: Transitions) -> list[float]:
    """Return the mean distance of each critic that the agent has from the discounted returns of logged episodes."""
    pairs = ((agent.reward_critic, data.rewards / agent.reward_unit), (agent.cost_critic, data.costs))
    rows = np.linspace(0, len(data) - 1, min(len(data), CHECKED_ROWS)).astype(np.int64)
    inputs = tensor(data.observations[rows]), tensor(data.actions[rows])
    errors = []
    for critic, values in pairs:
        if critic is not None:
            expected = tensor(discounted_to_go(data, values, agent.config.discount, TAIL)[rows])
            with torch.no_grad():
                errors.append(float((critic(*inputs).mean(0) - expected).abs().mean()))
    return errors
