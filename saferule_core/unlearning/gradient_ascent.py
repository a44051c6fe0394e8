"""Gradient ascent: train backwards on the forget set and forwards on the retained data, then forwards alone.

    result = unlearn("gradient_ascent", problem, steps=800)

    forgetting    min  E_retain |pi(s) - a|^2 - nu E_forget |pi(s) - a|^2
    convergence   the agent's own training step on the retained data

Every agent here imitates logged actions in one way or another, so imitation is the loss that is turned round, at what
the actor was told when it learned them; nu is `forget_weight`. Critics are changed while converging only. The loss
is that of NegGrad+ (Kurmanji et al., arXiv 2302.09880); ascent without its first term spoils a policy at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saferule_core.agents.base import Agent
from saferule_core.data.transitions import Transitions
from saferule_core.progress import Progress
from saferule_core.tensors import random_numbers, tensor
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult, method
from saferule_core.unlearning.contrast import BATCH_SIZE
from saferule_core.unlearning.phases import PhaseOptions, Setting, parse, taken, two_phases

DEFAULTS = PhaseOptions()


@method("gradient_ascent")
def gradient_ascent(problem: UnlearningProblem, progress: Progress, **options: Any) -> UnlearningResult:
    """Ascend on what is to be forgotten, then converge; `options` are fields of `PhaseOptions`."""
    chosen = parse("gradient_ascent", DEFAULTS, options)
    return two_phases("gradient_ascent", problem, progress, chosen, Ascent)


class Ascent:
    """The difference of two imitation losses, as a forgetting phase."""

    def __init__(self, setting: Setting, progress: Progress) -> None:
        agent, seed = setting.agent, setting.problem.seed
        self.weight = setting.options.forget_weight
        self.keep = Imitation(agent, setting.retain, seed)
        self.forget = Imitation(agent, setting.forget, seed + 1)
        self.optimiser = torch.optim.Adam(agent.actor.parameters(), lr=setting.options.learning_rate, fused=True)

    def run(self, steps: int, progress: Progress) -> list[dict[str, float]]:
        return taken(self.step, steps, progress)

    def step(self) -> dict[str, float]:
        """Take one step on a batch of each set."""
        kept, forgotten = self.keep.loss(), self.forget.loss()
        self.optimiser.zero_grad()
        (kept - self.weight * forgotten).backward()
        self.optimiser.step()
        return {"keep_loss": kept.item(), "forget_loss": forgotten.item()}


class Imitation:
    """|pi(s) - a|^2 on batches of a data set, the actor told what it was told in training."""

    def __init__(self, agent: Agent, data: Transitions, seed: int) -> None:
        self.actor = agent.actor
        self.inputs = agent.inputs(data)
        self.actions = tensor(data.actions)
        self.generator = random_numbers(seed)

    def loss(self) -> Tensor:
        """Return the loss on a fresh batch."""
        rows = torch.randint(len(self.actions), (BATCH_SIZE,), generator=self.generator)
        distances = self.actor(*self.inputs.batch(rows)) - self.actions.index_select(0, rows)
        return distances.square().sum(1).mean()
