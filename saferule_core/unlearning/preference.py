"""Which retained episodes a repaired policy should imitate: reward against closeness to harm.

    preference = rate(evidence, cost_limit=10.0, seed=0)
    probabilities = preference.probabilities(beta=4.0, multiplier=0.1)       # (M,), to draw rows from

    merit(e) = R_e - lambda H_e,   R_e the return of an episode, H_e the mean harm ahead of its states
    p(row)   ~  min(exp(beta merit(e) / max(1, lambda)), w) v      for the rows of episode e

w lets the best tenth of the rows, and at least `LEAST_EPISODES` episodes of them, count alike. Return and harm are in
standard deviations over the episodes that spend at most half of the cost limit. Whole episodes are chosen, not single
actions: a policy that follows one driver here and another there ends up in states that neither has seen.
v is `BEGINNING_WEIGHT` in the beginning of an episode, and 1 after it. Every drive goes through it, few rows show it,
and a policy that swings out there, on its way from rest to where the episode then stays, breaks its limit at once.
Harm says how soon logged behaviour, the forgotten episodes with repaired labels included, comes to cost from a state: a
fence around the danger, which is what the forget set is good for. It is read off the nearest logged states: no critic
that poison could have reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from saferule_core.agents.memory import elapsed
from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.tensors import array, tensor
from saferule_core.unlearning.evidence import Evidence

COST_DISCOUNT = 0.97
HARM_DISCOUNT = 0.85
ROWS = 3000
NEAREST = 5
CALM = 0.05
TOP_SHARE, LEAST_EPISODES = 0.1, 8

BEGINNING, BEGINNING_WEIGHT = 0.07, 4.0
"""Share of the longest episode's steps that is its beginning, and how many times as often as others it is drawn."""


@dataclass(frozen=True)
class Preference:
    """Merits of the retained transitions that may be imitated.

    rows: (M,) indices into the retained data. reward, harm: (M,) of the row's episode, in standard deviations.
    beginning: (M,) bool, whether the row is in the beginning of its episode. episodes: how many there are.
    """

    rows: np.ndarray
    reward: np.ndarray
    harm: np.ndarray
    beginning: np.ndarray
    episodes: int

    def probabilities(self, beta: float, multiplier: float) -> np.ndarray:
        """Return the chance of each row to be drawn: (M,), summing to 1."""
        merit = beta / max(multiplier, 1.0) * (self.reward - multiplier * self.harm).astype(np.float64)
        weights = np.exp(merit - merit.max())
        alike = min(max(TOP_SHARE, LEAST_EPISODES / self.episodes), 1.0)
        weights = np.minimum(weights, np.quantile(weights, 1.0 - alike))
        weights *= np.where(self.beginning, BEGINNING_WEIGHT, 1.0)
        return weights / weights.sum()


def rate(evidence: Evidence, cost_limit: float, seed: int) -> Preference:
    """Rate the transitions of retained episodes that spend at most half of `cost_limit`, and head for no cost.

    Where most of them head for some cost (a bad start, say), all transitions of those episodes are rated.
    """
    retain = evidence.retain
    kept = np.flatnonzero(retain.episode_costs <= 0.5 * cost_limit)
    safe = retain.select_episodes(kept)
    calm = np.flatnonzero(discounted_to_go(safe, safe.costs, COST_DISCOUNT) <= CALM)
    if len(calm) < 0.5 * len(safe):
        calm = np.arange(len(safe))
    rows = np.flatnonzero(np.isin(retain.episode_index, kept))[calm]
    merits = safe.episode_returns, harm_ahead(evidence, safe, seed)
    reward, harm = (_standardised(values)[safe.episode_index[calm]] for values in merits)
    beginning = elapsed(retain)[rows] < BEGINNING * np.diff(retain.episode_bounds).max()
    return Preference(rows, reward, harm, beginning, len(kept))


def harm_ahead(evidence: Evidence, safe: Transitions, seed: int) -> np.ndarray:
    """Return how much cost logged behaviour soon meets from states like those of each episode of `safe`: (E,).

    About `ROWS` states are looked at, one per episode at least, and the `NEAREST` of as many logged states say what is
    ahead of each.
    """
    everything = Transitions.concatenate([evidence.retain, evidence.forget])
    ahead = tensor((1 - HARM_DISCOUNT) * discounted_to_go(everything, everything.costs, HARM_DISCOUNT))
    scale = tensor(evidence.retain.observation_scale)
    sample = tensor(np.random.default_rng(seed).permutation(len(everything))[:ROWS])
    known = tensor(everything.observations)[sample] / scale
    rows = np.arange(0, len(safe), -(-len(safe) // ROWS))
    unseen = np.setdiff1d(np.arange(safe.episode_count), safe.episode_index[rows])
    rows = np.concatenate([rows, safe.episode_bounds[unseen]])
    nearest = torch.cdist(tensor(safe.observations[rows]) / scale, known).topk(NEAREST, largest=False).indices
    harm = array(ahead[sample][nearest].mean(1))
    sums, counts = (np.bincount(safe.episode_index[rows], each, safe.episode_count) for each in (harm, None))
    return sums / counts


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(float(values.std()), 1e-6)
