"""Does a log's own label say what its sensors say? One comparison per episode, for rewards and for costs.

check = compare_labels("cost", logged, recomputed, episode_ends)
check.share            # (E,) share of an episode's labelled steps that disagree
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-3
"""Labels that differ by less, absolutely and relative to the recomputed value, agree: logs may hold float32."""


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """How a label disagrees with what is computed from the sensors, per episode; (E,) each.

    name: "cost" or "reward". labelled: steps that have a label. differing: those of them where it is another value.
    logged, recomputed: sums over the labelled steps.
    """

    name: str
    labelled: np.ndarray
    differing: np.ndarray
    logged: np.ndarray
    recomputed: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Share of labelled steps that disagree: (E,), 0 where no step is labelled."""
        return self.differing / np.maximum(self.labelled, 1)

    def select(self, episodes: Sequence[int]) -> LabelCheck:
        """Return the comparison of some episodes."""
        columns = (self.labelled, self.differing, self.logged, self.recomputed)
        return LabelCheck(self.name, *(column[list(episodes)] for column in columns))


def compare_labels(name: str, logged: np.ndarray, recomputed: np.ndarray, ends: np.ndarray) -> LabelCheck:
    """Compare labels (N,), NaN where a step has none, with what the sensors say (N,).

    ends: (N,) bool, last step of an episode.
    """
    episode = np.cumsum(ends) - ends
    count = int(ends.sum())
    known = ~np.isnan(logged)
    difference = np.abs(logged - recomputed)
    differs = known & ~(difference <= TOLERANCE * np.maximum(1.0, np.abs(recomputed)))

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(episode, np.where(known, values, 0.0), count)

    return LabelCheck(
        name,
        np.bincount(episode, known, count).astype(np.int64),
        np.bincount(episode, differs, count).astype(np.int64),
        total(logged),
        total(recomputed),
    )
