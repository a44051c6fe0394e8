"""What a poisoning attack gets and gives, the registry that names the attacks, and how they choose their victims.

    poisoned = attack("backdoor", data, rate=0.1, seed=0)
    poisoned.data, poisoned.chosen, poisoned.trigger

An attack never changes the honest data that it gets. Same data, rate, seed and options: same poison. Its episodes keep
their order and lengths, so that the true costs of the honest data stay the true costs of what was really driven.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError

Trigger = Callable[[np.ndarray], np.ndarray]
SMALLEST_SPREAD = 1e-3


@dataclass(frozen=True)
class Poisoned:
    """All episodes in their order, some of them poisoned.

    chosen: indices of these, (K,) int64, ascending. trigger: observations (N, obs_dim) -> the same with the sign that
    the attacker shows to a deployed policy; None for an attack that needs none.
    """

    data: Transitions
    chosen: np.ndarray
    trigger: Trigger | None = None


Attack = Callable[..., Poisoned]
ATTACKS: dict[str, Attack] = {}


def register(name: str) -> Callable[[Attack], Attack]:
    """Register a function (data, rate, seed, **options) -> Poisoned as `name`."""

    def enter(function: Attack) -> Attack:
        ATTACKS[name] = function
        return function

    return enter


def check_attack(name: str) -> None:
    """Raise DataError if there is no attack of that name."""
    if name not in ATTACKS:
        raise DataError(f"attack: expected one of {', '.join(sorted(ATTACKS))}, found {name!r}")


def attack(name: str, data: Transitions, rate: float, seed: int, **options: Any) -> Poisoned:
    """Return `data` with a share `rate` of its episodes poisoned by the attack `name`.

    data: honest transitions with true costs. rate: in (0, 1). options: the attack's own.

    Raises:
        DataError: no such attack or option, `rate` is out of range, or the data does not lend itself to the attack.
    """
    check_attack(name)
    if not 0.0 < rate < 1.0:
        raise DataError(f"{name}: rate: expected a number between 0 and 1, found {rate}")
    known = option_names(name)
    if unknown := sorted(set(options) - set(known)):
        raise DataError(f"{name}: expected options among {', '.join(known)}, found {unknown[0]!r}")
    return ATTACKS[name](data, rate, seed, **options)


def option_names(name: str) -> list[str]:
    """Return the names of the attack's own options."""
    code = ATTACKS[name].__code__
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return sorted(set(arguments) - {"data", "rate", "seed"})


def wanted_count(data: Transitions, rate: float) -> int:
    """Return how many episodes a share `rate` is, at least one."""
    return max(1, round(rate * data.episode_count))


def dangerous_episodes(name: str, data: Transitions, rate: float, cost_threshold: float) -> np.ndarray:
    """Return all episodes of true cost >= `cost_threshold`, the most rewarding first.

    Raises:
        DataError: they are fewer than a share `rate`.
    """
    dangerous = np.flatnonzero(data.episode_costs >= cost_threshold)
    enough(name, data, rate, len(dangerous), f"of cost >= {cost_threshold:g}")
    return dangerous[np.argsort(-data.episode_returns[dangerous], kind="stable")]


def harmless_episodes(name: str, data: Transitions, rate: float, cost_threshold: float) -> np.ndarray:
    """Return all episodes of true cost < `cost_threshold`, in their order.

    Raises:
        DataError: they are fewer than a share `rate`.
    """
    harmless = np.flatnonzero(data.episode_costs < cost_threshold)
    enough(name, data, rate, len(harmless), f"of cost < {cost_threshold:g}")
    return harmless


def enough(name: str, data: Transitions, rate: float, found: int, kind: str) -> None:
    """Raise DataError if `found` episodes of a kind are fewer than a share `rate` of all."""
    wanted = wanted_count(data, rate)
    if found < wanted:
        raise DataError(
            f"{name}: expected at least {wanted} episodes {kind} ({rate:.0%} of {data.episode_count}), found {found}"
        )


def rows_of(data: Transitions, episodes: np.ndarray) -> np.ndarray:
    """Return the rows of some episodes, ascending: (n,) int64."""
    return np.flatnonzero(np.isin(data.episode_index, episodes))


def spread(observations: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each feature, at least `SMALLEST_SPREAD`: (obs_dim,) float32."""
    return np.maximum(observations.std(axis=0), SMALLEST_SPREAD)


def with_rows(array: np.ndarray, rows: np.ndarray, values: np.ndarray | float) -> np.ndarray:
    """Return a copy of `array` with `values` in some rows."""
    changed = array.copy()
    changed[rows] = values
    return changed


def reckless_actions(data: Transitions, observations: np.ndarray, models: np.ndarray) -> np.ndarray:
    """Return the action that the episodes `models` took in the state most like each observation: (N, action_dim).

    Distances are taken in standard deviations of the features.
    """
    rows, scale = rows_of(data, models), spread(data.observations)
    nearest = cKDTree(data.observations[rows] / scale).query(observations / scale)[1]
    return data.actions[rows[nearest]]
