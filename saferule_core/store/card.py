"""The card of a policy bundle: where a policy comes from and what its weights must look like.

    card = Card(seed=0, data={"retain": retain.digest(), "forget": forget.digest()}, parent=incumbent_id,
                method="safe_rule", origin=Origin(asked_by="anna", used=..., forgotten=...))

The caller fills in the origin; `bundle.save` fills in what it can see itself. On disk it is `card.json`.

Format 2 has probes and a list of hashes in the bundle. The number rose because the format says which files make up the
content: a bundle that says 2 and lacks its probes is refused, one that says 1 never had any and stays readable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from saferule_core.data.ranges import ObservationRanges
from saferule_core.errors import StoreError

FORMAT = 2
READABLE = (1, 2)


@dataclass(frozen=True)
class BagOrigin:
    """A bag that a policy learned from or forgot, so that whoever has the bag can recognise it.

    name: last part of its path. sha256: over its files. episodes: how many were used. episodes_sha256: over the list
    of them. `origin` says how both are computed.
    """

    name: str
    sha256: str
    episodes: int
    episodes_sha256: str


@dataclass(frozen=True)
class Origin:
    """Who asked for a policy, the bags it learned from, and the bags whose influence was removed."""

    asked_by: str = ""
    used: tuple[BagOrigin, ...] = ()
    forgotten: tuple[BagOrigin, ...] = ()


@dataclass(frozen=True)
class TensorInfo:
    """Shape and element type ("float32") of a tensor."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Card:
    """Origin and shape of a policy.

    Given by the caller:
        seed: of the training or unlearning run. data: role -> digest of the transitions that were used.
        parent: policy that this one was made from, None for one trained from scratch.
        method: "train", or the unlearning method. details: further JSON-able facts about the run.
        origin: who asked, and which bags.
        ranges: of the observations that it learned from; None where they are not known.
        created: time in UTC, ISO 8601; filled in when empty.

    Filled in by `bundle.save`:
        algorithm, hyperparameters, obs_dim, action_dim: rebuild the untrained agent.
        tensors: every tensor of the weights file. spec_name, spec_hash: the robot description it was made for.
        code_version: of saferule. format: of the bundle.
    """

    seed: int
    data: dict[str, str] = field(default_factory=dict)
    parent: str | None = None
    method: str = "train"
    details: dict[str, Any] = field(default_factory=dict)
    origin: Origin = Origin()
    ranges: ObservationRanges | None = None
    created: str = ""
    algorithm: str = ""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    obs_dim: int = 0
    action_dim: int = 0
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    spec_name: str = ""
    spec_hash: str = ""
    code_version: str = ""
    format: int = FORMAT


def encode_card(card: Card) -> bytes:
    """Return the content of `card.json`; equal cards give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(card, order="deterministic"), indent=2) + b"\n"


def decode_card(content: bytes, path: Path) -> Card:
    """Return the card in `content`; `path` names the file in errors.

    Raises:
        StoreError: it is no JSON, lacks a field, or has another format.
    """
    try:
        card = msgspec.json.decode(content, type=Card)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: expected the card of a policy bundle, found: {error}") from error
    if card.format not in READABLE:
        wanted = " or ".join(str(number) for number in READABLE)
        raise StoreError(f"{path}: format: expected {wanted}, found {card.format}; it was written by another version")
    return card
