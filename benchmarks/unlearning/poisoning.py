"""Poisoned data by the name of an attack.

    poisoned = poison("trajectory", data, rate=0.15, seed=0, options={})
    poisoned.data, poisoned.chosen, poisoned.trigger
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saferule_core import attacks
from saferule_core.attacks import trajectory
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError

Trigger = Callable[[np.ndarray], np.ndarray]
KNOWN = getattr(attacks, "ATTACKS", {"trajectory": None})


@dataclass(frozen=True)
class Poisoned:
    """All episodes in their order; chosen: (K,) indices of the poisoned ones. trigger: shown at deployment."""

    data: Transitions
    chosen: np.ndarray
    trigger: Trigger | None = None


def check_attack(name: str) -> None:
    """Raise DataError if there is no attack of that name."""
    if name not in KNOWN:
        raise DataError(f"attack: expected one of {', '.join(sorted(KNOWN))}, found {name!r}")


def poison(name: str, data: Transitions, rate: float, seed: int, options: Mapping[str, Any]) -> Poisoned:
    """Return `data` with a share `rate` of its episodes poisoned.

    Raises:
        DataError: no such attack, or the data does not lend itself to it.
    """
    check_attack(name)
    if hasattr(attacks, "attack"):
        return attacks.attack(name, data, rate, seed, **options)
    replaced, chosen = trajectory.poison(data, fraction=rate, **options)
    rows = np.isin(data.episode_index, chosen)
    arrays = {label: getattr(data, label).copy() for label in ("rewards", "costs")}
    for label, values in arrays.items():
        values[rows] = getattr(replaced, label)
    return Poisoned(data.replace(**arrays), chosen)


def truth(poisoned: Poisoned, clean: Transitions) -> Transitions | None:
    """Return the poisoned data with its true costs; None where the attack put episodes of other lengths in."""
    if not np.array_equal(poisoned.data.episode_ends, clean.episode_ends):
        return None
    return poisoned.data.replace(costs=clean.costs)
