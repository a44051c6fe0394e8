"""From a request to the two sets that unlearning works on: which episodes are forgotten, which are kept, and why.

    sets = read_sets(request, spec, agent, progress)
    sets.retain.transitions, sets.forget.transitions, sets.detected

An episode is forgotten as a whole: a stretch of one that is left would begin in the middle of what is to be forgotten.
What detectors suspect is used only where the request says so, and is told in `detected`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saferule_core.agents.base import Agent
from saferule_core.data.bags import BagContents, BagRecord, read_bags
from saferule_core.detection.suspects import SuspectEpisode
from saferule_core.errors import DataError, UnlearningError
from saferule_core.inspection import inspect_bags
from saferule_core.progress import Progress, silent, within
from saferule_core.spec import RobotSpec
from saferule_core.unlearning.base import episode_digests
from saferule_core.unlearning.request import RepairRequest, TimeRange, same, suspects_of


@dataclass(frozen=True)
class Sets:
    """What is kept and what is forgotten; detected: what the detectors added to the latter, and note: how they did."""

    retain: BagContents
    forget: BagContents
    detected: tuple[SuspectEpisode, ...] = ()
    note: str = ""


def read_sets(request: RepairRequest, spec: RobotSpec, agent: Agent, progress: Progress = silent) -> Sets:
    """Read the bags of a request and divide their episodes.

    Args:
        agent: the policy to repair; some detectors ask it.
        progress: gets the phases "loading" and "detecting"; may raise `Cancelled`.

    Raises:
        DataError: a bag cannot be read, or is not the one that a list of suspects was made from.
        UnlearningError: nothing is found to be forgotten, or nothing is left.
        DetectionError: detection was asked for and cannot work on these bags.
    """
    share = 0.5 if request.detect else 1.0
    listed = suspects_of(request, spec)
    kept = read_bags(request.kept, spec, progress=within(progress, 0.0, 0.7 * share), options=request.reading)
    others = _others(request, listed)
    rest = _read(others, spec, within(progress, 0.7 * share, 0.8 * share), request)
    named = _read(request.forget, spec, within(progress, 0.8 * share, share), request)
    detected, note = _detect(request, spec, agent, within(progress, share, 1.0))
    parts = [named] if named is not None else []
    left: set[int] = set()
    for contents in (kept, rest):
        if contents is None:
            continue
        chosen = _chosen(contents, request, [*listed, *detected])
        if contents is kept:
            left = set(range(kept.transitions.episode_count)) - chosen
        if chosen:
            parts.append(contents.select(chosen))
    if not parts:
        where = "; ".join(f"{r.bag}: {r.start:g} to {r.end:g} s" for r in request.ranges)
        found = f"detection suspects none ({note})" if request.detect else f"found none in {where}"
        raise UnlearningError(f"forget set: expected at least one episode, {found}; name bags, or other times")
    if not left:
        raise UnlearningError(
            f"forget set: it covers all {kept.transitions.episode_count} retained episodes, so nothing is left to "
            "learn from; name fewer episodes to forget, or more data to retain"
        )
    return Sets(kept.select(left), BagContents.concatenate(parts), detected, note)


def _others(request: RepairRequest, listed: Sequence[SuspectEpisode]) -> list[str]:
    """Return the bags that only ranges and lists speak of: what is not forgotten of them is not used."""
    known = {same(path) for path in (*request.kept, *request.forget)}
    more = {same(path): path for path in (*(r.bag for r in request.ranges), *(each.bag for each in listed))}
    return [path for full, path in more.items() if full not in known]


def _read(paths: Sequence[str], spec: RobotSpec, progress: Progress, request: RepairRequest) -> BagContents | None:
    return read_bags(paths, spec, progress=progress, options=request.reading) if paths else None


def _detect(
    request: RepairRequest, spec: RobotSpec, agent: Agent, progress: Progress
) -> tuple[tuple[SuspectEpisode, ...], str]:
    """Return what the detectors suspect in the retained bags, and how they came to it."""
    if request.detect is None:
        return (), ""
    found = inspect_bags(
        request.kept, spec, trusted=request.trusted, agent=agent, false_alarm_rate=request.detect.false_alarm_rate,
        max_share=request.detect.max_share, seed=request.seed, progress=progress, options=request.reading,
    )  # fmt: skip
    left_out = f"; {found.left_out} more beyond the share of {request.detect.max_share:g}" if found.left_out else ""
    return found.suspects.suspects, f"{found.note}{left_out}"


def _chosen(contents: BagContents, request: RepairRequest, suspects: Sequence[SuspectEpisode]) -> set[int]:
    """Return the episodes of `contents` that are to be forgotten."""
    trusted = {same(path) for path in request.trusted}
    digests = [digest.hex() for digest in episode_digests(contents.transitions)]
    chosen: set[int] = set()
    for bag in contents.bags:
        full = same(bag.path)
        for each in request.ranges:
            if same(each.bag) == full:
                chosen.update(_driven_in(bag, each))
        chosen.update(_number(bag, each, digests) for each in suspects if same(each.bag) == full)
        if request.forget_untrusted and full not in trusted and full in map(same, request.kept):
            chosen.update(bag.episodes)
        if full in trusted and chosen & set(bag.episodes):
            raise UnlearningError(f"{bag.path}: expected a trusted bag without suspects in the list, found one")
    return chosen


def _driven_in(bag: BagRecord, when: TimeRange) -> list[int]:
    """Return the episodes of a bag that were driven in a time range."""
    zero = bag.times[0][0] if when.from_beginning else 0
    start, end = (zero + round(seconds * 1e9) for seconds in (when.start, when.end))
    driven = zip(bag.episodes, bag.times, strict=True)
    return [number for number, (first, last) in driven if first <= end and last >= start]


def _number(bag: BagRecord, suspect: SuspectEpisode, digests: Sequence[str]) -> int:
    """Return the number of a suspect among the episodes that were read.

    Raises:
        DataError: the bag has no such episode, or another one of that name.
    """
    for number, name in zip(bag.episodes, bag.episode_names, strict=True):
        if name == suspect.episode and digests[number] == suspect.digest:
            return number
    raise DataError(
        f"{bag.path}: {suspect.episode}: expected the episode that was suspected (digest {suspect.digest[:12]}), found "
        "none like it; the bag was changed, or is read in another way: inspect it again with the same options"
    )
