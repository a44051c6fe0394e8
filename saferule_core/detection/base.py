"""What a detector gets and gives, and the registry that names the detectors.

    case = Case(data, trusted=np.array([0, 4, 7]), recomputed_costs=spec.relabel(data).costs)
    found = suspicion("cost_model", case)
    found.scores, found.reasons[3]                # (E,), "logged as harmless in 61 of 200 steps that look dangerous"

A detector only ranks: a higher score is more suspicious, and its unit is the detector's own. What a score means for
false alarms is told by `calibration`, on episodes that the operator trusts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from saferule_core.agents.base import Agent
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DetectionError


@dataclass(frozen=True, eq=False)
class Case:
    """Logged episodes, and what helps to judge them.

    data: N steps in E episodes with their labels as logged.
    trusted: indices of episodes known to be honest, (K,) int64; may be empty.
    recomputed_costs, recomputed_rewards: what the sensors say, (N,), None where they cannot be recomputed.
    agent: the policy that was trained on the data; without one a small agent is trained where one is needed.
    feature_names, action_names: for explanations. seed: of all randomness.

    Raises:
        DetectionError: fewer than two episodes, sizes disagree, or an index names no episode or one twice.
    """

    data: Transitions
    trusted: np.ndarray
    recomputed_costs: np.ndarray | None = None
    recomputed_rewards: np.ndarray | None = None
    agent: Agent | None = None
    feature_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        count, trusted = self.data.episode_count, np.sort(np.asarray(self.trusted, dtype=np.int64).reshape(-1))
        object.__setattr__(self, "trusted", trusted)
        if count < 2:
            raise DetectionError(f"detection: expected at least two episodes to compare, found {count}")
        if len(trusted) and (trusted[0] < 0 or trusted[-1] >= count):
            found = trusted[0] if trusted[0] < 0 else trusted[-1]
            raise DetectionError(f"trusted: expected episodes 0 to {count - 1}, found {found}")
        if len(np.unique(trusted)) != len(trusted):
            raise DetectionError("trusted: expected each episode once, found one twice")
        for name in ("recomputed_costs", "recomputed_rewards"):
            values = getattr(self, name)
            if values is not None and np.shape(values) != (len(self.data),):
                raise DetectionError(f"{name}: expected shape ({len(self.data)},), found {np.shape(values)}")
        if self.agent is not None and (self.agent.obs_dim, self.agent.action_dim) != (
            self.data.obs_dim,
            self.data.action_dim,
        ):
            raise DetectionError(
                f"agent: expected {self.data.obs_dim} observation features and {self.data.action_dim} action channels, "
                f"found {self.agent.obs_dim} and {self.agent.action_dim}"
            )

    @cached_property
    def is_trusted(self) -> np.ndarray:
        """Whether each episode is trusted: (E,) bool."""
        return np.isin(np.arange(self.data.episode_count), self.trusted)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of `values` (N,) over each episode: (E,) float64."""
        sums = np.bincount(self.data.episode_index, np.asarray(values, np.float64), self.data.episode_count)
        return sums / np.diff(self.data.episode_bounds)

    def largest(self, values: np.ndarray) -> np.ndarray:
        """Return the row of the largest of `values` (N,) in each episode: (E,) int64."""
        return np.array([part.start + int(np.argmax(values[part])) for part in self.data.episodes()])

    def step(self, row: int) -> int:
        """Return the number of a row within its episode."""
        return int(row - self.data.episode_bounds[self.data.episode_index[row]])


@dataclass(frozen=True, eq=False)
class Suspicion:
    """What a detector thinks of each episode: scores (E,) float64, higher is worse, and a reason in words for each."""

    scores: np.ndarray
    reasons: tuple[str, ...]


Detector = Callable[[Case], Suspicion]
DETECTORS: dict[str, Detector] = {}


def detector(name: str) -> Callable[[Detector], Detector]:
    """Register a function Case -> Suspicion as `name`."""

    def enter(function: Detector) -> Detector:
        DETECTORS[name] = function
        return function

    return enter


def suspicion(name: str, case: Case) -> Suspicion:
    """Run one detector.

    Raises:
        DetectionError: no such detector, or it cannot work on this case; the message says what it would need.
    """
    if name not in DETECTORS:
        raise DetectionError(f"detector: expected one of {', '.join(sorted(DETECTORS))}, found {name!r}")
    return DETECTORS[name](case)
