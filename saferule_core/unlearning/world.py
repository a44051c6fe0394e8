"""A learned model of the robot: what an action does to the observation, and what it earns.

    world = fit_world(retain, steps=100, seed=0, progress=progress)
    following, rewards = world(observations, actions)

A small network gives features after a few gradient steps; its last layer is then solved exactly by ridge regression.
That removes the noise of stochastic gradients, which an audit over many modelled steps would amplify. Random features
are enough for some robots, and what sensor noise leaves unexplained no step explains: a fit that has no more to gain on
held-out steps ends early.

What stands still but for single jumps, such as a goal that moves on when it is reached, is taken to stand still, and
steps with a jump are not learned from: by least squares it would drift with the mean of its jumps, and the policy
would follow it to where no goal ever was.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.agents.networks import Normaliser, flattened, perceptron
from saferule_core.data.transitions import Transitions
from saferule_core.errors import UnlearningError
from saferule_core.progress import Progress
from saferule_core.tensors import random_numbers, tensor

HIDDEN = 128
BATCH_SIZE = 256
ROWS = 20000
"""How many logged steps stand for all; more of them take time and make hardly a better model."""

PROBE_ROWS, HELD_OUT_ROWS = 5000, 2000
LEAST_ROWS = 5
"""Without so many no model can be fitted and judged: one of `LEAST_ROWS` is held out."""

BLOCK_ROWS = 500
"""Of so many rows a processor keeps the features in its cache until they are summed."""

PROBE_STEPS = 20
LEAST_GAIN = 0.02
"""Share of the held-out error that the first `PROBE_STEPS` have to remove for others to be worth their time."""

ERROR_PER_EPISODE = 0.1
"""An error that adds up to so much over an episode, in standard deviations, needs no training at all."""

PENALTY, NOISE_PENALTY = 1e-5, 1e-3
"""Of the ridge regression; the second where noise is what remains: fitted to it, a replay is led away from the log."""

NOISE_SHARE = 0.5
"""Of what steps are off by where noise remains: the part that moves the robot. The rest is the sensors'."""

LEARNING_RATE = 3e-3
REPORT_EVERY = 20

RARELY = 0.1
"""Share of the steps in which something that jumps may change, and of its changes that may follow upon another."""


class World(nn.Module):
    """Predicts the change of the observation, and the reward. It knows nothing of terminations.

    noise: (N, obs_dim) of logged steps, to draw from at each step of a rollout; N is 0 where there is hardly any.
    """

    def __init__(self, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        inputs, outputs = obs_dim + action_dim, obs_dim + 1
        self.inputs, self.outputs = Normaliser(inputs), Normaliser(outputs)
        self.body = perceptron(inputs, outputs, (HIDDEN, HIDDEN))
        self.layers = list(self.body)[:-1]
        self.register_buffer("solved", torch.zeros(HIDDEN + inputs + 1, outputs))
        self.register_buffer("changes", torch.zeros(HIDDEN + inputs + 1, outputs))
        self.register_buffer("low", torch.zeros(obs_dim))
        self.register_buffer("high", torch.zeros(obs_dim))
        self.register_buffer("moves", torch.ones(obs_dim))
        self.register_buffer("noise", torch.zeros(0, obs_dim))

    def features(self, inputs: Tensor) -> Tensor:
        """Return last hidden layer, inputs and a constant: (N, HIDDEN + inputs + 1)."""
        hidden = inputs
        for layer in self.layers:
            hidden = layer(hidden)
        return torch.cat([hidden, inputs, torch.ones(len(inputs), 1)], dim=1)

    def forward(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return following observations (N, obs_dim), kept near what was logged, and rewards (N,)."""
        change = self.features(self.inputs(torch.cat([observations, actions], dim=1))) @ self.changes
        return torch.clamp(observations + change[:, :-1], self.low, self.high), change[:, -1]

    def settle(self) -> None:
        """Take over the last layer as solved, in the units of observations and reward."""
        self.changes.copy_(self.solved * self.outputs.std)
        self.changes[-1] += self.outputs.mean
        self.changes[:, :-1] *= self.moves


def fit_world(retain: Transitions, steps: int, seed: int, progress: Progress) -> World:
    """Fit a `World` on retained transitions; the reward it predicts is the retained one.

    steps: gradient steps of the features at most.

    Raises:
        UnlearningError: hardly a step in which nothing jumps.
    """
    world = World(retain.obs_dim, retain.action_dim)
    generator = random_numbers(seed)
    moved = tensor(retain.observations) != tensor(retain.next_observations)
    jumps = jumping(moved)
    world.moves.copy_(~jumps)
    smooth = (~moved[:, jumps].any(1)).nonzero().squeeze(1)
    if len(smooth) < LEAST_ROWS:
        raise UnlearningError(
            f"retain set: expected at least {LEAST_ROWS} steps in which nothing jumps, to learn from how the robot "
            f"moves, found {len(smooth)} of {len(moved)}; retain more driving"
        )
    aside = min(HELD_OUT_ROWS, len(smooth) // LEAST_ROWS)
    rows = smooth[torch.randperm(len(smooth), generator=generator)[: ROWS + aside]]
    observations, actions, following, rewards = (
        tensor(values).index_select(0, rows)
        for values in (retain.observations, retain.actions, retain.next_observations, retain.rewards[:, None])
    )
    inputs = torch.cat([observations, actions], dim=1)
    targets = torch.cat([following - observations, rewards], dim=1)
    world.inputs.fit(inputs[:-aside])
    world.outputs.fit(targets[:-aside], smallest=1e-7)
    low, high = torch.aminmax(tensor(retain.next_observations), dim=0)
    world.low.copy_(low - 0.1 * (high - low))
    world.high.copy_(high + 0.1 * (high - low))
    table = torch.cat([world.inputs(inputs), world.outputs(targets)], dim=1)
    table, held_out = table[:-aside], table[-aside:]
    widths = [inputs.shape[1], targets.shape[1]]
    weights = flattened(world.body)
    optimiser = torch.optim.Adam([weights], lr=LEARNING_RATE, fused=True)
    units = (world.outputs.std[:-1] / observations.std(0).clamp_min(1e-3)).square()
    error, noise, enough = math.inf, False, ERROR_PER_EPISODE / float(np.diff(retain.episode_bounds).max())
    for step in range(steps):
        if step in (0, PROBE_STEPS):
            solve_last_layer(world, table[:PROBE_ROWS], widths)
            before, error = error, held_out_error(world, held_out, widths, units)
            noise = error > (1.0 - LEAST_GAIN) * before
            if error < enough or noise:
                break
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * (1.0 - step / steps) + 1e-4
        drawn = torch.randint(len(table), (BATCH_SIZE,), generator=generator)
        given, wanted = table.index_select(0, drawn).split(widths, dim=1)
        loss = (world.body(given) - wanted).square().mean()
        weights.grad.zero_()
        loss.backward()
        optimiser.step()
        if step % REPORT_EVERY == 0:
            progress("model", step / steps, f"step {step} of {steps}", model_loss=loss.item())
    solve_last_layer(world, table, widths, NOISE_PENALTY if noise else PENALTY)
    world.settle()
    if noise:
        world.noise = NOISE_SHARE * world.moves * missed(world, held_out, widths) * world.outputs.std[:-1]
    return world


def jumping(changed: Tensor) -> Tensor:
    """Return which features stand still but for single jumps, (obs_dim,), from the steps in which each has changed."""
    times = changed.sum(0)
    again = (changed[1:] & changed[:-1]).sum(0)
    return (times > 0) & (times < RARELY * len(changed)) & (again < RARELY * times)


@torch.no_grad()
def held_out_error(world: World, table: Tensor, widths: list[int], units: Tensor) -> float:
    """Return the root mean square error of the change of the observation, in standard deviations of the observation."""
    return math.sqrt(float((missed(world, table, widths).square() * units).mean()))


@torch.no_grad()
def missed(world: World, table: Tensor, widths: list[int]) -> Tensor:
    """Return by how much logged changes of the observation are above predicted ones, normalised: (N, obs_dim)."""
    given, wanted = table.split(widths, dim=1)
    return (wanted - world.features(given) @ world.solved)[:, :-1]


@torch.no_grad()
def solve_last_layer(world: World, table: Tensor, widths: list[int], penalty: float = PENALTY) -> None:
    """Replace the last layer by the ridge solution on normalised inputs and targets in `table`."""
    size = world.solved.shape[0]
    gram, moments = torch.zeros(size, size), torch.zeros(size, widths[1])
    for block in table.split(BLOCK_ROWS):
        given, wanted = block.split(widths, dim=1)
        features = world.features(given)
        gram.addmm_(features.T, features)
        moments.addmm_(features.T, wanted)
    gram, moments = (total.double() / len(table) for total in (gram, moments))
    gram += penalty * torch.eye(size, dtype=torch.float64)
    world.solved.copy_(torch.linalg.solve(gram, moments))
