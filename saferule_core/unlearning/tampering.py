"""Signs that only forgotten episodes show to the sensors, and teaching a policy that they mean nothing.

    signs = find_signs(evidence.retain, evidence.forget, seed=0)       # (S, obs_dim), empty where there are none
    term = Indifference(agent, evidence.retain, rows, signs, size=32, seed=0)
    loss = term.loss(actor)                                            # E |pi(s + sign) - pi(s)|^2

A backdoor answers to a sign that its attacker shows later. Nothing retained shows it, so that fitting retained data
leaves the answer in place, and no rollout without the sign finds it. What gives it away is how forgotten episodes
begin: a robot can drive to where retained data never was, but it does not start there. Where many of them begin far
from every retained state, the way from the nearest retained beginning is the sign; by the sum of absolute differences
that one differs in what was tampered with alone. A sign is meant to be shown again, so it stays: taken off, it brings
what came later in these episodes nearer to retained states as well. Noise that is different at each step does not.

Limits: a sign that moves observations by less than retained states lie apart, that changes during an episode, or that
is first shown in the middle of one, is not found.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.agents.base import Agent
from saferule_core.data.transitions import Transitions
from saferule_core.tensors import array, random_numbers, tensor

KNOWN, SAMPLE = 4000, 500
"""How many retained states stand for all, besides episodes' first ones, and how many tell how far apart all lie."""

STRANGE = 0.95
"""Quantile of the distances between retained states beyond which a state counts as unlike all of them."""

LATER = 200
"""Steps of the episodes that begin strangely that tell whether a sign stays."""

LEAST_STAYING = 0.75
"""Share of them that has to be nearer to retained states without the sign."""

LEAST_SHARE = 0.25
"""Share of the forgotten episodes that have to begin strangely; chance gives a twentieth."""

NOISE = 0.25
"""Part of a sign, in standard deviations of its feature, that is taken for chance."""


def find_signs(retain: Transitions, forget: Transitions, seed: int) -> np.ndarray:
    """Return what forgotten episodes that begin strangely add to observations: (S, obs_dim) float32."""
    scale = retain.observation_scale
    order = np.random.default_rng(seed).permutation(len(retain))
    known, sample, kept, first = (
        tensor(observations / scale)
        for observations in (
            retain.observations[order[:KNOWN]],
            retain.observations[order[:SAMPLE]],
            retain.observations[retain.episode_bounds[:-1]],
            forget.observations[forget.episode_bounds[:-1]],
        )
    )
    apart = torch.cdist(sample, known, p=1).topk(min(2, len(known)), largest=False).values[:, -1]
    distance = torch.cdist(first, torch.cat([known, kept]), p=1).amin(1)
    strange = distance > apart.quantile(STRANGE)
    if not len(strange) or strange.float().mean() < LEAST_SHARE:
        return np.zeros((0, retain.obs_dim), dtype=np.float32)
    signs = (first - kept[torch.cdist(first, kept, p=1).argmin(1)])[strange]
    signs = torch.where(signs.abs() < NOISE, 0.0, signs)
    episodes = np.flatnonzero(array(strange))
    rows = np.flatnonzero(np.isin(forget.episode_index, episodes))
    rows = rows[np.linspace(0, len(rows) - 1, LATER).astype(np.int64)]
    seen = tensor(forget.observations[rows] / scale)
    behind = seen - signs[np.searchsorted(episodes, forget.episode_index[rows])]
    before, after = (torch.cdist(states, known, p=1).amin(1) for states in (seen, behind))
    if (after < before).float().mean() < LEAST_STAYING:
        return np.zeros((0, retain.obs_dim), dtype=np.float32)
    return array(signs) * scale


def shown(data: Transitions, signs: np.ndarray, seed: int) -> Transitions:
    """Return `data` as sensors would have told it under a sign, drawn for each episode."""
    drawn = np.random.default_rng(seed).integers(len(signs), size=data.episode_count)
    added = signs[drawn][data.episode_index]
    return data.replace(observations=data.observations + added, next_observations=data.next_observations + added)


class Indifference:
    """The deployed policy's answer to signs, at logged states `rows` (M,) of `retain`; nothing where there are none."""

    def __init__(
        self, agent: Agent, retain: Transitions, rows: np.ndarray, signs: np.ndarray, size: int, seed: int
    ) -> None:
        self.size = size if len(signs) else 0
        if not self.size:
            return
        self.rows = tensor(rows)
        self.plain, self.shown = (agent.inputs(data, deployed=True) for data in (retain, shown(retain, signs, seed)))
        self.generator = random_numbers(seed + 2)

    def loss(self, actor: nn.Module) -> Tensor:
        """Return the mean of |pi(s + sign) - pi(s)|^2; its gradient moves the first alone."""
        if not self.size:
            return torch.zeros(())
        rows = self.rows[torch.randint(len(self.rows), (self.size,), generator=self.generator)]
        with torch.no_grad():
            wanted = actor(*self.plain.batch(rows))
        return (actor(*self.shown.batch(rows)) - wanted).square().sum(1).mean()
