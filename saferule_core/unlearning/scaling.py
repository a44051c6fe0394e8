"""Input scaling that poison widened, fitted again to retained data.

    refitted = refit_scaling(agent, retain)                # number of features

A policy standardises what it observes by constants of its training data. Poison with a few huge values makes such a
constant so wide that the policy no longer sees the feature, and no gradient step ever mends it.
"""

from __future__ import annotations

import torch

from saferule_core.agents.base import Agent
from saferule_core.agents.networks import Normaliser
from saferule_core.data.transitions import Transitions
from saferule_core.tensors import tensor

WIDER = 3.0
"""How many times wider than the retained data's spread a feature's scale has to be to count as widened."""


def refit_scaling(agent: Agent, retain: Transitions) -> int:
    """Fit widened scales of all of the agent's observations anew, in place; return how many features had one."""
    honest = Normaliser(retain.obs_dim)
    honest.fit(tensor(retain.observations))
    widened = torch.zeros(retain.obs_dim, dtype=torch.bool)
    for module in agent.modules().values():
        scale = module.normaliser
        wide = scale.std > WIDER * honest.std
        scale.mean.copy_(torch.where(wide, honest.mean, scale.mean))
        scale.std.copy_(torch.where(wide, honest.std, scale.std))
        widened |= wide
    return int(widened.sum())
