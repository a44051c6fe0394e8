"""A repair as an operator asks for it, and everything that can be wrong with it before any work is done.

    request = RepairRequest(forget=("logs/day_3",), retain=("logs/day_1", "logs/day_2"), seed=0)
    request = RepairRequest(retain=("logs/day_1",), ranges=(TimeRange("logs/day_1", 61.0, 64.5),))
    incumbent_id = check_request(request, spec, store)

Each refusal says what to do instead. What only the content of bags can show (a missing topic, no whole episode, a
forget set that covers all episodes) is refused when they are read, by `unlearning.selection` and `unlearning.unlearn`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saferule_core.agents import is_foreign
from saferule_core.data.bag_files import find_bag
from saferule_core.data.reading import USUAL, ReadOptions, check_inside
from saferule_core.detection import suspects
from saferule_core.errors import DataError, SimulationError, StoreError, UnlearningError
from saferule_core.spec import RobotSpec
from saferule_core.store.store import PolicyStore
from saferule_core.unlearning.base import METHODS, foreign_policy
from saferule_core.validation.gate import GateRules

MOST_SECONDS = 1e10
"""Times beyond this [s] are none: nanoseconds of them have to fit into 64 bits."""


@dataclass(frozen=True)
class TimeRange:
    """Episodes of a bag that were driven at a time: all that begin before `end` and end after `start`.

    start, end: [s], as in the header stamps of the messages; from_beginning: counted from the bag's first step.
    """

    bag: str
    start: float
    end: float
    from_beginning: bool = True


@dataclass(frozen=True)
class Detecting:
    """Let the detectors choose what to forget among the retained bags.

    max_share: of the episodes that are not trusted, the most that may be chosen. false_alarm_rate: share of honest
    episodes that may be chosen, where trusted bags tell how honest ones look.
    """

    max_share: float = 0.3
    false_alarm_rate: float = 0.05


@dataclass(frozen=True)
class RepairRequest:
    """What to forget, what to keep, and how the outcome is judged.

    forget, retain: paths of bags. Of a retained bag, episodes in `ranges`, in the list `suspects` (a file that
    `saferule inspect --suspects` wrote) and, with `detect`, those that the detectors suspect are forgotten instead.
    trusted: bags that are known to be honest; they are retained, too. forget_untrusted: forget all of the retained
    bags but the trusted ones, where nothing else is known.
    policy: the one to repair, by id or as "active". method: a name in `METHODS`.
    seed: of all randomness. cost_limit: per episode, None for the robot description's.
    min_reward_kept, confidence, episodes: see `validation.gate.GateRules`.
    options: hyperparameters of the method. asked_by: who asks, for the history; empty for the user of this process.
    reading: how the bags are read.
    """

    forget: tuple[str, ...] = ()
    retain: tuple[str, ...] = ()
    policy: str = "active"
    method: str = "safe_rule"
    seed: int = 0
    cost_limit: float | None = None
    min_reward_kept: float = 0.85
    confidence: float = 0.95
    episodes: int = 20
    options: Mapping[str, Any] = field(default_factory=dict)
    asked_by: str = ""
    reading: ReadOptions = USUAL
    ranges: tuple[TimeRange, ...] = ()
    suspects: str | None = None
    detect: Detecting | None = None
    trusted: tuple[str, ...] = ()
    forget_untrusted: bool = False

    @property
    def kept(self) -> tuple[str, ...]:
        """The retained and the trusted bags, each once."""
        known = {same(path) for path in self.retain}
        return (*self.retain, *(path for path in self.trusted if same(path) not in known))

    def rules(self, spec: RobotSpec) -> GateRules:
        """Return the gate's rules. Raises DataError if one is out of range."""
        limit = spec.cost.limit if self.cost_limit is None else self.cost_limit
        return GateRules(limit, self.min_reward_kept, self.confidence, self.episodes)


def same(path: str) -> str:
    """Return the path that two names of one bag have in common."""
    return os.path.realpath(path)


def check_request(request: RepairRequest, spec: RobotSpec, store: PolicyStore, validate: bool = True) -> str:
    """Check a request against robot description and store, and return the id of the policy to repair.

    Args:
        validate: the candidate will be validated, so a simulated robot is needed.

    Raises:
        UnlearningError: nothing to forget, nothing to retain, the same bag on both sides, no such method, or a policy
            of another tool.
        DataError: a bag or list of suspects does not exist or is none, or a rule of the gate is out of range.
        StoreError: no such policy, it was made for another robot description, or the store takes signed policies only
            and there is no key to sign the candidate with.
        SimulationError: the description names no simulated robot to validate on.
    """
    check_bag_names(request)
    if request.method not in METHODS:
        raise UnlearningError(f"method: expected one of {', '.join(sorted(METHODS))}, found {request.method!r}")
    if request.seed < 0:
        raise UnlearningError(f"seed: expected an integer of at least 0, found {request.seed}")
    request.rules(spec)
    if validate and spec.simulation is None:
        raise SimulationError(
            f"{spec.source}: simulation: expected a simulated robot to validate the repaired policy on, found none; "
            "add a section `simulation` to the robot description"
        )
    incumbent_id = store.resolve(request.policy)
    card = store.card(incumbent_id)
    if card.spec_hash != spec.hash:
        raise StoreError(
            f"policy {incumbent_id[:12]}: expected one made for {spec.source} (spec {spec.hash[:12]}), found one for "
            f"{card.spec_name} (spec {card.spec_hash[:12]}); use the robot description that it was trained with"
        )
    if is_foreign(card.algorithm):
        raise UnlearningError(foreign_policy(f"policy {incumbent_id[:12]}", card.algorithm))
    listed = (each.bag for each in suspects_of(request, spec))
    for path in dict.fromkeys((*request.forget, *request.kept, *(r.bag for r in request.ranges), *listed)):
        find_bag(Path(path), request.reading)
    store.check_can_add()
    return incumbent_id


def suspects_of(request: RepairRequest, spec: RobotSpec) -> tuple[suspects.SuspectEpisode, ...]:
    """Return the episodes in the request's list of suspects, none without one.

    Raises:
        DataError: it is no such list, lies outside of the allowed folders, or is about another robot description.
    """
    if request.suspects is None:
        return ()
    check_inside(Path(request.suspects), request.reading.roots)
    listed = suspects.load(request.suspects)
    if listed.spec_hash != spec.hash:
        raise DataError(
            f"{request.suspects}: spec_hash: expected {spec.hash[:12]} ({spec.source}), found {listed.spec_hash[:12]} "
            f"({listed.robot}); inspect the bags with this robot description"
        )
    if not listed.suspects:
        raise DataError(f"{request.suspects}: expected at least one suspect, found none; {listed.note}")
    return listed.suspects


def check_bag_names(request: RepairRequest) -> None:
    """Raise UnlearningError if what a request names does not make sense together."""
    forget, kept = request.forget, request.kept
    if not (forget or request.ranges or request.suspects or request.detect or request.forget_untrusted):
        raise UnlearningError(
            "forget set: expected at least one bag, time range or list of suspects, found none; name the bags to "
            "forget, or ask for detection"
        )
    if not kept:
        raise UnlearningError(
            "retain set: expected at least one bag, found none; name the bags that the policy may go on learning from"
        )
    unwanted = {same(path) for path in forget}
    shared = [path for path in kept if same(path) in unwanted]
    if len(shared) == len(kept):
        raise UnlearningError(
            f"forget set: it names all {len(kept)} retained bags, so nothing is left to learn from; "
            "forget fewer bags, or retain others"
        )
    if shared:
        raise UnlearningError(
            f"{shared[0]}: expected each bag in one set, found it in both the forget and the retain set; "
            "leave it out of one of them"
        )
    for name, paths in (("forget", forget), ("retain", request.retain), ("trusted", request.trusted)):
        seen = [same(path) for path in paths]
        if len(set(seen)) != len(seen):
            twice = next(path for path, full in zip(paths, seen, strict=True) if seen.count(full) > 1)
            raise UnlearningError(f"{twice}: expected each bag once, found it twice in the {name} set")
    check_ranges(request.ranges, {same(path) for path in request.trusted})
    if request.forget_untrusted and not request.trusted:
        raise UnlearningError("trusted: expected at least one bag to keep when all others are forgotten, found none")
    if request.forget_untrusted and len(request.trusted) == len(kept):
        raise UnlearningError("forget set: expected retained bags that are not trusted, to forget them, found none")


def check_ranges(ranges: Iterable[TimeRange], trusted: set[str]) -> None:
    """Raise UnlearningError if a time range is none, or lies in a trusted bag."""
    for each in ranges:
        if not -MOST_SECONDS < each.start < each.end < MOST_SECONDS:
            raise UnlearningError(
                f"{each.bag}: time range: expected seconds, end after start, found {each.start:g} to {each.end:g}"
            )
        if same(each.bag) in trusted:
            raise UnlearningError(f"{each.bag}: expected a bag either trusted or with parts to forget, found both")
