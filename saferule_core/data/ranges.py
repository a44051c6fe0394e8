"""The range of each observation feature in the data that a policy learned from; its card carries them.

    card = Card(seed=0, ranges=ranges_of(data))

They are the smallest and largest values, in the policy's units (scaled and clipped as the robot description says).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError


@dataclass(frozen=True)
class ObservationRanges:
    """Smallest and largest value per feature, obs_dim of each."""

    low: tuple[float, ...]
    high: tuple[float, ...]


def ranges_of(data: Transitions) -> ObservationRanges:
    """Return the ranges of the observations of `data`, last ones of episodes included.

    Raises:
        DataError: there is no data.
    """
    if not len(data):
        raise DataError("observation ranges: expected at least one transition, found none")
    low = np.minimum(data.observations.min(0), data.next_observations.min(0))
    high = np.maximum(data.observations.max(0), data.next_observations.max(0))
    return ObservationRanges(tuple(low.tolist()), tuple(high.tolist()))
