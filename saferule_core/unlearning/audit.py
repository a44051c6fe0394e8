"""Judging a policy without the environment: a learned dynamics model, rolled out from logged start states.

    model = fit_world(retain, steps=300, seed=0, progress=progress)
    verdict = audit(model, policy, starts, costs_of, horizon=200)
    verdict.cost, verdict.reward                          # modelled, per episode

It ranks policies almost as the robot does. Costs of modelled states come from the robot description or the
learned cost model. Never rank policies by modelled reward alone: it overrates poisoned ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.agents.networks import Normaliser, perceptron
from saferule_core.data.transitions import Transitions
from saferule_core.progress import Progress
from saferule_core.unlearning.evidence import Costs

STARTS = 50
REPORT_EVERY = 20


@dataclass(frozen=True)
class Verdict:
    """Modelled cost and reward per episode: their means, and every rollout's cost (K,)."""

    cost: float
    reward: float
    costs: np.ndarray


class World(nn.Module):
    """Predicts the change of the observation, and the reward, from observation and action."""

    def __init__(self, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        self.inputs = Normaliser(obs_dim + action_dim)
        self.outputs = Normaliser(obs_dim + 1)
        self.body = perceptron(obs_dim + action_dim, obs_dim + 1, (128, 128))
        self.register_buffer("low", torch.zeros(obs_dim))
        self.register_buffer("high", torch.zeros(obs_dim))

    def forward(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return (following observations (N, obs_dim), rewards (N,))."""
        change = self.body(self.inputs(torch.cat([observations, actions], dim=1))) * self.outputs.std
        change = change + self.outputs.mean
        following = torch.clamp(observations + change[:, :-1], self.low, self.high)
        return following, change[:, -1]


def fit_world(retain: Transitions, steps: int, seed: int, progress: Progress) -> World:
    """Fit a `World` on retained transitions; the reward it predicts is the retained one."""
    world = World(retain.obs_dim, retain.action_dim)
    observations = torch.from_numpy(retain.observations)
    following = torch.from_numpy(retain.next_observations)
    inputs = torch.cat([observations, torch.from_numpy(retain.actions)], dim=1)
    targets = torch.cat([following - observations, torch.from_numpy(retain.rewards)[:, None]], dim=1)
    world.inputs.fit(inputs)
    world.outputs.fit(targets)
    world.outputs.std.copy_(targets.std(0).clamp_min(1e-6))
    low, high = torch.aminmax(following, dim=0)
    world.low.copy_(low - 0.1 * (high - low))
    world.high.copy_(high + 0.1 * (high - low))
    table = torch.cat([world.inputs(inputs), world.outputs(targets)], dim=1)
    columns = [inputs.shape[1], targets.shape[1]]
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(world.body.parameters(), lr=3e-3, fused=True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1.0 - step / steps) + 1e-4
        rows = torch.randint(len(table), (512,), generator=generator)
        given, wanted = table.index_select(0, rows).split(columns, dim=1)
        loss = (world.body(given) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % REPORT_EVERY == 0:
            progress("model", step / steps, f"step {step} of {steps}", model_loss=float(loss))
    return world


@torch.no_grad()
def audit(world: World, policies: list[nn.Module], starts: np.ndarray, costs_of: Costs, horizon: int) -> list[Verdict]:
    """Roll every policy out in the model from `starts` (K, obs_dim) for `horizon` steps; one verdict each."""
    begin = torch.from_numpy(np.ascontiguousarray(starts, dtype=np.float32))
    states = begin.repeat(len(policies), 1)
    visited, taken, rewards = [states], [], []
    for _ in range(horizon):
        actions = torch.cat([policy(part) for policy, part in zip(policies, states.split(len(begin)), strict=True)])
        states, reward = world(states, actions)
        visited.append(states)
        taken.append(actions)
        rewards.append(reward)
    path = torch.stack(visited).numpy()
    flat = path[:-1].reshape(-1, path.shape[-1]), torch.cat(taken).numpy(), path[1:].reshape(-1, path.shape[-1])
    costs = costs_of(*flat).reshape(horizon, len(policies), len(begin)).sum(0)
    totals = torch.stack(rewards).view(horizon, len(policies), len(begin)).sum(0).mean(1).numpy()
    return [Verdict(float(cost.mean()), float(total), cost) for cost, total in zip(costs, totals, strict=True)]


def start_states(data: Transitions, seed: int, count: int = STARTS) -> np.ndarray:
    """Return up to `count` first observations of episodes, drawn without replacement: (K, obs_dim)."""
    firsts = data.episode_bounds[:-1]
    chosen = np.random.default_rng(seed).permutation(len(firsts))[:count]
    return data.observations[firsts[np.sort(chosen)]]
