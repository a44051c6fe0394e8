"""One rosbag2 bag becomes transitions, through a RobotSpec.

    part = read_bag("logs/day_1", spec)
    part.transitions, part.episode_names, part.labels, part.notes

See `alignment` for which command is a step, and what belongs to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from saferule_core.data.alignment import Ticks, align, episodes_by_gap, episodes_by_marker
from saferule_core.data.bag_file import TopicRequest, read_bag_topics
from saferule_core.data.clocks import Track, clock_jumps, common_clock, other_clock
from saferule_core.data.column_cache import read_through_cache
from saferule_core.data.column_store import release
from saferule_core.data.columns import physical_of_columns
from saferule_core.data.label_check import LabelCheck, compare_labels
from saferule_core.data.reading import USUAL, ReadOptions
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError
from saferule_core.freshness import max_ages_ns
from saferule_core.spec import RobotSpec
from saferule_core.spec_schema import ActionChannel, FieldSource, Signal

SHORTEST_GAP_NS = 1_000_000_000
GAP_PERIODS = 3
FEWEST_GAPS = 10
"""A rate is taken of so many gaps between commands at least; pauses do not count."""

RATE_NOTED, RATE_REFUSED = 1.25, 2.0
"""Gaps between commands that are so many times longer or shorter than the control period are noted, or refused."""

ROWS_AT_ONCE = 1 << 16

LabelSource = Literal["recomputed", "logged", "logged_or_recomputed"]


@dataclass(frozen=True)
class BagPart:
    """The transitions of one bag, the names of its episodes, and how many commands it has (not all are steps).

    sensor_costs: (N,) float32, what the sensors say, whichever label the transitions have.
    labels: how the log's own labels compare with what the sensors say. notes: what a user of the data should know.
    times: of each episode's first and last command [ns], header stamps where there are any; those of before and after a
        clock was set back may be the same.
    """

    transitions: Transitions
    episode_names: tuple[str, ...]
    commands: int
    sensor_costs: np.ndarray
    labels: tuple[LabelCheck, ...] = ()
    notes: tuple[str, ...] = ()
    times: tuple[tuple[int, int], ...] = ()


def read_bag(
    path: str | Path,
    spec: RobotSpec,
    cost: LabelSource = "recomputed",
    report: Callable[[float], None] = lambda _: None,
    reward: LabelSource = "logged",
    options: ReadOptions = USUAL,
) -> BagPart:
    """Return what a bag holds; see `bags.read_bags` for arguments and errors. `report` gets the fraction done."""
    try:
        return _Recording(path, spec, cost, reward, report, options).part()
    except DataError as error:
        if str(error).startswith(f"{path}"):
            raise
        raise DataError(f"{path}: {error}") from error


@dataclass(frozen=True)
class _Label:
    """A label in the log. trusted: it is used as it is; else it is compared with what is computed.

    needed: a step without it is none; else what is computed stands in for it.
    """

    name: str
    source: FieldSource
    trusted: bool
    needed: bool


class _Recording:
    """The columns of one bag on one clock."""

    def __init__(
        self,
        path: str | Path,
        spec: RobotSpec,
        cost: LabelSource,
        reward: LabelSource,
        report: Callable[[float], None],
        options: ReadOptions,
    ) -> None:
        self._path, self._spec = path, spec
        if cost == "logged" and spec.cost.logged is None:
            raise DataError(f"{spec.source}: cost.logged: expected the topic of the cost label, found none")
        if reward == "recomputed" and not spec.computes_reward:
            raise DataError(f"{spec.source}: reward: expected an expression or a function to compute it, found none")
        read = read_bag_topics if options.cache is None else read_through_cache
        topics = read(path, self._requests(cost == "logged"), report, options)
        self._messages, self._notes = topics.messages, list(topics.notes)
        for topic in {**spec.sensor_topics, **spec.command_topics}:
            if not len(self._messages[topic]):
                raise DataError(f"{path}: topic {topic}: expected messages, found none")
        self._gap_ns = max(SHORTEST_GAP_NS, GAP_PERIODS * spec.period_ns)
        self._max_ages = max_ages_ns(spec)
        pause = 2 * max(self._gap_ns, *self._max_ages.values())
        self._tracks = dict(zip(self._messages, common_clock(list(self._messages.values()), pause), strict=True))
        self._check_rate()
        self._note_clocks()
        for messages in self._messages.values():
            release(messages.logged, messages.stamped, messages.arrival)
        self._labels = list(self._usable_labels(cost, reward))
        if not spec.computes_reward and not any(label.name == "reward" for label in self._labels):
            raise DataError(f"{path}: topic {spec.reward.topic.topic}: expected messages with the reward, found none")

    def _requests(self, needs_cost: bool) -> list[TopicRequest]:
        spec = self._spec
        requests = [TopicRequest(s.topic, s.type, (s.field,)) for s in spec.source_signals()]
        requests += [TopicRequest(c.topic, c.type, (c.field,)) for c in spec.action]
        more = (
            (spec.episode.marker, False), (spec.reward.topic, not spec.computes_reward), (spec.cost.logged, needs_cost)
        )  # fmt: skip
        requests += [TopicRequest(s.topic, s.type, (s.field,), required) for s, required in more if s is not None]
        return requests

    def _usable_labels(self, cost: LabelSource, reward: LabelSource) -> list[_Label]:
        spec = self._spec
        found = []
        for name, source, trusted in (
            ("reward", spec.reward.topic, reward == "logged"), ("cost", spec.cost.logged, cost != "recomputed")
        ):  # fmt: skip
            needed = trusted and (name == "reward" or cost == "logged")
            there = source is not None and len(self._messages.get(source.topic, ()))
            if there or (needed and name == "cost"):
                found.append(_Label(name, source, trusted, needed))
        return found

    def _check_rate(self) -> None:
        """Compare the rate of the commands with the description's: with more of them, costs add up to more."""
        topic = self._spec.action[0].topic
        gaps = np.diff(self._tracks[topic].time)
        gaps = gaps[gaps <= self._gap_ns]
        if len(gaps) < FEWEST_GAPS:
            return
        gap, period = max(float(np.median(gaps)), 1.0), float(self._spec.period_ns)
        ratio = max(gap, period) / min(gap, period)
        found = f"{1e9 / gap:.3g} Hz (the median gap is {gap / 1e6:.4g} ms)"
        if ratio > RATE_REFUSED:
            if not np.any(self._messages[topic].stamped > 0):
                found += " by their recording times (of a simulation, record them in its own time: --use-sim-time)"
            raise DataError(
                f"{self._path}: topic {topic}: expected commands at {self._spec.rate_hz:g} Hz, the description's "
                f"rate_hz, found {found}; one command is one step: set rate_hz to the rate of the commands, or name "
                f"the topic of those that are sent at {self._spec.rate_hz:g} Hz"
            )
        if ratio > RATE_NOTED:
            self._notes.append(f"topic {topic}: commands at {found}, the description says {self._spec.rate_hz:g} Hz")

    def _note_clocks(self) -> None:
        """Say by which clocks messages were put in order."""
        plain = [topic for topic, messages in self._messages.items() if not np.all(messages.stamped > 0)]
        if plain:
            self._notes.append(f"placed by their recording time, as they have no header stamp: {', '.join(plain)}")
        if any(other_clock(messages.logged, messages.stamped) for messages in self._messages.values()):
            self._notes.append("recorded by another clock than that of the header stamps")
        jumps = clock_jumps(list(self._messages.values()))
        if len(jumps):
            self._notes.append(f"the clock was set back ({len(jumps)} places where a topic shows it); cut there")
        for topic, messages in self._messages.items():
            stamped = messages.stamped > 0
            back = np.diff(messages.stamped[stamped]) < 0
            late = int((back & ~np.isin(messages.arrival[stamped][1:], jumps)).sum())
            if late:
                self._notes.append(f"topic {topic}: {late} messages out of order, put in order by their stamps")

    def part(self) -> BagPart:
        """Return transitions and bookkeeping."""
        commands = self._tracks[self._spec.action[0].topic]
        episode, spans, names = self._episodes(commands)
        return self._assemble(self._ticks(commands, episode, spans), names, commands.said)

    def _ticks(self, commands: Track, episode: np.ndarray, spans: np.ndarray) -> Ticks:
        spec = self._spec
        return align(
            commands,
            [(self._tracks[topic], self._max_ages[topic]) for topic in spec.sensor_topics],
            [self._tracks[label.source.topic] for label in self._labels],
            episode,
            spans,
            period_ns=spec.period_ns,
            gap_ns=self._gap_ns,
            max_steps=spec.episode.max_steps,
            needed=[label.needed for label in self._labels],
        )

    def _assemble(self, ticks: Ticks, names: list[str], sent: np.ndarray) -> BagPart:
        """Compute all steps, some at a time; leave out those with values that are not finite, and name episodes.

        sent: when each command was sent [ns], as its clock said it.
        """
        count = len(ticks.command)
        rows: dict[str, np.ndarray] = {}
        for begin in range(0, count, ROWS_AT_ONCE):
            part = slice(begin, min(begin + ROWS_AT_ONCE, count))
            for name, values in self._steps(ticks, part).items():
                if name not in rows:
                    rows[name] = np.empty((count, *values.shape[1:]), values.dtype)
                rows[name][part] = values
            for messages in self._messages.values():
                release(*messages.columns.values())
        finite = rows.pop("finite", np.zeros(0, bool))
        if not finite.any():
            raise DataError(
                f"{self._path}: expected at least one complete step of an episode (its marker, fresh and finite "
                f"sensors, a command, newer sensors, labels), found none among {len(sent)} commands"
            )
        ends = (ticks.ends | rows["terminated"] | ~np.append(finite[1:], False))[finite]
        if not finite.all():
            for name in rows:  # one after the other: both versions of all of them may not fit into memory
                rows[name] = rows[name][finite]
        checks = [
            compare_labels(label.name, rows.pop(f" {label.name}"), rows.pop(f" own {label.name}"), ends)
            for label in self._labels
            if f" own {label.name}" in rows
        ]
        sensor_costs = rows.pop("sensor_costs")
        data = Transitions(**rows, episode_ends=ends)
        episode = ticks.episode[finite][ends]
        piece = np.arange(len(episode)) - np.searchsorted(episode, episode)
        titles = [names[e] if p == 0 else f"{names[e]}#{p + 1}" for e, p in zip(episode, piece, strict=True)]
        at = sent[ticks.command[finite]]
        begins = data.episode_bounds[:-1]
        times = tuple(zip(at[begins].tolist(), at[ends].tolist(), strict=True))
        return BagPart(data, tuple(titles), len(sent), sensor_costs, tuple(checks), tuple(self._notes), times)

    def _steps(self, ticks: Ticks, part: slice) -> dict[str, np.ndarray]:
        """Return the arrays of some ticks; " cost" is a label and " own cost" what the sensors say."""
        spec, count = self._spec, part.stop - part.start
        measured, state = self._physical([index[part] for index in ticks.state])
        _, following = self._physical([index[part] for index in ticks.next_state])
        command = self._command(ticks.command[part])
        own = {"cost": spec.step_cost(following, state, command)}
        if spec.computes_reward:
            own["reward"] = spec.step_reward(following, state, command)
        own = {name: np.broadcast_to(np.asarray(values, np.float64), count) for name, values in own.items()}
        used, rows = dict(own), {}
        for label, index in zip(self._labels, ticks.labels, strict=True):
            said = self._values(label.source, np.maximum(index[part], 0)).astype(np.float64)
            said = np.where(index[part] >= 0, said, np.nan)
            if label.trusted:
                used[label.name] = said if label.needed else np.where(np.isnan(said), own[label.name], said)
            if label.name in own:
                rows |= {f" {label.name}": said, f" own {label.name}": own[label.name]}
        rows |= {
            "observations": spec.observe(state),
            "actions": spec.normalise_action(command),
            "next_observations": spec.observe(following),
            "terminated": np.broadcast_to(np.asarray(spec.ends(following), bool), count),
        }
        with np.errstate(over="ignore"):  # what is too large is not finite, and left out below
            named = {"rewards": used["reward"], "costs": used["cost"], "sensor_costs": own["cost"]}
            rows |= {name: values.astype(np.float32) for name, values in named.items()}
        finite = np.ones(count, bool)
        # What is measured is looked at before a feature's clip, which would hide an infinite value.
        for values in (*(scope[name] for scope in (state, following) for name in measured), *command.values()):
            finite &= np.isfinite(values)
        for name in ("observations", "actions", "rewards", "costs", "next_observations"):
            finite &= np.isfinite(rows[name]).reshape(count, -1).all(axis=1)
        return {**rows, "finite": finite}

    def _episodes(self, commands: Track) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return per command its episode, the spans of the episodes, and their names."""
        marker = self._spec.episode.marker
        if marker is not None and len(self._messages.get(marker.topic, ())):
            track = self._tracks[marker.topic]
            column = self._messages[marker.topic].columns[marker.field]
            values = [str(column[index]) for index in track.order]
            names = [value for i, value in enumerate(values) if i == 0 or value != values[i - 1]]
            return *episodes_by_marker(commands, track, values), names
        if marker is not None:
            self._notes.append(f"no episode markers on topic {marker.topic}: pauses and max_steps separate episodes")
        episode, spans = episodes_by_gap(commands, self._gap_ns, self._spec.episode.max_steps)
        return episode, spans, [f"part_{number}" for number in range(len(spans))]

    def _values(self, source: FieldSource | Signal | ActionChannel, index: np.ndarray) -> np.ndarray:
        """Return the numbers in a field for indices into its topic's track."""
        column = self._messages[source.topic].columns[source.field]
        if not isinstance(column, np.ndarray):
            where = f"{self._path}: topic {source.topic}: {source.field}"
            raise DataError(f"{where}: expected numbers, found {column[0]!r}")
        return column[self._tracks[source.topic].order[index]]

    def _physical(self, indices: Sequence[np.ndarray]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        """Return what was measured, and all signals, for indices into the tracks of the sensor topics."""
        by_topic = dict(zip(self._spec.sensor_topics, indices, strict=True))
        columns = {s.name: self._values(s, by_topic[s.topic]) for s in self._spec.source_signals()}
        try:
            return physical_of_columns(self._spec, columns)
        except DataError as error:
            raise DataError(f"{self._path}: topic {error}") from error

    def _command(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the commands of ticks, given as indices into the first command topic: channel -> (K,) command units.

        Other command topics speak in the same tick, maybe a little later, or their last command holds for as long as
        an episode goes on without one; NaN where there is none.
        """
        first = self._spec.action[0].topic
        now = self._tracks[first].time[index]
        command = {}
        for channel in self._spec.action:
            rows, sent = index, np.ones(len(index), bool)
            if channel.topic != first:
                times = self._tracks[channel.topic].time
                rows = np.searchsorted(times, now + self._spec.period_ns // 2, side="right") - 1
                sent, rows = rows >= 0, np.maximum(rows, 0)
                sent &= now - times[rows] <= self._gap_ns
            values = self._values(channel, rows).astype(np.float64)
            if values.ndim != 1:
                where = f"{self._path}: topic {channel.topic}: {channel.field}"
                raise DataError(f"{where}: expected one number, found {values.shape[1]}")
            command[channel.name] = np.where(sent, values, np.nan)
        return command
