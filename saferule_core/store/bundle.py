"""A policy bundle: one directory that holds a policy, the robot description it is for, and where it comes from.

    content_id = bundle.save("bundles/first", agent, spec, Card(seed=0))
    policy = bundle.load_policy("store/active", spec)         # the actor alone, checked
    actions = policy.act(observations)
    agent = bundle.load_agent("store/active")                 # with critics, to unlearn from

    weights.safetensors   tensors "actor.…", "reward_critic.…", ...
    probes.safetensors    observations and the actions given to them, asked again on loading; see `probes`
    spec.yaml             robot description
    card.json             see `card.Card`
    SHA256SUMS            of the files above; the content id is its SHA-256; see `content`
    report.json           optional; written after validation, so it is not part of the content id
    signature.json        optional; over the content id; see `signing`

A bundle in a policy store is named by its content id. Files are hashed and decoded from the same bytes, so what was
checked is what is loaded. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import saferule_core
from saferule_core.agents import Agent, Memory
from saferule_core.data.ranges import ObservationRanges
from saferule_core.errors import StoreError
from saferule_core.spec import RobotSpec, parse_spec
from saferule_core.store import signing
from saferule_core.store.assembly import assemble, check_finite, check_fits, check_ranges, check_tensors, tensor_info
from saferule_core.store.card import FORMAT, Card, decode_card, encode_card
from saferule_core.store.content import (
    CARD,
    CONTENT_FILES,
    PROBES,
    REPORT,
    SIGNATURE,
    SPEC,
    SUMS,
    WEIGHTS,
    Content,
    read_content,
    read_file,
    sum_lines,
)
from saferule_core.store.files import sync_directory, write_durably
from saferule_core.store.probes import check_probes, decode_probes, encode_probes, make_probes

__all__ = ["CONTENT_FILES", "REPORT", "SIGNATURE", "Policy", "content_id", "load_agent", "load_policy", "read_card",
           "read_spec", "save", "signatures", "verify", "write_files"]  # fmt: skip


@dataclass(frozen=True)
class Policy:
    """An actor that is ready to drive.

    policy_id: content id of its bundle. card: its origin.
    """

    policy_id: str
    card: Card
    agent: Agent

    @property
    def ranges(self) -> ObservationRanges | None:
        """Ranges of the observations that it learned from, None where its card does not know them."""
        return self.card.ranges

    def act(self, observations: np.ndarray, memory: Memory | None = None) -> np.ndarray:
        """Return actions (N, action_dim) float32 in [-1, 1] for observations (N, obs_dim); see `Agent.act`."""
        return self.agent.act(observations, memory)


def save(
    directory: str | Path, agent: Agent, spec: RobotSpec, card: Card, key: signing.Ed25519PrivateKey | None = None
) -> str:
    """Write a bundle and return its content id; it appears whole or not at all.

    key: signs the bundle; None takes the configured key (see `signing`), and where there is none it stays unsigned.

    Raises:
        StoreError: the directory exists, cannot be written, a weight is not finite, or the configured key is damaged.
    """
    target = Path(directory)
    if target.exists() or target.is_symlink():
        raise StoreError(f"{target}: expected a new directory for the policy bundle, found one that exists")
    temporary = target.with_name(f".incoming-{secrets.token_hex(8)}")
    try:
        temporary.mkdir(parents=True)
        policy_id = write_files(temporary, agent, spec, card, key)
        os.rename(temporary, target)
        sync_directory(target.parent)
    except OSError as error:
        raise StoreError(f"{target}: expected to write a policy bundle, found: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return policy_id


def write_files(
    directory: Path, agent: Agent, spec: RobotSpec, card: Card, key: signing.Ed25519PrivateKey | None = None
) -> str:
    """Write the files of a bundle into an existing, private directory; return the content id. Arguments as `save`."""
    key = key or signing.configured_key()
    tensors = {
        f"{module}.{name}": value.detach().cpu().contiguous().clone()
        for module, network in agent.modules().items()
        for name, value in network.state_dict().items()
    }
    check_finite(tensors, directory / WEIGHTS)
    card = replace(
        card,
        created=card.created or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        algorithm=agent.algorithm,
        hyperparameters=agent.hyperparameters(),
        obs_dim=agent.obs_dim,
        action_dim=agent.action_dim,
        tensors={name: tensor_info(value) for name, value in sorted(tensors.items())},
        spec_name=spec.name,
        spec_hash=spec.hash,
        code_version=saferule_core.__version__,
        format=FORMAT,
    )
    check_fits(card, spec, directory)
    check_ranges(card, directory / CARD)
    files = {
        CARD: encode_card(card),
        PROBES: encode_probes(make_probes(agent)),
        SPEC: spec.text.encode(),
        WEIGHTS: save_tensors(tensors),
    }
    files[SUMS] = sum_lines(files)
    policy_id = hashlib.sha256(files[SUMS]).hexdigest()
    if key is not None:
        files[SIGNATURE] = signing.encode_signatures([signing.sign(key, signing.POLICY, policy_id)])
    for name, data in files.items():
        write_durably(directory / name, data)
        (directory / name).chmod(0o444)
    sync_directory(directory)
    return policy_id


def content_id(directory: str | Path) -> str:
    """Return the content id of the bundle in `directory`, computed from its files. Raises as `read_content`."""
    return read_content(directory).content_id


def read_card(directory: str | Path) -> Card:
    """Return the card of a bundle, without checking the bundle.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    path = Path(directory) / CARD
    return decode_card(read_file(path), path)


def read_spec(directory: str | Path) -> RobotSpec:
    """Return the robot description in a bundle; it may import the cost and reward functions that it names.

    Raises:
        StoreError: there is none. SpecError: it is malformed.
    """
    path = Path(directory) / SPEC
    return parse_spec(read_file(path).decode("utf-8", errors="replace"), str(path))


def signatures(directory: str | Path) -> tuple[signing.Signature, ...]:
    """Return the signatures of a bundle, whoever made them; each is one of this bundle, or StoreError is raised."""
    return _signatures(read_content(directory))


def verify(directory: str | Path, spec: RobotSpec | None = None) -> Card:
    """Check a whole bundle (see `load_agent` for the errors) and return its card."""
    return _load(Path(directory), spec, ("actor",))[0].card


def load_agent(directory: str | Path, spec: RobotSpec | None = None) -> Agent:
    """Return the agent with its critics.

    Args:
        spec: the robot description that the agent is to be used with; None skips that check.

    Raises:
        StoreError: a file is missing, damaged or unknown, the content does not match its hashes or the directory's
            name, a tensor is not what the card says or is not finite, a probe is answered otherwise than when it was
            saved, the bundle was made for another robot description, or keys are trusted and none of them signed it.
    """
    return _load(Path(directory), spec, None)[1]


def load_policy(directory: str | Path, spec: RobotSpec) -> Policy:
    """Return the actor alone, ready to drive the robot that `spec` describes. Raises as `load_agent`."""
    content, agent = _load(Path(directory), spec, ("actor",))
    agent.freeze()
    return Policy(content.content_id, content.card, agent)


def _load(directory: Path, spec: RobotSpec | None, modules: tuple[str, ...] | None) -> tuple[Content, Agent]:
    """Read and check everything; return what was read and the agent with these modules (None: all)."""
    content = read_content(directory)
    _check_signed(content)
    card, path = content.card, directory / WEIGHTS
    if spec is not None:
        check_fits(card, spec, directory)
    try:
        tensors = load_tensors(content.files[WEIGHTS])
    except (SafetensorError, KeyError, ValueError) as error:
        raise StoreError(f"{path}: expected a safetensors file, found: {error}") from error
    check_ranges(card, directory / CARD)
    check_tensors(card, tensors, path)
    check_finite(tensors, path)
    if modules is not None:
        tensors = {name: value for name, value in tensors.items() if name.split(".", 1)[0] in modules}
        card = replace(card, hyperparameters={**card.hyperparameters, "modules": list(modules)})
    agent = assemble(directory, card, tensors)
    if PROBES in content.files:
        check_probes(decode_probes(content.files[PROBES], directory / PROBES), agent, directory / PROBES)
    return content, agent


def _check_signed(content: Content) -> None:
    found, trust = _signatures(content), signing.trusted_keys(content.directory)
    if trust is not None:
        trust.check(signing.POLICY, content.content_id, found, content.directory)


def _signatures(content: Content) -> tuple[signing.Signature, ...]:
    path = content.directory / SIGNATURE
    if not path.exists():
        return ()
    found = signing.decode_signatures(read_file(path), path)
    for signature in found:
        signature.verify(signing.POLICY, content.content_id, path)
    return found
