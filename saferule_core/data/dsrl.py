"""Reads the files of DSRL, the public data of offline safe learning (Liu et al. 2024, arXiv 2306.09303).

    data = read_dsrl("SafetyBallCircle-v0-80-886.hdf5", spec)        # Transitions, as bags give them
    saferule train --spec config/ball_circle.yaml --dsrl SafetyBallCircle-v0-80-886.hdf5 --store store

A file is HDF5 with one row per step in `observations`, `next_observations`, `actions`, `rewards`, `costs`, `terminals`
and `timeouts`. It has what the environment itself shows; where a description shows the policy something else,
`saferule_core.data.dsrl_features` translates. Files are for the user to download; nothing here does.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from saferule_core.data.dsrl_features import TRANSLATIONS
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError
from saferule_core.spec import RobotSpec

KEYS = ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")
TABLES = KEYS[:3]
OVERSHOOT = 0.05
"""How far beyond [-1, 1] an action may be to be clipped as rounding; the files' own go no further."""


def read_dsrl(path: str | Path, spec: RobotSpec) -> Transitions:
    """Return the steps of a file, in order, with the costs that it logs.

    An episode ends at a terminal or a timeout; where neither is marked, where the next observation of a row is not the
    observation of the following one, and after the description's number of steps. Steps after the last end are an
    episode that was cut off.

    Raises:
        DataError: the file is missing, damaged, lacks a key, or does not fit itself or the description.
    """
    raw = _read(path)
    terminated, ends = _flag(raw["terminals"], path, "terminals"), _flag(raw["timeouts"], path, "timeouts")
    ends = terminated | ends
    if not ends.any():
        ends = _recovered_ends(raw["observations"], raw["next_observations"], spec.episode.max_steps)
    ends[-1] = True
    _check_lengths(ends, spec, path)
    actions = raw["actions"]
    largest = np.abs(actions).max()
    if largest > 1.0 + OVERSHOOT:
        row = int(np.abs(actions).max(axis=1).argmax())
        raise DataError(f"{path}: actions: row {row}: expected values in [-1, 1], found {largest:.4g}")
    arrays = {**raw, "actions": np.clip(actions, -1.0, 1.0)}
    arrays.pop("terminals"), arrays.pop("timeouts")
    if spec.name in TRANSLATIONS:
        translation = TRANSLATIONS[spec.name]
        _check_sizes(arrays, (translation.observations, translation.actions), spec, path)
        arrays = translation.translate(arrays, ends, spec)
    _check_sizes(arrays, (spec.obs_dim, spec.action_dim), spec, path)
    return Transitions(**arrays, terminated=terminated, episode_ends=ends)


def _read(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file: tables (N, size) and columns (N,), all with the same N >= 1."""
    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in KEYS if not isinstance(file.get(key), h5py.Dataset)]
            if missing:
                found = ", ".join(sorted(file)) or "nothing"
                raise DataError(f"{path}: expected the keys {', '.join(KEYS)}; missing {', '.join(missing)}: {found}")
            raw = {key: file[key][()] for key in KEYS}
    except OSError as error:
        raise DataError(f"{path}: expected a readable HDF5 file of DSRL, found: {error}") from error
    rows = len(np.atleast_1d(raw["observations"]))
    for key, values in raw.items():
        if not (np.issubdtype(values.dtype, np.number) or values.dtype == np.bool_):
            raise DataError(f"{path}: {key}: expected numbers, found {values.dtype}")
        if key not in TABLES and values.ndim == 2 and values.shape[1] == 1:
            raw[key] = values = values[:, 0]
        wanted = 2 if key in TABLES else 1
        if values.ndim != wanted or len(values) != rows or rows == 0:
            shape = f"({rows}, n)" if wanted == 2 else f"({rows},)"
            raise DataError(f"{path}: {key}: expected the shape {shape} with at least a row, found {values.shape}")
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values.reshape(rows, -1)).all(axis=1))[0])
            raise DataError(f"{path}: {key}: row {row}: expected finite numbers, found {values[row]}")
    return raw


def _flag(values: np.ndarray, path: str | Path, key: str) -> np.ndarray:
    strange = ~np.isin(values, (0, 1))
    if strange.any():
        row = int(np.flatnonzero(strange)[0])
        raise DataError(f"{path}: {key}: row {row}: expected 0 or 1, found {values[row]}")
    return values.astype(bool)


def _recovered_ends(observations: np.ndarray, following: np.ndarray, longest: int) -> np.ndarray:
    """Return where episodes end that nobody marked: (N,) bool."""
    ends = np.append(np.abs(following[:-1] - observations[1:]).max(axis=1) > 1e-5, True)
    begin = 0
    for end in np.flatnonzero(ends):
        ends[begin + longest - 1 : end : longest] = True
        begin = int(end) + 1
    return ends


def _check_lengths(ends: np.ndarray, spec: RobotSpec, path: str | Path) -> None:
    lengths = np.diff(np.concatenate([[-1], np.flatnonzero(ends)]))
    if lengths.max() > spec.episode.max_steps:
        raise DataError(
            f"{path}: terminals, timeouts: expected episodes of at most {spec.episode.max_steps} steps for "
            f"{spec.source}, found episode {int(lengths.argmax())} of {lengths.max()}"
        )


def _check_sizes(arrays: dict[str, np.ndarray], sizes: tuple[int, int], spec: RobotSpec, path: str | Path) -> None:
    for key, size in zip(TABLES, (sizes[0], sizes[0], sizes[1]), strict=True):
        if arrays[key].shape[1] != size:
            raise DataError(f"{path}: {key}: expected {size} columns for {spec.source}, found {arrays[key].shape[1]}")
