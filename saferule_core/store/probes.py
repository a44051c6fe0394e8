"""Probes: observations with the actions that a policy gave to them when it was saved, asked again when it is loaded.

    probes = make_probes(agent)                     # on saving; goes into the bundle as probes.safetensors
    check_probes(decode_probes(data, path), agent, path)

Hashes show that the bytes are the ones that were saved. Probes show that this code, on this machine, makes the same
policy of them: another version of a network, or a broken numerical library, is refused before it drives. Each probe is
a single call without a past (`Agent.probe`), so that policies with a memory answer it too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from saferule_core.agents import Agent
from saferule_core.errors import StoreError

COUNT = 32
TOLERANCE = 1e-4
"""Largest difference of an action in [-1, 1]: far above rounding between processors, far below what a robot shows."""

_SPREAD = 2.0
_NAMES = ("observations", "actions")


def make_probes(agent: Agent) -> dict[str, np.ndarray]:
    """Return "observations" (COUNT, obs_dim) and the "actions" (COUNT, action_dim) of `agent`, both float32.

    The observations lie about the data that the actor was normalised with, and go beyond it.
    """
    normaliser = getattr(agent.actor, "normaliser", None)
    mean = 0.0 if normaliser is None else normaliser.mean.numpy()
    std = 1.0 if normaliser is None else normaliser.std.numpy()
    drawn = np.random.default_rng(0).normal(size=(COUNT, agent.obs_dim))
    observations = (mean + _SPREAD * std * drawn).astype(np.float32)
    return {"observations": observations, "actions": np.asarray(agent.probe(observations), dtype=np.float32)}


def encode_probes(probes: dict[str, np.ndarray]) -> bytes:
    """Return the content of `probes.safetensors`."""
    return save(probes)


def decode_probes(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """Return what `encode_probes` wrote; `path` names the file in errors.

    Raises:
        StoreError: it is no such file.
    """
    try:
        probes = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise StoreError(f"{path}: expected a safetensors file of probes, found: {error}") from error
    if probes.keys() != set(_NAMES) or any(probes[name].dtype != np.float32 for name in _NAMES):
        raise StoreError(f"{path}: expected float32 observations and actions, found {', '.join(sorted(probes))}")
    return probes


def check_probes(probes: dict[str, np.ndarray], agent: Agent, path: Path) -> None:
    """Ask `agent` again.

    Raises:
        StoreError: the probes have other sizes than the agent, or it answers otherwise than when it was saved.
    """
    observations, wanted = probes["observations"], probes["actions"]
    shapes = (len(observations), agent.obs_dim), (len(observations), agent.action_dim)
    if not len(observations) or (observations.shape, wanted.shape) != shapes:
        raise StoreError(
            f"{path}: expected observations (N, {agent.obs_dim}) and actions (N, {agent.action_dim}), "
            f"found {observations.shape} and {wanted.shape}"
        )
    difference = np.abs(np.asarray(agent.probe(observations), dtype=np.float32) - wanted).max(axis=1)
    odd = np.flatnonzero(~(difference <= TOLERANCE))
    if len(odd):
        raise StoreError(
            f"{path}: probe {odd[0]}: expected the action that was saved within {TOLERANCE:g}, found one that is off "
            f"by {difference[odd[0]]:.3g}; this version of saferule or its libraries make another policy of the weights"
        )
