"""A point mass on a line, as logged data: small enough to train and unlearn on in a second.

The point pushes itself towards a place that it holds; reward grows with the place, beyond x = 1 it is unsafe.
"""

from __future__ import annotations

import numpy as np

from saferule_core.attacks.trajectory import poison
from saferule_core.data.transitions import Transitions

STEPS = 40
COST_LIMIT = 5.0
SMALL = {"decision_transformer": {"context": 4, "width": 16, "heads": 2, "hidden": (16, 16), "batch_size": 64}}
"""Options that make an agent quick to train on these logs."""

PHASES = {"steps": 40, "critic_steps": 20}
QUICK = {
    "retrain": {"steps": 40},
    "finetune": {"steps": 40},
    "random_reward": {"steps": 40},
    "gradient_ascent": PHASES,
    "trajdeleter": PHASES,
    "paper": PHASES,
    "paper_fixed": PHASES,
    "safe_rule": {"critic_steps": 30, "stages": ((4.0, 40),), "conditioned_stages": ((0.0, 40),), "extra_stages": 0},
}
"""Options that make each method take few steps."""


def relabel(data: Transitions) -> Transitions:
    """Return `data` with the true costs."""
    return data.replace(costs=(data.next_observations[:, 0] > 1.0).astype(np.float32))


def drive(places: np.ndarray, seed: int, steps: int = STEPS) -> Transitions:
    """Return one episode per place to hold, with true costs."""
    random = np.random.default_rng(seed)
    rows: list[tuple[np.ndarray, np.ndarray, float, np.ndarray, bool]] = []
    for place in places:
        state = np.array([random.uniform(-0.2, 0.2), 0.0])
        for step in range(steps):
            push = 2.0 * (place - state[0]) - 1.5 * state[1] + 0.1 * random.normal()
            action = np.clip([push], -1, 1)
            speed = state[1] + 0.2 * action[0]
            following = np.array([state[0] + 0.2 * speed, speed])
            rows.append((state, action, following[0], following, step == steps - 1))
            state = following
    observations, actions, rewards, following, ends = (np.array(column) for column in zip(*rows, strict=True))
    blank = np.zeros(len(rows))
    return relabel(Transitions(observations, actions, rewards, blank, following, blank.astype(bool), ends))


def poisoned_logs(episodes: int = 60, seed: int = 0) -> tuple[Transitions, Transitions]:
    """Return (retain, forget): honest logs without the poisoned episodes, and these."""
    places = np.random.default_rng(seed).uniform(0.1, 1.9, episodes)
    data = drive(places, seed)
    forget, chosen = poison(data, fraction=0.2, cost_threshold=10.0)
    kept = np.setdiff1d(np.arange(data.episode_count), chosen)
    return data.select_episodes(kept), forget


def true_cost(act, episodes: int = 5) -> float:
    """Return the mean cost per episode of driving with `act` (1, 2) -> (1, 1)."""
    total = 0.0
    for start in np.linspace(-0.2, 0.2, episodes):
        state = np.array([start, 0.0])
        for _ in range(STEPS):
            speed = state[1] + 0.2 * float(act(state[None].astype(np.float32))[0, 0])
            state = np.array([state[0] + 0.2 * speed, speed])
            total += float(state[0] > 1.0)
    return total / episodes
