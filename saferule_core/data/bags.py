"""Rosbag2 files <-> transitions, through a RobotSpec.

    contents = read_bags(["logs/day_1", "logs/day_2"], spec)        # costs recomputed from the sensors
    contents.transitions, contents.bags[0].episodes                 # rows; which episodes came from which bag
    write_bags(logs, spec, "logs/seed_0", episodes_per_bag=20)

Topics may lie under a namespace: the description's "odom" is the bag's /odom or /robot_1/odom.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from saferule_core.data.bag_reader import LabelSource, read_bag
from saferule_core.data.bag_writer import write_bags
from saferule_core.data.label_check import LabelCheck
from saferule_core.data.reading import USUAL, ReadOptions
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError
from saferule_core.progress import Progress, silent
from saferule_core.spec import RobotSpec

__all__ = ["BagContents", "BagRecord", "ReadOptions", "read_bags", "write_bags"]

_log = logging.getLogger("saferule")


@dataclass(frozen=True)
class BagRecord:
    """What came from one bag.

    path: as it was given. first_episode, episode_names: its episodes in the transitions, and what their markers said
    ("part_0" and so on without markers; "episode_3#2" is what follows a gap in episode_3).
    steps: number of transitions. commands: number of recorded commands; `commands - steps` of them were no steps.
    labels: how the log's own rewards and costs compare with what its sensors say, per episode.
    notes: what a user of the data should know: clocks, messages out of order, what a damaged bag lacks.
    times: of each episode's first and last command [ns], header stamps where there are any.
    partial: episodes of the bag were left out on purpose, see `BagContents.select`.
    """

    path: str
    first_episode: int
    episode_names: tuple[str, ...]
    steps: int
    commands: int
    labels: tuple[LabelCheck, ...] = ()
    notes: tuple[str, ...] = ()
    times: tuple[tuple[int, int], ...] = ()
    partial: bool = False

    @property
    def episodes(self) -> range:
        """Numbers of the bag's episodes in the transitions."""
        return range(self.first_episode, self.first_episode + len(self.episode_names))


@dataclass(frozen=True)
class BagContents:
    """Transitions of several bags, in the order in which these were given.

    sensor_costs: (N,) float32, the cost that the sensors say, whichever label the transitions have.
    """

    transitions: Transitions
    bags: tuple[BagRecord, ...]
    sensor_costs: np.ndarray

    def select(self, episodes: Collection[int]) -> BagContents:
        """Return the episodes with these numbers, in the order of the bags; a bag without any is left out."""
        chosen, records, first = set(episodes), [], 0
        for bag in self.bags:
            mine = [number for number, episode in enumerate(bag.episodes) if episode in chosen]
            if not mine:
                continue
            bounds = self.transitions.episode_bounds[bag.first_episode :]
            records.append(
                replace(
                    bag,
                    first_episode=first,
                    episode_names=tuple(bag.episode_names[number] for number in mine),
                    steps=sum(int(bounds[number + 1] - bounds[number]) for number in mine),
                    labels=tuple(check.select(mine) for check in bag.labels),
                    times=tuple(bag.times[number] for number in mine),
                    partial=bag.partial or len(mine) < len(bag.episode_names),
                )
            )
            first += len(mine)
        costs = self.sensor_costs[np.isin(self.transitions.episode_index, sorted(chosen))]
        return BagContents(self.transitions.select_episodes(sorted(chosen)), tuple(records), costs)

    @staticmethod
    def concatenate(parts: Sequence[BagContents]) -> BagContents:
        """Join what was read, in order. Raises DataError if there is nothing to join."""
        records, first = [], 0
        for part in parts:
            records += [replace(bag, first_episode=first + bag.first_episode) for bag in part.bags]
            first += part.transitions.episode_count
        return BagContents(
            Transitions.concatenate([part.transitions for part in parts]),
            tuple(records),
            np.concatenate([part.sensor_costs for part in parts]),
        )

    def card(self) -> list[dict[str, Any]]:
        """Return what a policy's card keeps of the bags it was learned from, as JSON-able facts."""
        return [
            {
                "bag": Path(bag.path).name,
                "episodes": len(bag.episode_names),
                "steps": bag.steps,
                "commands": bag.commands,
                "notes": list(bag.notes),
                "labels": {
                    check.name: {"steps": int(check.labelled.sum()), "differing": int(check.differing.sum())}
                    for check in bag.labels
                },
            }
            for bag in self.bags
        ]


def read_bags(
    paths: Sequence[str | Path],
    spec: RobotSpec,
    cost: LabelSource = "recomputed",
    progress: Progress = silent,
    *,
    reward: LabelSource = "logged",
    options: ReadOptions = USUAL,
) -> BagContents:
    """Read bags and return what a policy can learn from them.

    Labels are compared with what is computed from the sensors, used or not; see `BagRecord.labels`. Commands before the
    first episode marker of a bag belong to an episode that is not complete, and are left out.

    Args:
        paths: directories of bags, or their .mcap or .db3 files.
        cost: "recomputed" from the sensors; "logged" takes the label in the bag, which may be a lie;
            "logged_or_recomputed" takes it of the steps that have one, and recomputes it for others.
        progress: called as phase "loading"; may raise `Cancelled`.
        reward: "logged" takes the label where the description names a topic for it that the bag has, and computes it
            elsewhere; "recomputed" never reads it.
        options: of reading, for bags that are not complete, have types of their own, or are large.

    Raises:
        DataError: no bag is given, one is missing or damaged, lacks topics that are needed, has other types on them,
            has commands at less than half or more than twice the description's rate, or holds no complete step of an
            episode. The message names the bag.
    """
    if not paths:
        raise DataError("bags: expected at least one bag, found none")
    parts: list[Transitions] = []
    costs: list[np.ndarray] = []
    records: list[BagRecord] = []
    first_episode = 0
    for index, path in enumerate(paths):
        name = Path(path).name

        def report(fraction: float, index: int = index, name: str = name) -> None:
            progress("loading", (index + fraction) / len(paths), name)

        part = read_bag(path, spec, cost, report, reward, options)
        for note in part.notes if options.tolerate_truncated else ():
            _log.warning("%s: %s", path, note)
        parts.append(part.transitions)
        costs.append(part.sensor_costs)
        steps = len(part.transitions)
        records.append(
            BagRecord(
                str(path), first_episode, part.episode_names, steps, part.commands, part.labels, part.notes, part.times
            )  # fmt: skip
        )
        first_episode += len(part.episode_names)
    progress("loading", 1.0, f"{first_episode} episodes")
    return BagContents(Transitions.concatenate(parts), tuple(records), np.concatenate(costs))
