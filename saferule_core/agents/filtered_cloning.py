"""Filtered behaviour cloning: imitate the most rewarding of the episodes that are labelled safe, and nothing else.

    agent = train("filtered_cloning", data, cost_limit=10.0, seed=0)

    D*         the `top_share` with the most reward among the episodes of labelled cost <= cost_limit / 2
    policy     min  E_D* | pi(s) - a |^2

It has no critics, and no other defence against wrong labels than the labels themselves: an attack that calls danger
harmless and well paid puts the danger into D*. The "BC-Safe" baseline of OSRL (arXiv 2306.09303), with the choice by
reward of percentile cloning (arXiv 2106.01345, section 5.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from saferule_core.agents.base import Agent, register
from saferule_core.agents.cloning import CloningLearner
from saferule_core.agents.networks import HIDDEN, Actor
from saferule_core.agents.returns import labelled_safe
from saferule_core.data.transitions import Transitions
from saferule_core.tensors import tensor


@dataclass(frozen=True)
class FilteredCloningConfig:
    """Hyperparameters. `least_episodes` are imitated where the share is smaller."""

    cost_limit: float = 10.0
    steps: int = 12000
    batch_size: int = 256
    learning_rate: float = 1e-3
    top_share: float = 0.1
    least_episodes: int = 5
    policy_rate: float = 0.01
    hidden: tuple[int, ...] = HIDDEN


@register
class FilteredCloning(Agent):
    """One actor."""

    algorithm = "filtered_cloning"
    Config = FilteredCloningConfig

    def make_modules(self) -> dict[str, nn.Module]:
        return {"actor": Actor(self.obs_dim, self.action_dim, self.config.hidden)}

    def prepare(self, data: Transitions) -> None:
        self.actor.normaliser.fit(tensor(data.observations))

    def learner(self, data: Transitions, seed: int, config: FilteredCloningConfig) -> FilteredCloningLearner:
        return FilteredCloningLearner(self, data, seed, config)


class FilteredCloningLearner(CloningLearner):
    """The training step, on what `data` holds worth imitating."""

    def __init__(self, agent: Agent, data: Transitions, seed: int, config: FilteredCloningConfig) -> None:
        chosen = data.select_episodes(worth_imitating(data, config))
        super().__init__(agent, len(chosen), seed, config)
        self.table = tensor(np.concatenate([chosen.observations, chosen.actions], axis=1))
        self.columns = [data.obs_dim, data.action_dim]

    def loss(self, rows: Tensor) -> Tensor:
        observations, actions = self.table.index_select(0, rows).split(self.columns, dim=1)
        return (self.actor(observations) - actions).square().mean()


def worth_imitating(data: Transitions, config: FilteredCloningConfig) -> np.ndarray:
    """Return the episodes D* as indices, ascending: (K,) int64."""
    safe = np.flatnonzero(labelled_safe(data, 0.5 * config.cost_limit))
    wanted = max(round(config.top_share * len(safe)), config.least_episodes)
    best_first = safe[np.argsort(-data.episode_returns[safe], kind="stable")]
    return np.sort(best_first[:wanted])
