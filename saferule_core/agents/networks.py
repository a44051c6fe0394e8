"""Networks small enough for a robot's CPU: actors, vectorised critic ensembles, and moving averages.

    actor = Actor(obs_dim=8, action_dim=2)
    actor.normalise_with(observations)                    # part of the weights, so the bundle carries it
    actions = actor(observations)                         # (N, action_dim) in [-1, 1]

Everything an agent needs at run time lies in its modules as weights or buffers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.agents.single_row import Row, normaliser_row, perceptron_row

HIDDEN = (128, 128)


class Normaliser(nn.Module):
    """Shifts and scales features to zero mean and unit spread; the constants are buffers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, values: Tensor, smallest: float = 1e-3) -> None:
        """Take mean and spread of `values` (N, size); a spread below `smallest` counts as `smallest`."""
        self.mean.copy_(values.mean(0))
        self.std.copy_(values.std(0, unbiased=False).clamp_min(smallest))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std


def perceptron(inputs: int, outputs: int, hidden: Sequence[int] = HIDDEN) -> nn.Sequential:
    """Return a multi-layer perceptron with SiLU between its layers."""
    sizes = [inputs, *hidden, outputs]
    layers: list[nn.Module] = []
    for position, (before, after) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        layers.append(nn.Linear(before, after))
        if position < len(sizes) - 2:
            layers.append(nn.SiLU())
    return nn.Sequential(*layers)


class Actor(nn.Module):
    """Deterministic policy: observation (N, obs_dim) -> action (N, action_dim) in [-1, 1]."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        self.normaliser = Normaliser(obs_dim)
        self.body = perceptron(obs_dim, action_dim, hidden)

    def forward(self, observations: Tensor) -> Tensor:
        return torch.tanh(self.body(self.normaliser(observations)))

    def single_row(self) -> Row:
        """Return the present policy as a function of one observation; see `single_row`."""
        normalise, body = normaliser_row(self.normaliser), perceptron_row(self.body)
        return lambda observation: np.tanh(body(normalise(observation)))


class ConditionedActor(nn.Module):
    """Policy that is told what return and cost to expect: (observation, context) -> action in [-1, 1].

    `context` (N, 2) holds reward-to-go and cost-to-go. Without one the buffer `target` (2,) is used, so that the
    deployed policy is a plain function of the observation.
    """

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        self.normaliser = Normaliser(obs_dim)
        self.context_normaliser = Normaliser(2)
        self.body = perceptron(obs_dim + 2, action_dim, hidden)
        self.register_buffer("target", torch.zeros(2))

    def forward(self, observations: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            context = self.target.expand(len(observations), 2)
        inputs = torch.cat([self.normaliser(observations), self.context_normaliser(context)], dim=1)
        return torch.tanh(self.body(inputs))

    def single_row(self) -> Row:
        """Return the present policy, with its target, as a function of one observation; see `single_row`."""
        normalise, body = normaliser_row(self.normaliser), perceptron_row(self.body)
        context = normaliser_row(self.context_normaliser)(self.target.detach().numpy())
        return lambda observation: np.tanh(body(np.concatenate((normalise(observation), context))))


def together(actors: Sequence[nn.Module], rows: int) -> nn.Module | None:
    """Return one actor that does in the first `rows` of its rows what the first of `actors` does, and so on for all.

    None where they differ in more than what they ask for, so that one forward pass cannot stand for all.
    """
    first, *others = (actor.state_dict() for actor in actors)
    for state in others:
        if first.keys() != state.keys():
            return None
        if any(name != "target" and not torch.equal(values, state[name]) for name, values in first.items()):
            return None
    if not others or "target" not in first:
        return actors[0]
    joint = copy.deepcopy(actors[0])
    joint.target = torch.cat([actor.target.expand(rows, 2) for actor in actors])
    return joint


class EnsembleLinear(nn.Module):
    """`members` linear layers evaluated in one batched product: (members, N, in) -> (members, N, out)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, inputs, self.weight)


class Critic(nn.Module):
    """An ensemble of action values Q(s, a): returns (members, N)."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int] = HIDDEN, members: int = 2) -> None:
        super().__init__()
        self.members = members
        self.normaliser = Normaliser(obs_dim)
        sizes = [obs_dim + action_dim, *hidden, 1]
        self.layers = nn.ModuleList(
            EnsembleLinear(members, before, after) for before, after in zip(sizes[:-1], sizes[1:], strict=True)
        )

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        values = torch.cat([self.normaliser(observations), actions], dim=1).expand(self.members, -1, -1)
        for layer in self.layers[:-1]:
            values = nn.functional.silu(layer(values))
        return self.layers[-1](values).squeeze(-1)


class RewardCritic(Critic):
    """Action values in units of the buffer `unit` (reward per unit of value)."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int] = HIDDEN, members: int = 2) -> None:
        super().__init__(obs_dim, action_dim, hidden, members)
        self.register_buffer("unit", torch.ones(()))


class CostCritic(Critic):
    """Action values of cost; the buffer `multiplier` is the Lagrange multiplier that training has arrived at."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int] = HIDDEN, members: int = 2) -> None:
        super().__init__(obs_dim, action_dim, hidden, members)
        self.register_buffer("multiplier", torch.ones(()))


class StateValue(nn.Module):
    """State value V(s): returns (N,), in units of the buffer `unit` (reward per unit of value)."""

    def __init__(self, obs_dim: int, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        self.normaliser = Normaliser(obs_dim)
        self.body = perceptron(obs_dim, 1, hidden)
        self.register_buffer("unit", torch.ones(()))

    def forward(self, observations: Tensor) -> Tensor:
        return self.body(self.normaliser(observations)).squeeze(-1)


def flattened(module: nn.Module) -> nn.Parameter:
    """Lay a module's weights, and their gradients, end to end; return them as one parameter that shares their memory.

    An optimiser that is given it takes one step instead of one per weight: a good part of what a small network costs.
    Set its gradient to zero with `flat.grad.zero_()`, as the weights keep pointing into it.
    """
    weights = list(module.parameters())
    flat = nn.Parameter(torch.cat([weight.detach().reshape(-1) for weight in weights]))
    flat.grad = torch.zeros_like(flat)
    sizes = [weight.numel() for weight in weights]
    for weight, values, gradient in zip(weights, flat.data.split(sizes), flat.grad.split(sizes), strict=True):
        weight.data, weight.grad = values.view_as(weight), gradient.view_as(weight)
    return flat


@torch.no_grad()
def move_towards(average: nn.Module, module: nn.Module, rate: float) -> None:
    """Exponential moving average of weights: average <- (1 - rate) average + rate module."""
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), rate)


def load_optimiser() -> None:
    """Do now what torch does with a process's first optimiser: it imports its compiler, which takes about a second.

    Call it before taking the time of learning; an import is no part of that.
    """
    torch.optim.Adam([nn.Parameter(torch.zeros(1))])
