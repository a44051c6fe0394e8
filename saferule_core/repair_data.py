"""What a repair works on, read once: both sets of transitions, where they come from, and what is told to people.

    data = read_data(request, spec, agent, progress)
    save(data, folder);  load(folder)                     # None where nothing whole was kept

Kept on disk as `retain.safetensors`, `forget.safetensors` and, last of all, `data.json` with the digests of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from saferule_core.agents import Agent
from saferule_core.data.bags import BagContents
from saferule_core.data.transitions import Transitions
from saferule_core.detection.suspects import SuspectEpisode
from saferule_core.errors import DataError, DiskError
from saferule_core.progress import Progress, silent
from saferule_core.spec import RobotSpec
from saferule_core.store.card import BagOrigin
from saferule_core.store.files import replace_file, replace_file_with
from saferule_core.store.origin import bag_origins
from saferule_core.unlearning.base import episode_digests
from saferule_core.unlearning.request import RepairRequest
from saferule_core.unlearning.selection import read_sets

INDEX = "data.json"
SETS = ("retain", "forget")


@dataclass(frozen=True)
class Description:
    """Facts about both sets.

    bags: set -> what the policy's card keeps of its bags. used, forgotten: the bags by hash. episodes: "used" or
    "forgotten" -> hash of a bag -> digests of the episodes that are meant, for bags of which others are not.
    facts: for people. detected: what detectors added to the forget set, and note: how they came to it.
    digests: set -> digest of its transitions.
    """

    bags: dict[str, list[dict[str, Any]]]
    used: tuple[BagOrigin, ...]
    forgotten: tuple[BagOrigin, ...]
    episodes: dict[str, dict[str, list[str]]]
    facts: dict[str, str]
    detected: tuple[SuspectEpisode, ...]
    note: str
    digests: dict[str, str]


@dataclass(frozen=True)
class RepairData:
    """Both sets, and facts about them."""

    retain: Transitions
    forget: Transitions
    about: Description


def read_data(request: RepairRequest, spec: RobotSpec, agent: Agent, progress: Progress = silent) -> RepairData:
    """Read the bags of a request. Arguments and errors as `selection.read_sets`."""
    sets = read_sets(request, spec, agent, progress)
    contents = {"retain": sets.retain, "forget": sets.forget}
    origins = {name: bag_origins(each) for name, each in contents.items()}
    partial = {
        role: _partial(contents[name], origins[name]) for role, name in (("used", "retain"), ("forgotten", "forget"))
    }
    facts = {key: text for name, each in contents.items() for key, text in _facts(name, each).items()}
    if request.detect is not None:
        facts["detection"] = f"{len(sets.detected)} episodes suspected and forgotten; {sets.note}"
    about = Description(
        bags={name: each.card() for name, each in contents.items()},
        used=origins["retain"],
        forgotten=origins["forget"],
        episodes={role: digests for role, digests in partial.items() if digests},
        facts=facts,
        detected=sets.detected,
        note=sets.note,
        digests={name: each.transitions.digest() for name, each in contents.items()},
    )
    return RepairData(sets.retain.transitions, sets.forget.transitions, about)


def save(data: RepairData, folder: Path) -> None:
    """Write everything; each file appears whole or not at all. Raises DiskError if that fails."""
    try:
        for name in SETS:
            replace_file_with(folder / f"{name}.safetensors", getattr(data, name).save)
        replace_file(folder / INDEX, msgspec.json.encode(data.about) + b"\n")
    except OSError as error:
        raise DiskError(f"{folder}: expected space for the data of a request, found: {error}") from error


def load(folder: Path) -> RepairData | None:
    """Read what `save` wrote; None if it is not there, or not as it was written."""
    about = describe(folder)
    if about is None:
        return None
    try:
        sets = {name: Transitions.load(folder / f"{name}.safetensors") for name in SETS}
    except DataError:
        return None
    if any(sets[name].digest() != about.digests.get(name) for name in SETS):
        return None
    return RepairData(sets["retain"], sets["forget"], about)


def describe(folder: Path) -> Description | None:
    """Read the facts alone; None if they are not there."""
    try:
        return msgspec.json.decode((folder / INDEX).read_bytes(), type=Description)
    except (OSError, msgspec.DecodeError):
        return None


def drop(folder: Path) -> None:
    """Delete the transitions, which may be large and can be read from the bags again; facts about them stay."""
    for name in SETS:
        (folder / f"{name}.safetensors").unlink(missing_ok=True)


def _partial(contents: BagContents, origins: Sequence[BagOrigin]) -> dict[str, list[str]]:
    """Return hash of a bag -> digests of its episodes in `contents`, for bags of which some were left out."""
    found = {}
    digests = [digest.hex() for digest in episode_digests(contents.transitions)]
    for bag, origin in zip(contents.bags, origins, strict=True):
        if bag.partial:
            found[origin.sha256] = [digests[number] for number in bag.episodes]
    return found


def _facts(name: str, contents: BagContents) -> Mapping[str, str]:
    data, costs = contents.transitions, contents.transitions.episode_costs
    bags = (
        f"{Path(bag.path).name} ({len(bag.episode_names)} episodes of it)" if bag.partial else Path(bag.path).name
        for bag in contents.bags
    )
    return {
        f"{name} set": data.digest(),
        f"{name} bags": ", ".join(bags),
        f"{name} episodes": f"{data.episode_count} ({len(data)} steps), mean recomputed cost {costs.mean():.1f}",
    }
