"""One rosbag2 bag becomes transitions, through a RobotSpec.

    part = read_bag("logs/day_1", spec)
    part.transitions, part.episode_names

See `alignment` for which command is a step, and what belongs to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from saferule_core.data.alignment import Ticks, align, common_clock, episodes_by_gap, episodes_by_marker
from saferule_core.data.bag_file import TopicRequest, read_topics
from saferule_core.data.columns import physical_of_columns
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError
from saferule_core.spec import RobotSpec
from saferule_core.spec_schema import ActionChannel, FieldSource, Signal

SHORTEST_GAP_NS = 1_000_000_000
GAP_PERIODS = 3

CostSource = Literal["recomputed", "logged"]


@dataclass(frozen=True)
class BagPart:
    """The transitions of one bag, the names of its episodes, and how many commands it has (not all are steps)."""

    transitions: Transitions
    episode_names: tuple[str, ...]
    commands: int


def read_bag(
    path: str | Path,
    spec: RobotSpec,
    cost: CostSource = "recomputed",
    report: Callable[[float], None] = lambda _: None,
) -> BagPart:
    """Return what a bag holds; see `bags.read_bags` for arguments and errors. `report` gets the fraction done."""
    return _Recording(path, spec, cost, report).part()


class _Recording:
    """The columns of one bag on one clock."""

    def __init__(self, path: str | Path, spec: RobotSpec, cost: CostSource, report: Callable[[float], None]) -> None:
        self._path, self._spec = path, spec
        self._cost_label = spec.cost.logged if cost == "logged" else None
        if cost == "logged" and self._cost_label is None:
            raise DataError(f"{spec.source}: cost.logged: expected the topic of the cost label, found none")
        self._messages = read_topics(path, self._requests(), report)
        self._tracks = dict(zip(self._messages, common_clock(list(self._messages.values())), strict=True))
        for topic in {**spec.sensor_topics, **spec.command_topics}:
            if not len(self._messages[topic]):
                raise DataError(f"{path}: topic {topic}: expected messages, found none")
        reward = spec.reward.topic
        self._reward_label = reward if reward is not None and len(self._messages.get(reward.topic, ())) else None
        if self._reward_label is None and not spec.computes_reward:
            raise DataError(f"{path}: topic {reward.topic}: expected messages with the reward, found none")

    def _requests(self) -> list[TopicRequest]:
        spec = self._spec
        requests = [TopicRequest(s.topic, s.type, (s.field,)) for s in spec.source_signals()]
        requests += [TopicRequest(c.topic, c.type, (c.field,)) for c in spec.action]
        more = ((spec.episode.marker, False), (spec.reward.topic, not spec.computes_reward), (self._cost_label, True))
        requests += [TopicRequest(s.topic, s.type, (s.field,), required) for s, required in more if s is not None]
        return requests

    def part(self) -> BagPart:
        """Return transitions and bookkeeping."""
        spec = self._spec
        commands = self._tracks[spec.action[0].topic]
        gap_ns = max(SHORTEST_GAP_NS, GAP_PERIODS * spec.period_ns)
        episode, spans, names = self._episodes(gap_ns)
        labels = [label for label in (self._reward_label, self._cost_label) if label is not None]
        ticks = align(
            commands,
            [(self._tracks[topic], self._max_age_ns(topic)) for topic in spec.sensor_topics],
            [self._tracks[label.topic] for label in labels],
            episode,
            spans,
            period_ns=spec.period_ns,
            gap_ns=gap_ns,
            max_steps=spec.episode.max_steps,
        )
        state, following = self._physical(ticks.state), self._physical(ticks.next_state)
        command = self._command(ticks.command)
        logged = [self._values(label, index) for label, index in zip(labels, ticks.labels, strict=True)]
        rewards = logged[0] if self._reward_label else spec.step_reward(following, state, command)
        costs = logged[-1] if self._cost_label else spec.step_cost(following, state, command)
        rows = {
            "observations": spec.observe(state),
            "actions": spec.normalise_action(command),
            "rewards": np.broadcast_to(rewards, len(ticks.command)),
            "costs": np.broadcast_to(costs, len(ticks.command)),
            "next_observations": spec.observe(following),
        }
        return self._assemble(rows, np.asarray(spec.ends(following), bool), ticks, names)

    def _assemble(self, rows: dict[str, np.ndarray], terminated: np.ndarray, ticks: Ticks, names: list[str]) -> BagPart:
        """Leave out steps with values that are not finite, mark the ends of episodes, and name them."""
        total = len(self._tracks[self._spec.action[0].topic].time)
        finite = np.ones(len(ticks.command), bool)
        for values in rows.values():
            finite &= np.isfinite(values.reshape(len(values), math.prod(values.shape[1:]))).all(axis=1)
        if not finite.any():
            raise DataError(
                f"{self._path}: expected at least one complete step of an episode (its marker, fresh and finite "
                f"sensors, a command, newer sensors, labels), found none among {total} commands"
            )
        ends = (ticks.ends | terminated | ~np.append(finite[1:], False))[finite]
        data = Transitions(
            **{name: values[finite] for name, values in rows.items()}, terminated=terminated[finite], episode_ends=ends
        )
        episode = ticks.episode[finite][ends]
        piece = np.arange(len(episode)) - np.searchsorted(episode, episode)
        labels = [names[e] if p == 0 else f"{names[e]}#{p + 1}" for e, p in zip(episode, piece, strict=True)]
        return BagPart(data, tuple(labels), total)

    def _episodes(self, gap_ns: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return per command its episode, the spans of the episodes, and their names."""
        commands, marker = self._tracks[self._spec.action[0].topic], self._spec.episode.marker
        if marker is not None and len(self._messages.get(marker.topic, ())):
            track = self._tracks[marker.topic]
            column = self._messages[marker.topic].columns[marker.field]
            values = [str(column[index]) for index in track.order]
            names = [value for i, value in enumerate(values) if i == 0 or value != values[i - 1]]
            return *episodes_by_marker(commands, track, values), names
        episode, spans = episodes_by_gap(commands, gap_ns, self._spec.episode.max_steps)
        return episode, spans, [f"part_{number}" for number in range(len(spans))]

    def _max_age_ns(self, topic: str) -> int:
        return round(1e9 * min(s.max_age for s in self._spec.source_signals() if s.topic == topic))

    def _values(self, source: FieldSource | Signal | ActionChannel, index: np.ndarray) -> np.ndarray:
        """Return the numbers in a field for indices into its topic's track."""
        column = self._messages[source.topic].columns[source.field]
        if not isinstance(column, np.ndarray):
            where = f"{self._path}: topic {source.topic}: {source.field}"
            raise DataError(f"{where}: expected numbers, found {column[0]!r}")
        return column[self._tracks[source.topic].order[index]]

    def _physical(self, indices: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return all signals for indices into the tracks of the sensor topics."""
        by_topic = dict(zip(self._spec.sensor_topics, indices, strict=True))
        columns = {s.name: self._values(s, by_topic[s.topic]) for s in self._spec.source_signals()}
        try:
            return physical_of_columns(self._spec, columns)
        except DataError as error:
            raise DataError(f"{self._path}: topic {error}") from error

    def _command(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the commands of ticks, given as indices into the first command topic: channel -> (K,) command units.

        Other command topics speak in the same tick, maybe a little later.
        """
        first = self._spec.action[0].topic
        until = self._tracks[first].time[index] + self._spec.period_ns // 2
        command = {}
        for channel in self._spec.action:
            latest = np.searchsorted(self._tracks[channel.topic].time, until, side="right") - 1
            command[channel.name] = self._values(channel, index if channel.topic == first else np.maximum(latest, 0))
        return command
