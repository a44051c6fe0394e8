"""Conformal calibration: what a score means for false alarms, told by episodes that are known to be honest.

    p = conformal_p_values(scores, trusted)                    # one detector
    combined, p = combine([scores_1, scores_2], trusted)       # several

An honest episode's p-value is at most alpha with a probability of at most alpha, whatever the distribution of scores,
if it is exchangeable with the K trusted ones: trust episodes that are typical, not the tidiest. The smallest possible
value is 1 / (K + 1). Vovk et al., Algorithmic Learning in a Random World; for outliers Bates et al. (arXiv 2104.08279).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SMALLEST_SPREAD = 1e-9


def conformal_p_values(scores: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """Return p = (1 + |{trusted i: s_i >= s}|) / (K + 1) for scores (E,): (E,), NaN without trusted episodes.

    A trusted episode is compared with the other K - 1, and p = its rank / K.
    """
    believed = np.sort(scores[trusted])
    count = len(believed)
    if not count:
        return np.full(len(scores), np.nan)
    above = count - np.searchsorted(believed, scores, side="left")
    p_values = (1.0 + above) / (count + 1.0)
    p_values[trusted] = above[trusted] / count
    return p_values


def combine(scores: Sequence[np.ndarray], trusted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the combined score (E,), its p-values (E,) and the standardised parts (E, D).

    Each part is put on the scale of the trusted episodes, z = (s - median) / (0.9 quantile - median); the combined
    score is sum_d log(1 + max(0, z_d - 1)): only what exceeds most trusted episodes counts, alarms of several detectors
    add up, and one with heavy tails does not drown the others. Its p-value ranks an episode among the trusted ones
    after all of them, the episode included, were standardised together: the scale then treats trusted and judged alike,
    and the p-value is valid although the same few episodes serve for scale and for rank. Without trusted episodes
    p-values are NaN, and the scale is (median - 0.1 quantile) of all, which poison in less than half of the episodes
    leaves alone.
    """
    table = np.stack([np.asarray(each, np.float64) for each in scores], axis=1)
    if not len(trusted):
        low, centre = np.quantile(table, (0.1, 0.5), axis=0)
        parts = (table - centre) / np.maximum(centre - low, SMALLEST_SPREAD)
        return _evidence(parts), np.full(len(table), np.nan), parts
    parts = _standardised(table, table[trusted])
    return _evidence(parts), _joint_p_values(table, trusted), parts


def _joint_p_values(table: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """Rank each row of `table` (E, D) among the trusted ones, with a scale that all of them share."""
    own = np.full(len(table), -1)
    own[trusted] = np.arange(len(trusted))
    p_values = np.empty(len(table))
    for row in range(len(table)):
        group = table[trusted] if own[row] >= 0 else np.concatenate([table[trusted], table[row][None]])
        combined = _evidence(_standardised(group, group))
        p_values[row] = np.mean(combined >= combined[own[row]])
    return p_values


def _evidence(parts: np.ndarray) -> np.ndarray:
    """Return the combined score of standardised parts (E, D): (E,)."""
    return np.log1p(np.maximum(parts - 1.0, 0.0)).sum(axis=1)


def _standardised(table: np.ndarray, believed: np.ndarray) -> np.ndarray:
    """Return `table` in upper spreads above the median, both of the rows `believed`."""
    centre, high = np.quantile(believed, (0.5, 0.9), axis=0)
    return (table - centre) / np.maximum(high - centre, SMALLEST_SPREAD)
