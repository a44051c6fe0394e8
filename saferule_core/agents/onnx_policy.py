"""A policy of another tool: an ONNX file that is run as it is, and that nothing here can train further.

    agent = from_file("policy.onnx", spec.obs_dim, spec.action_dim)
    store.add(agent, spec, Card(seed=0, method="imported"))          # or: saferule policies adopt policy.onnx

The model has one input, observations (N, obs_dim) float32 as the robot description scales them, and one output, actions
(N, action_dim) float32; [-1, 1] spans the bounds of each channel, and what is beyond is cut off. N may be fixed at 1.
It sees nothing but the present observation.

The file's bytes are a tensor of the bundle, so they are hashed, signed and probed like weights. They are run by
onnxruntime (MIT licence), which is imported only where such a policy is: an ONNX file is a graph of known operators.
TorchScript archives and everything else that torch.save writes hold pickled data and are refused. So is a model that
keeps its weights in other files, as no hash would cover them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.agents.base import Agent, register
from saferule_core.data.transitions import Transitions
from saferule_core.errors import SaferuleError, StoreError, UnlearningError

EXPORT_HINT = 'torch.onnx.export(model, (observations,), "policy.onnx", external_data=False)'
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_EXTERNAL_DATA = b"\x0a\x08location"
"""How an ONNX file begins to name another file for a tensor: field 1 of 8 bytes, the key "location"."""


@dataclass(frozen=True)
class OnnxConfig:
    """size: of the model [byte]."""

    size: int = 0


class OnnxActor(nn.Module):
    """Runs a model on one thread; it is made ready by the first call."""

    def __init__(self, obs_dim: int, action_dim: int, size: int) -> None:
        super().__init__()
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.register_buffer("model", torch.zeros(size, dtype=torch.uint8))
        self._session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes a session of its own."""
        return {**self.__dict__, "_session": None}

    @torch.no_grad()
    def forward(self, observations: Tensor) -> Tensor:
        """Return what the model gives for observations (N, obs_dim). Raises StoreError if it cannot be run."""
        if self._session is None:
            self._session = _session(self.model.numpy().tobytes(), self.obs_dim, self.action_dim)
        session = self._session
        name, rows = session.get_inputs()[0].name, observations.numpy()
        parts = rows[:, None] if session.get_inputs()[0].shape[0] == 1 else rows[None]
        try:
            answers = [session.run(None, {name: part})[0] for part in parts]
        except Exception as error:  # the runtime has no base class of its own
            raise StoreError(f"ONNX model: expected it to answer, found: {error}") from error
        return torch.from_numpy(np.concatenate(answers))


@register
class OnnxPolicy(Agent):
    """A policy whose weights are nobody's business here: it can be run, checked and monitored."""

    algorithm = "onnx"
    foreign = True
    Config = OnnxConfig

    def make_modules(self) -> dict[str, nn.Module]:
        return {"actor": OnnxActor(self.obs_dim, self.action_dim, self.config.size)}

    def prepare(self, data: Transitions) -> None:
        raise SaferuleError("onnx: expected an algorithm that learns, found a model of another tool; train it there")

    def learner(self, data: Transitions, seed: int, config: OnnxConfig) -> Any:
        raise UnlearningError("onnx: expected a policy whose weights can be updated, found a model of another tool")


def from_file(path: str | Path, obs_dim: int, action_dim: int) -> OnnxPolicy:
    """Return the policy in an ONNX file for a robot with these sizes.

    Raises:
        StoreError: it cannot be read, is no ONNX file or no policy of these sizes, keeps data in other files, or
            onnxruntime is not installed.
    """
    path = Path(path)
    try:
        model = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: expected an ONNX file, found: {error.strerror}") from error
    if model.startswith((_ZIP, _PICKLE)):
        raise StoreError(
            f"{path}: expected an ONNX file, found an archive as torch.save and torch.jit.save write it; these hold "
            f"pickled data, which is never read here. Export the policy where it was trained: {EXPORT_HINT}"
        )
    if _EXTERNAL_DATA in model:
        raise StoreError(
            f"{path}: expected an ONNX file with its weights inside, found one that keeps them in another file, which "
            f"the policy's hash would not cover (or calls something \"location\", which looks the same); export it "
            f"again: {EXPORT_HINT}"
        )
    agent = OnnxPolicy(obs_dim, action_dim, OnnxConfig(len(model)))
    agent.actor.model.copy_(torch.frombuffer(bytearray(model), dtype=torch.uint8))
    try:
        answer = agent.act(np.zeros((1, obs_dim), dtype=np.float32))
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error
    if answer.shape != (1, action_dim):
        raise StoreError(f"{path}: expected actions of shape (1, {action_dim}), found {answer.shape}")
    return agent


def _session(model: bytes, obs_dim: int, action_dim: int) -> Any:
    """Return a session of one thread. Raises StoreError if the model is no policy of these sizes."""
    try:
        import onnxruntime
    except ImportError as error:
        raise StoreError(
            "ONNX model: expected the package onnxruntime to run it, found none; python3 -m pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has no base class of its own
        raise StoreError(f"ONNX model: expected one that onnxruntime can run, found: {error}") from error
    for what, found, size in (
        ("input", session.get_inputs(), obs_dim),
        ("output", session.get_outputs(), action_dim),
    ):
        if len(found) != 1:
            raise StoreError(f"ONNX model: expected one {what}, found {len(found)}")
        kind, shape = found[0].type, list(found[0].shape)
        fits = len(shape) == 2 and (isinstance(shape[0], (str, type(None))) or shape[0] == 1)
        if kind != "tensor(float)" or not fits or (isinstance(shape[1], int) and shape[1] != size):
            raise StoreError(
                f"ONNX model: {what} {found[0].name}: expected float32 of shape [N or 1, {size}], "
                f"found {kind} of shape {shape}"
            )
    return session
