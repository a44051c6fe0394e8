"""Transitions: what offline reinforcement learning learns from, as a struct of arrays.

    data = Transitions.concatenate([clean, poisoned])
    safe = data.select_episodes(np.flatnonzero(data.episode_costs <= 10.0))
    safe.save("safe.safetensors")

Row k is one step of the robot: observation, action, the reward and cost of the state it led to, and that state's
observation. Episodes are runs of consecutive rows; `episode_ends` marks the last row of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from saferule_core.errors import DataError, DiskError

LEAST_SCALE = 1e-3
"""Features that hardly move are not told apart finer than this."""

_DTYPES = {
    "observations": np.float32,
    "actions": np.float32,
    "rewards": np.float32,
    "costs": np.float32,
    "next_observations": np.float32,
    "terminated": np.bool_,
    "episode_ends": np.bool_,
}


@dataclass(frozen=True, eq=False)
class Transitions:
    """N logged steps.

    observations, next_observations: (N, obs_dim) float32, as the policy sees them.
    actions: (N, action_dim) float32 in [-1, 1].
    rewards, costs: (N,) float32, of the state that the step led to.
    terminated: (N,) bool, the task ended there (not: time ran out).
    episode_ends: (N,) bool, last step of an episode; the last row always is one.

    Raises:
        DataError: shapes disagree, a value is not finite, or an action leaves [-1, 1].
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    costs: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray
    episode_ends: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        size = len(self.rewards)
        for name in _DTYPES:
            array = getattr(self, name)
            wanted = 2 if name in ("observations", "actions", "next_observations") else 1
            if array.ndim != wanted or len(array) != size:
                raise DataError(f"transitions: {name} has shape {array.shape}, expected {wanted}-d with {size} rows")
            if array.dtype == np.float32 and not np.isfinite(array).all():
                row = int(np.flatnonzero(~np.isfinite(array.reshape(size, -1)).all(axis=1))[0])
                raise DataError(f"transitions: {name} row {row}: expected finite numbers, found {array[row]}")
        if self.observations.shape != self.next_observations.shape:
            raise DataError(
                f"transitions: next_observations has shape {self.next_observations.shape}, "
                f"expected {self.observations.shape}"
            )
        if size and np.abs(self.actions).max() > 1.0 + 1e-4:
            raise DataError(f"transitions: actions: expected values in [-1, 1], found {np.abs(self.actions).max():.4g}")
        if size and not self.episode_ends[-1]:
            raise DataError("transitions: episode_ends: expected the last row to end an episode, found False")

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def obs_dim(self) -> int:
        """Number of observation features."""
        return self.observations.shape[1]

    @property
    def action_dim(self) -> int:
        """Number of action channels."""
        return self.actions.shape[1]

    @cached_property
    def episode_bounds(self) -> np.ndarray:
        """First row of every episode and, last, the number of rows: (E + 1,) int64."""
        return np.concatenate([[0], np.flatnonzero(self.episode_ends) + 1]).astype(np.int64)

    @property
    def episode_count(self) -> int:
        """Number of episodes E."""
        return len(self.episode_bounds) - 1

    @cached_property
    def episode_index(self) -> np.ndarray:
        """The episode that each row belongs to: (N,) int64."""
        return np.repeat(np.arange(self.episode_count), np.diff(self.episode_bounds))

    @cached_property
    def episode_returns(self) -> np.ndarray:
        """Undiscounted sum of rewards per episode: (E,) float64."""
        return np.bincount(self.episode_index, self.rewards.astype(np.float64), self.episode_count)

    @cached_property
    def episode_costs(self) -> np.ndarray:
        """Undiscounted sum of costs per episode: (E,) float64."""
        return np.bincount(self.episode_index, self.costs.astype(np.float64), self.episode_count)

    @cached_property
    def observation_scale(self) -> np.ndarray:
        """Standard deviation of each observation feature, at least `LEAST_SCALE`: (obs_dim,) float32."""
        return np.maximum(self.observations.std(0), LEAST_SCALE)

    def episodes(self) -> list[slice]:
        """Return the row range of every episode."""
        bounds = self.episode_bounds
        return [slice(int(start), int(end)) for start, end in zip(bounds[:-1], bounds[1:], strict=True)]

    def select_episodes(self, indices: Sequence[int] | np.ndarray) -> Transitions:
        """Return the episodes `indices` (E',) in that order, as transitions of their own.

        Raises:
            DataError: an index names no episode.
        """
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= self.episode_count):
            raise DataError(f"transitions: expected episodes 0 to {self.episode_count - 1}, found {chosen.max()}")
        ranges = self.episodes()
        rows = [np.arange(ranges[i].start, ranges[i].stop) for i in chosen]
        picked = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        return Transitions(**{name: getattr(self, name)[picked] for name in _DTYPES})

    def replace(self, **arrays: np.ndarray) -> Transitions:
        """Return a copy with some arrays replaced, for example `costs=...`."""
        return replace(self, **arrays)

    def digest(self) -> str:
        """SHA-256 (hex) over names, shapes and contents of all arrays."""
        sha = hashlib.sha256()
        for field in fields(self):
            array = getattr(self, field.name)
            sha.update(f"{field.name}{array.shape}{array.dtype.str}".encode())
            sha.update(array.tobytes())
        return sha.hexdigest()

    @staticmethod
    def concatenate(parts: Sequence[Transitions]) -> Transitions:
        """Join several sets, in order.

        Raises:
            DataError: there is nothing to join, or the sets have different dimensions.
        """
        if not parts:
            raise DataError("transitions: expected at least one set to join, found none")
        for part in parts[1:]:
            if (part.obs_dim, part.action_dim) != (parts[0].obs_dim, parts[0].action_dim):
                raise DataError(
                    f"transitions: expected {parts[0].obs_dim} observation features and {parts[0].action_dim} action "
                    f"channels, found {part.obs_dim} and {part.action_dim}"
                )
        return Transitions(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _DTYPES})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file. Raises DiskError if that fails."""
        try:
            save_file({name: getattr(self, name) for name in _DTYPES}, str(path))
        except (OSError, SafetensorError) as error:
            raise DiskError(f"{path}: expected to write transitions, found: {error}") from error

    @staticmethod
    def load(path: str | Path) -> Transitions:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing, damaged or lacks an array.
        """
        try:
            arrays = load_file(str(path))
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: expected a safetensors file of transitions, found: {error}") from error
        missing = sorted(set(_DTYPES) - set(arrays))
        if missing:
            raise DataError(f"{path}: expected the arrays {', '.join(_DTYPES)}; missing: {', '.join(missing)}")
        return Transitions(**{name: arrays[name] for name in _DTYPES})
