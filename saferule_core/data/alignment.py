"""From recorded messages to control ticks: which state a command answered, what it led to, how that was labelled.

    clock = common_clock([odometry, commands, rewards])       # see `clocks`
    ticks = align(clock[1], [(clock[0], max_age_ns)], [clock[2]], *episodes_by_gap(...), ...)

A tick is a command. Its state is the latest of every sensor at or before it, no older than the sensor's maximum age;
the state it led to is that of the next command. After the last command of an episode it is the latest newer one that
a control period can have brought. A command with no newer state after it, with a stale one, or without its labels is
no tick, and an episode is cut there.

Messages of a topic that were recorded out of order are put in order by their stamps. Where a clock was set back, the
recording is cut, and nothing of before is used after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from saferule_core.data.clocks import FAR_FUTURE_NS, Track
from saferule_core.freshness import is_fresh

COMMANDS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Ticks:
    """K ticks of a recording; indices are into the tracks, in time order.

    command: (K,) index of the command. state, next_state: one (K,) array of indices per sensor.
    labels: one (K,) array of indices per label, -1 where one that may be missing is.
    episode: (K,) ascending number of the episode's marker or piece.
    ends: (K,) bool, the next tick does not continue from this one's next state.
    """

    command: np.ndarray
    state: list[np.ndarray]
    next_state: list[np.ndarray]
    labels: list[np.ndarray]
    episode: np.ndarray
    ends: np.ndarray

    def rows(self, chosen: np.ndarray, first: int) -> Ticks:
        """Return some ticks, of commands that are counted from `first` on."""
        return Ticks(
            self.command[chosen] + first,
            [index[chosen] for index in self.state],
            [index[chosen] for index in self.next_state],
            [index[chosen] for index in self.labels],
            self.episode[chosen],
            self.ends[chosen],
        )

    @staticmethod
    def concatenate(parts: Sequence[Ticks]) -> Ticks:
        """Join ticks, in order."""
        if len(parts) == 1:
            return parts[0]

        def joined(lists: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
            return [np.concatenate(arrays) for arrays in zip(*lists, strict=True)]

        return Ticks(
            np.concatenate([part.command for part in parts]),
            joined([part.state for part in parts]),
            joined([part.next_state for part in parts]),
            joined([part.labels for part in parts]),
            np.concatenate([part.episode for part in parts]),
            np.concatenate([part.ends for part in parts]),
        )


def episodes_by_marker(commands: Track, markers: Track, values: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return per command its episode (N,) (-1: before the first marker) and when each may have states (E, 2) [ns].

    A span [begin, end) goes from an episode's marker to the next one's.
    values: what the markers say, in the order of the track. An episode begins where that changes.
    """
    changed = np.array([i == 0 or values[i] != values[i - 1] for i in range(len(values))], dtype=bool)
    begins = np.flatnonzero(changed)
    time = markers.time[begins]
    spans = np.stack([time, np.append(time[1:], FAR_FUTURE_NS)], axis=1)
    return np.searchsorted(markers.rank[begins], commands.rank, side="right") - 1, spans


def episodes_by_gap(commands: Track, gap_ns: int, max_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same as `episodes_by_marker` for a recording without markers: pauses and max_steps separate.

    Nothing says which episode a state belongs to, so their spans have no bounds.
    """
    piece = np.concatenate([[0], np.cumsum(np.diff(commands.time) > gap_ns)])
    first = np.searchsorted(piece, piece)
    place = np.arange(len(piece)) - first
    starts = place % max_steps == 0
    return np.cumsum(starts) - 1, np.tile([-FAR_FUTURE_NS, FAR_FUTURE_NS], (int(starts.sum()), 1))


def align(
    commands: Track,
    sensors: Sequence[tuple[Track, int]],
    labels: Sequence[Track],
    episode: np.ndarray,
    spans: np.ndarray,
    *,
    period_ns: int,
    gap_ns: int,
    max_steps: int,
    needed: Sequence[bool] | None = None,
) -> Ticks:
    """Return the ticks of a recording.

    Args:
        sensors: a track and its maximum age [ns] each.
        labels: tracks of which each tick gets the first message after its command and before the next one.
        episode, spans: from `episodes_by_marker` or `episodes_by_gap`.
        period_ns: control period [ns]; gap_ns: a longer pause between two commands ends an episode.
        max_steps: later commands of an episode are no ticks.
        needed: of each label, whether a command without it is no tick; None means of all.
    """
    count = len(commands.time)
    place = np.arange(count) - np.searchsorted(episode, episode)
    allowed = (episode >= 0) & (place < max_steps)
    bounds = spans[np.maximum(episode, 0)]
    parts = []
    for first in range(0, max(count, 1), COMMANDS_AT_ONCE):
        # Whether a command is a tick depends on the next one, and whether it ends a stretch on the one after that.
        window = slice(first, first + COMMANDS_AT_ONCE + 2)
        here = Track(*(getattr(commands, field.name)[window] for field in fields(Track)))
        part = _align(
            here, sensors, labels, episode[window], bounds[window], allowed[window], period_ns, gap_ns,
            needed or [True] * len(labels),
        )  # fmt: skip
        inside = part.command < COMMANDS_AT_ONCE
        parts.append(part.rows(inside, first))
    return Ticks.concatenate(parts)


def _align(
    commands: Track,
    sensors: Sequence[tuple[Track, int]],
    labels: Sequence[Track],
    episode: np.ndarray,
    bounds: np.ndarray,
    allowed: np.ndarray,
    period_ns: int,
    gap_ns: int,
    needed: Sequence[bool],
) -> Ticks:
    """Return the ticks of a stretch of commands; bounds: (N, 2), span of each command's episode."""
    same_episode = np.append(episode[1:] == episode[:-1], False)
    follows = same_episode & (np.append(np.diff(commands.time), FAR_FUTURE_NS) <= gap_ns)
    begin, end = bounds.T
    state = [np.searchsorted(track.rank, commands.rank) - 1 for track, _ in sensors]
    fresh = allowed.copy()
    for (track, max_age_ns), index in zip(sensors, state, strict=True):
        at = track.time[np.maximum(index, 0)]
        fresh &= (index >= 0) & is_fresh(commands.time, at, max_age_ns) & (at >= begin)

    continues = follows & np.append(fresh[1:], False)
    horizon = np.minimum(commands.time + period_ns + period_ns // 2, end - 1)
    tail = [np.searchsorted(track.time, horizon, side="right") - 1 for track, _ in sensors]
    newer = np.zeros(len(commands.time), bool)
    for index, late in zip(state, tail, strict=True):
        newer |= late > index
    next_state = [
        np.where(continues, np.append(index[1:], 0), np.maximum(late, index))
        for index, late in zip(state, tail, strict=True)
    ]
    valid = fresh & (continues | newer)

    following = np.append(commands.rank[1:], np.iinfo(np.int64).max)
    found = [np.searchsorted(track.rank, commands.rank, side="right") for track in labels]
    for number, track in enumerate(labels):
        index = found[number]
        exists = index < len(track.rank)
        if len(track.rank):
            exists &= track.rank[np.minimum(index, len(track.rank) - 1)] < following
        if needed[number]:
            valid &= exists
        found[number] = np.where(exists, index, -1)

    keep = np.flatnonzero(valid)
    joined = continues & np.append(valid[1:], False)
    return Ticks(
        keep,
        [index[keep] for index in state],
        [index[keep] for index in next_state],
        [index[keep] for index in found],
        episode[keep],
        ~joined[keep],
    )
