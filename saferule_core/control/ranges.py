"""Observations unlike anything in the training data: what a policy does there was never tried.

    check = RangeCheck(policy.ranges, margin=0.1)
    rows = check.outside(observation)          # indices of the features beyond their range, none: ()
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saferule_core.data.ranges import ObservationRanges


class RangeCheck:
    """Compares with the ranges of the training data, each widened on both sides by `margin` times its width."""

    def __init__(self, ranges: ObservationRanges, margin: float) -> None:
        low, high = np.asarray(ranges.low), np.asarray(ranges.high)
        self._low, self._high = low - margin * (high - low), high + margin * (high - low)
        # What is computed in float32 may lie beyond the recorded bound by its rounding.
        rounding = 1e-6 * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
        self._low -= rounding
        self._high += rounding

    def outside(self, observation: np.ndarray) -> tuple[int, ...]:
        """Return the indices of the features of an observation (obs_dim,) that are beyond their range."""
        beyond = (observation < self._low) | (observation > self._high)
        return tuple(np.flatnonzero(beyond).tolist()) if beyond.any() else ()

    def explain(self, observation: np.ndarray, rows: Sequence[int], names: Sequence[str]) -> str:
        """Return a sentence about the features `rows` of an observation; `names` has one per feature."""
        told = ", ".join(
            f"{names[row]} {observation[row]:.3g} (expected {self._low[row]:.3g} to {self._high[row]:.3g})"
            for row in rows
        )
        return f"observation beyond the training data: {told}"
