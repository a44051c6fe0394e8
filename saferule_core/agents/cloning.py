"""What agents that clone share: regression steps on batches of logged steps, and a moving average that is deployed.

    class FilteredCloningLearner(CloningLearner):
        def loss(self, rows): ...
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from saferule_core.agents.base import REPORT_EVERY, Agent
from saferule_core.agents.networks import move_towards
from saferule_core.progress import Progress
from saferule_core.tensors import random_numbers


class CloningLearner:
    """The training step, starting from an agent's present weights; subclasses say what a batch of rows costs."""

    Optimiser: type[torch.optim.Optimizer] = torch.optim.Adam

    def __init__(self, agent: Agent, size: int, seed: int, config: Any) -> None:
        """Prepare steps on batches out of `size` rows."""
        self.config, self.size = config, size
        self.average = agent.actor
        self.actor = copy.deepcopy(agent.actor)
        self.optimiser = self.Optimiser(self.actor.parameters(), lr=config.learning_rate, fused=True)
        self.generator = random_numbers(seed)

    def loss(self, rows: Tensor) -> Tensor:
        """Return how far the actor is from what was logged in `rows` (B,)."""
        raise NotImplementedError

    def run(self, steps: int, progress: Progress) -> None:
        """Take `steps` gradient steps and report as phase "training"."""
        for step in range(steps):
            loss = self.update()
            if step % REPORT_EVERY == 0:
                progress("training", step / steps, f"step {step} of {steps}", policy_loss=float(loss))
        progress("training", 1.0, f"{steps} steps")

    def update(self) -> Tensor:
        """Take one regression step on a fresh batch."""
        rows = torch.randint(self.size, (self.config.batch_size,), generator=self.generator)
        loss = self.loss(rows)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        move_towards(self.average, self.actor, self.config.policy_rate)
        return loss.detach()
