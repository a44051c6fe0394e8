"""Bags as an operator looks at them: what they hold, what each episode costs and earns, and how suspicious it is.

    found = inspect_bags(["logs/day_1"], spec, trusted=["logs/commissioning"], max_share=0.3)
    found.bags[0].topics, found.bags[0].episodes[3].reason, found.suspects

Library behind `saferule inspect`; nothing is changed, and nothing that is found is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

import saferule_core
from saferule_core.agents.base import Agent
from saferule_core.data.bags import BagRecord, read_bags
from saferule_core.data.label_check import LabelCheck
from saferule_core.data.reading import USUAL, ReadOptions
from saferule_core.data.topic_summary import TopicSummary, topic_summaries
from saferule_core.data.transitions import Transitions
from saferule_core.detection import Case, detect
from saferule_core.detection.recompute import recomputed
from saferule_core.detection.suspects import Choice, SuspectEpisode, SuspectsFile, choose
from saferule_core.progress import Progress, silent, within
from saferule_core.spec import RobotSpec
from saferule_core.unlearning.base import episode_digests

NAMED = 3
"""Bags without a label to name; the others are counted."""


@dataclass(frozen=True)
class InspectedEpisode:
    """One episode: steps, cost as logged (None where no step has the label) and as recomputed, and what is suspicious.

    index: its number among all episodes that were read. reward_differs: steps whose logged reward is not what the
    sensors say, None where no step has the label or it cannot be computed. p_value: None where no episode is trusted.
    """

    index: int
    name: str
    steps: int
    reward: float
    reward_differs: int | None
    logged_cost: float | None
    cost: float
    score: float
    p_value: float | None
    suspect: bool
    trusted: bool
    reason: str
    digest: str


@dataclass(frozen=True)
class InspectedLabel:
    """A label of a bag, "cost" or "reward": steps that have it, and those of them where the sensors say otherwise."""

    name: str
    labelled: int
    differing: int

    def __str__(self) -> str:
        return f"{self.name}: {self.differing} of {self.labelled} logged values are not what the sensors say"


@dataclass(frozen=True)
class InspectedBag:
    """One bag: its topics, episodes, commands that were no step of any episode, labels, and notes of its reading."""

    path: str
    topics: tuple[TopicSummary, ...]
    episodes: tuple[InspectedEpisode, ...]
    steps: int
    commands: int
    trusted: bool
    labels: tuple[InspectedLabel, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """All bags, the transitions in the same order, the detectors' standardised scores, and the suspects."""

    bags: tuple[InspectedBag, ...]
    transitions: Transitions
    standardised: dict[str, np.ndarray]
    skipped: dict[str, str]
    note: str
    left_out: int
    suspects: SuspectsFile


def inspect_bags(
    paths: Sequence[str | Path],
    spec: RobotSpec,
    *,
    trusted: Sequence[str | Path] = (),
    agent: Agent | None = None,
    policy: str | None = None,
    false_alarm_rate: float = 0.05,
    max_share: float = 0.3,
    seed: int = 0,
    progress: Progress = silent,
    options: ReadOptions = USUAL,
) -> Inspection:
    """Read and judge bags.

    Args:
        trusted: bags known to be honest and driven like the others; may be among `paths`.
        agent, policy: what was trained on the bags, and its id, where there is one.
        false_alarm_rate: share of honest episodes that may be suspected. max_share: most episodes to suspect.
        progress: gets the phases "loading" and "detecting"; may raise `Cancelled`.
        options: of reading.

    Raises:
        DataError: a bag cannot be read. DetectionError: too few episodes, or a rate is out of range.
    """
    believed = {os.path.realpath(path) for path in trusted}
    every = [*map(str, paths)]
    every += [str(path) for path in trusted if os.path.realpath(path) not in {os.path.realpath(p) for p in paths}]
    contents = read_bags(every, spec, "logged_or_recomputed", within(progress, 0.0, 0.5), options=options)
    data, costs = contents.transitions, contents.sensor_costs
    labels = {bag.path: _label(bag, "cost") for bag in contents.bags}
    unlabelled = [path for path, label in labels.items() if label is None]
    honest = [bag for bag in contents.bags if os.path.realpath(bag.path) in believed]
    trusted_episodes = np.array([episode for bag in honest for episode in bag.episodes], np.int64)
    _, rewards = recomputed(spec, data)
    case = Case(
        data, trusted_episodes, costs if len(unlabelled) < len(labels) else None,
        rewards if spec.reward.topic is not None else None, agent,
        spec.feature_names, tuple(channel.name for channel in spec.action), seed,
    )  # fmt: skip
    found = detect(case, progress=within(progress, 0.5, 1.0))
    chosen = choose(found, case.trusted, false_alarm_rate, max_share)
    if spec.cost.logged is not None and unlabelled:
        chosen = replace(chosen, note=f"{chosen.note}; {_without_label(unlabelled)}")
    totals = np.bincount(data.episode_index, costs.astype(np.float64), data.episode_count)
    digests = [digest.hex() for digest in episode_digests(data)]
    bags = []
    for record in contents.bags:
        label, rewarded = labels[record.path], _label(record, "reward")
        is_trusted = os.path.realpath(record.path) in believed
        episodes = tuple(
            InspectedEpisode(
                index=episode,
                name=name,
                steps=int(data.episode_bounds[episode + 1] - data.episode_bounds[episode]),
                reward=float(data.episode_returns[episode]),
                reward_differs=_of_episode(rewarded, "differing", number),
                logged_cost=_of_episode(label, "logged", number),
                cost=float(totals[episode]),
                score=float(found.ensemble.scores[episode]),
                p_value=None if np.isnan(found.p_values[episode]) else float(found.p_values[episode]),
                suspect=bool(np.isin(episode, chosen.episodes)),
                trusted=is_trusted,
                reason=found.ensemble.reasons[episode],
                digest=digests[episode],
            )
            for number, (episode, name) in enumerate(zip(record.episodes, record.episode_names, strict=True))
        )
        topics = topic_summaries(record.path, options)
        checks = tuple(
            InspectedLabel(check.name, int(check.labelled.sum()), int(check.differing.sum())) for check in record.labels
        )
        bags.append(
            InspectedBag(record.path, topics, episodes, record.steps, record.commands, is_trusted, checks, record.notes)
        )
    suspects = SuspectsFile(
        robot=spec.name, spec_hash=spec.hash, created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=saferule_core.__version__, bags=tuple(map(str, paths)), trusted_bags=tuple(map(str, trusted)),
        policy=policy, seed=seed, false_alarm_rate=false_alarm_rate, max_share=max_share,
        detectors=tuple(found.parts), skipped=found.skipped, note=chosen.note, left_out=chosen.left_out,
        suspects=_suspects(bags, chosen),
    )  # fmt: skip
    return Inspection(tuple(bags), data, found.standardised, found.skipped, chosen.note, chosen.left_out, suspects)


def _label(bag: BagRecord, name: str) -> LabelCheck | None:
    """Return how a label of a bag compares with what its sensors say; None where no step has it."""
    return next((check for check in bag.labels if check.name == name and check.labelled.any()), None)


def _of_episode(label: LabelCheck | None, column: str, number: int) -> Any:
    """Return a column of the comparison for an episode of the bag; None where none of its steps has the label."""
    return getattr(label, column)[number].item() if label is not None and label.labelled[number] else None


def _without_label(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return f"no cost label to compare in {', '.join(paths[:NAMED])}{more}"


def _suspects(bags: Sequence[InspectedBag], chosen: Choice) -> tuple[SuspectEpisode, ...]:
    by_index = {episode.index: (bag, episode) for bag in bags for episode in bag.episodes}
    named = [by_index[int(index)] for index in chosen.episodes]
    return tuple(
        SuspectEpisode(bag.path, each.name, each.steps, each.score, each.p_value, each.reason, each.digest)
        for bag, each in named
    )
