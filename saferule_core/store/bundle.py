"""A policy bundle: one directory that holds a policy, the robot description it is for, and where it comes from.

    content_id = bundle.save("bundles/first", agent, spec, Card(seed=0))
    policy = bundle.load_policy("store/active", spec)         # the actor alone, checked
    actions = policy.act(observations)
    agent = bundle.load_agent("store/active")                 # with critics, to unlearn from

    weights.safetensors   tensors "actor.…", "reward_critic.…", ...
    spec.yaml             robot description
    card.json             see `card.Card`
    report.json           optional; written after validation, so it is not part of the content id

The content id is a SHA-256 that anyone can recompute with
`sha256sum card.json spec.yaml weights.safetensors | sha256sum`. A bundle in a policy store is named by it. Files are
hashed and decoded from the same bytes, so what was checked is what is loaded. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import saferule_core
from saferule_core import agents
from saferule_core.agents import Agent, Memory
from saferule_core.errors import SaferuleError, StoreError
from saferule_core.spec import RobotSpec, parse_spec
from saferule_core.store.card import FORMAT, Card, TensorInfo, decode_card, encode_card
from saferule_core.store.files import sync_directory, write_durably

CARD, SPEC, WEIGHTS, REPORT = "card.json", "spec.yaml", "weights.safetensors", "report.json"
CONTENT_FILES = (CARD, SPEC, WEIGHTS)
_CONTENT_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Policy:
    """An actor that is ready to drive.

    policy_id: content id of its bundle. card: its origin.
    """

    policy_id: str
    card: Card
    agent: Agent

    def act(self, observations: np.ndarray, memory: Memory | None = None) -> np.ndarray:
        """Return actions (N, action_dim) float32 in [-1, 1] for observations (N, obs_dim); see `Agent.act`."""
        return self.agent.act(observations, memory)


def save(directory: str | Path, agent: Agent, spec: RobotSpec, card: Card) -> str:
    """Write a bundle and return its content id; it appears whole or not at all.

    Raises:
        StoreError: the directory exists, cannot be written, or a weight is not finite.
    """
    target = Path(directory)
    if target.exists() or target.is_symlink():
        raise StoreError(f"{target}: expected a new directory for the policy bundle, found one that exists")
    temporary = target.with_name(f".incoming-{secrets.token_hex(8)}")
    try:
        temporary.mkdir(parents=True)
        policy_id = write_files(temporary, agent, spec, card)
        os.rename(temporary, target)
        sync_directory(target.parent)
    except OSError as error:
        raise StoreError(f"{target}: expected to write a policy bundle, found: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return policy_id


def write_files(directory: Path, agent: Agent, spec: RobotSpec, card: Card) -> str:
    """Write the files of a bundle into an existing, private directory; return the content id."""
    tensors = {
        f"{module}.{name}": value.detach().cpu().contiguous().clone()
        for module, network in agent.modules().items()
        for name, value in network.state_dict().items()
    }
    _check_finite(tensors, directory / WEIGHTS)
    card = replace(
        card,
        created=card.created or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        algorithm=agent.algorithm,
        hyperparameters=agent.hyperparameters(),
        obs_dim=agent.obs_dim,
        action_dim=agent.action_dim,
        tensors={name: _info(value) for name, value in sorted(tensors.items())},
        spec_name=spec.name,
        spec_hash=spec.hash,
        code_version=saferule_core.__version__,
        format=FORMAT,
    )
    _check_fits(card, spec, directory)
    content = {CARD: encode_card(card), SPEC: spec.text.encode(), WEIGHTS: save_tensors(tensors)}
    for name, data in content.items():
        write_durably(directory / name, data)
        (directory / name).chmod(0o444)
    sync_directory(directory)
    return _content_id(content)


def content_id(directory: str | Path) -> str:
    """Return the content id of the bundle in `directory`, computed from its files.

    Raises:
        StoreError: a file is missing.
    """
    return _content_id(_read(Path(directory)))


def read_card(directory: str | Path) -> Card:
    """Return the card of a bundle, without checking the bundle.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    path = Path(directory) / CARD
    return decode_card(_read_file(path), path)


def read_spec(directory: str | Path) -> RobotSpec:
    """Return the robot description in a bundle; it may import the cost and reward functions that it names.

    Raises:
        StoreError: there is none. SpecError: it is malformed.
    """
    path = Path(directory) / SPEC
    return parse_spec(_read_file(path).decode("utf-8", errors="replace"), str(path))


def verify(directory: str | Path, spec: RobotSpec | None = None) -> Card:
    """Check a whole bundle (see `load_agent` for the errors) and return its card."""
    _, card, _ = _checked(Path(directory), spec)
    return card


def load_agent(directory: str | Path, spec: RobotSpec | None = None) -> Agent:
    """Return the agent with its critics.

    Args:
        spec: the robot description that the agent is to be used with; None skips that check.

    Raises:
        StoreError: a file is missing or damaged, the content does not match the directory's name, a tensor is not
            what the card says or is not finite, or the bundle was made for another robot description.
    """
    path = Path(directory)
    _, card, tensors = _checked(path, spec)
    return _assemble(path, card, tensors)


def load_policy(directory: str | Path, spec: RobotSpec) -> Policy:
    """Return the actor alone, ready to drive the robot that `spec` describes. Raises as `load_agent`."""
    path = Path(directory)
    policy_id, card, tensors = _checked(path, spec)
    kept = {**card.hyperparameters, "modules": ["actor"]}
    actor = {name: value for name, value in tensors.items() if name.startswith("actor.")}
    return Policy(policy_id, card, _assemble(path, replace(card, hyperparameters=kept), actor))


def _checked(directory: Path, spec: RobotSpec | None) -> tuple[str, Card, dict[str, torch.Tensor]]:
    """Read and check everything; return content id, card and tensors."""
    content = _read(directory)
    found, name = _content_id(content), directory.resolve().name
    if _CONTENT_ID.fullmatch(name) and name != found:
        raise StoreError(f"{directory}: content: expected the SHA-256 {name}, found {found}; the bundle was changed")
    card = decode_card(content[CARD], directory / CARD)
    if spec is not None:
        _check_fits(card, spec, directory)
    path = directory / WEIGHTS
    try:
        tensors = load_tensors(content[WEIGHTS])
    except (SafetensorError, KeyError, ValueError) as error:
        raise StoreError(f"{path}: expected a safetensors file, found: {error}") from error
    _check_tensors(card, tensors, path)
    _check_finite(tensors, path)
    return found, card, tensors


def _check_fits(card: Card, spec: RobotSpec, directory: Path) -> None:
    if card.spec_hash != spec.hash:
        raise StoreError(
            f"{directory / CARD}: spec_hash: expected {spec.hash[:12]} ({spec.source}), found {card.spec_hash[:12]} "
            f"({card.spec_name}); the policy was made for another robot description"
        )
    if (card.obs_dim, card.action_dim) != (spec.obs_dim, spec.action_dim):
        raise StoreError(
            f"{directory / CARD}: obs_dim, action_dim: expected {spec.obs_dim}, {spec.action_dim} ({spec.source}), "
            f"found {card.obs_dim}, {card.action_dim}"
        )


def _check_tensors(card: Card, tensors: dict[str, torch.Tensor], path: Path) -> None:
    if odd := sorted(card.tensors.keys() ^ tensors.keys()):
        where = "only in the card" if odd[0] in card.tensors else "not in the card"
        raise StoreError(f"{path}: {odd[0]}: expected the tensors that the card lists, found one {where}")
    for name, wanted in card.tensors.items():
        found = _info(tensors[name])
        if found != wanted:
            raise StoreError(
                f"{path}: {name}: expected {wanted.dtype} of shape {list(wanted.shape)}, "
                f"found {found.dtype} of shape {list(found.shape)}"
            )


def _check_finite(tensors: dict[str, torch.Tensor], path: Path) -> None:
    for name, value in tensors.items():
        odd = value[~torch.isfinite(value)]
        if odd.numel():
            raise StoreError(f"{path}: {name}: expected finite numbers, found {odd[0].item()}")


def _assemble(directory: Path, card: Card, tensors: dict[str, torch.Tensor]) -> Agent:
    """Build the untrained agent of a card and put the weights in."""
    try:
        agent = agents.build(card.algorithm, card.obs_dim, card.action_dim, card.hyperparameters)
    except (SaferuleError, TypeError, ValueError) as error:
        raise StoreError(f"{directory / CARD}: expected an agent that can be built, found: {error}") from error
    modules = agent.modules()
    for name, module in modules.items():
        state = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
        try:
            module.load_state_dict(state, strict=True)
        except RuntimeError as error:
            found = " ".join(str(error).split())
            path = directory / WEIGHTS
            raise StoreError(f"{path}: {name}: expected weights of {card.algorithm}, found: {found}") from error
        module.eval()
    if unused := sorted(key for key in tensors if key.split(".", 1)[0] not in modules):
        raise StoreError(f"{directory / WEIGHTS}: {unused[0]}: expected modules {', '.join(modules)}, found another")
    return agent


def _info(tensor: torch.Tensor) -> TensorInfo:
    return TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _content_id(content: dict[str, bytes]) -> str:
    lines = "".join(f"{hashlib.sha256(content[name]).hexdigest()}  {name}\n" for name in CONTENT_FILES)
    return hashlib.sha256(lines.encode()).hexdigest()


def _read(directory: Path) -> dict[str, bytes]:
    if not directory.is_dir():
        raise StoreError(f"{directory}: expected a policy bundle (a directory), found none")
    return {name: _read_file(directory / name) for name in CONTENT_FILES}


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: expected a file of a policy bundle, found: {error.strerror}") from error
