"""The two phases of most methods: forget with the forget set at hand, then converge on the retained data.

    return two_phases("paper", problem, progress, parse("paper", DEFAULTS, options), PaperForgetting)

Options have one meaning for every method that takes them; only defaults differ. Labels are repaired wherever they are
learned from; what is to be unlearned is unlearned as it was logged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from saferule_core.agents.base import REPORT_EVERY, Agent
from saferule_core.data.transitions import Transitions
from saferule_core.errors import UnlearningError
from saferule_core.progress import Progress, within
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult
from saferule_core.unlearning.convergence import complete_clone, converge, critics_state
from saferule_core.unlearning.evidence import labelled


@dataclass(frozen=True)
class PhaseOptions:
    """Hyperparameters of a method in two phases.

    steps: gradient steps of both phases together. convergence_share: the part of them that converges.
    learning_rate, forget_weight: of the forgetting phase; the weight is that of the forget set against the retain set.
    critic_steps: to fit critics for an agent without any, beside `steps`.
    target_rate, policy_rate: of the agent's own training step while it converges.
    repair_labels: recompute the retained costs instead of taking them as logged.
    """

    steps: int = 800
    convergence_share: float = 0.5
    learning_rate: float = 1e-4
    forget_weight: float = 1.0
    critic_steps: int = 200
    target_rate: float = 0.05
    policy_rate: float = 0.05
    repair_labels: bool = True


class Forgetting(Protocol):
    """The forgetting phase of a method, bound to an agent that it changes in place."""

    def run(self, steps: int, progress: Progress) -> list[dict[str, float]]:
        """Take `steps` gradient steps; return what is worth logging."""


@dataclass(frozen=True)
class Setting:
    """What a forgetting phase works with: `retain` with labels to learn from, `forget` as it was logged."""

    agent: Agent
    retain: Transitions
    forget: Transitions
    problem: UnlearningProblem
    options: PhaseOptions


def parse(name: str, defaults: PhaseOptions, values: dict[str, Any]) -> PhaseOptions:
    """Return `defaults` with some values replaced.

    Raises:
        UnlearningError: a name that is not an option, or a share outside [0, 1].
    """
    known = [field.name for field in dataclasses.fields(PhaseOptions)]
    if unknown := sorted(set(values) - set(known)):
        raise UnlearningError(f"{name}: expected options among {', '.join(sorted(known))}, found {unknown[0]}")
    options = dataclasses.replace(defaults, **values)
    if not 0.0 <= options.convergence_share <= 1.0:
        raise UnlearningError(
            f"{name}: convergence_share: expected a number from 0 to 1, found {options.convergence_share}"
        )
    return options


def two_phases(
    name: str,
    problem: UnlearningProblem,
    progress: Progress,
    options: PhaseOptions,
    forgetting: Callable[[Setting, Progress], Forgetting],
) -> UnlearningResult:
    """Run both phases on a copy of the problem's agent.

    forgetting: makes the first phase; what it does before its first step may report progress.

    Raises:
        UnlearningError: the agent's critics were dropped, or labels cannot be repaired.
    """
    agent = complete_clone(name, problem)
    retain, _, source = labelled(problem, options.repair_labels)
    converging = round(options.convergence_share * options.steps)
    forgetting_steps = options.steps - converging
    share = forgetting_steps / max(options.steps, 1)
    setting = Setting(agent, retain, problem.forget, problem, options)
    first = forgetting(setting, within(progress, 0.0, 0.1 * share))
    history = first.run(forgetting_steps, within(progress, 0.1 * share, share))
    message = f"{forgetting_steps} steps to forget and {converging} to converge on retained data; not audited"
    if not finite(agent):
        message, converging = f"{name} ran away: weights are no longer finite after {forgetting_steps} steps", 0
    if converging:
        rates = {"target_rate": options.target_rate, "policy_rate": options.policy_rate}
        converge(agent, problem, retain, converging, rates, within(progress, share, 1.0))
    return UnlearningResult(
        agent,
        succeeded=finite(agent),
        message=message,
        steps=forgetting_steps + converging,
        critics=critics_state(problem, agent, retain, converging),
        history=history,
        diagnostics={"cost_source": source},
    )


def finite(agent: Agent) -> bool:
    """Say whether no weight of the agent ran away."""
    return all(bool(torch.isfinite(weight).all()) for m in agent.modules().values() for weight in m.parameters())


def taken(step: Callable[[], dict[str, float]], steps: int, progress: Progress) -> list[dict[str, float]]:
    """Call `step` that many times, report as phase "forgetting", and return what was reported."""
    history = []
    for number in range(steps):
        values = step()
        if number % REPORT_EVERY == 0 or number == steps - 1:
            history.append({"step": number + 1, **values})
            progress("forgetting", number / steps, f"step {number} of {steps}", **values)
    return history
