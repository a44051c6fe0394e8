"""From recorded messages to control ticks: which state a command answered, what it led to, how that was labelled.

    clock = common_clock([odometry, commands, rewards])       # one order over all messages
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
from dataclasses import dataclass

import numpy as np

from saferule_core.data.topic_columns import Messages
from saferule_core.errors import DataError
from saferule_core.freshness import LONGEST_AGE_NS, is_fresh, jumped_back

CLOCKS_AGREE_NS = 1_000_000_000
"""Header stamps and recording times that are closer than this are taken to be of the same clock."""

FAR_FUTURE_NS = np.iinfo(np.int64).max // 2

MOST_JUMPS = 1000


@dataclass(frozen=True)
class Track:
    """When the messages of a topic happened: (N,) int64 each, both ascending.

    time: header stamp, or recording time [ns]; after a clock was set back, moved to after what came before.
    rank: place in the order of all messages by time, then by recording time and arrival.
    order: (N,) which message, in order of arrival, each entry is.
    """

    time: np.ndarray
    rank: np.ndarray
    order: np.ndarray


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


def clock_jumps(recorded: Sequence[Messages]) -> np.ndarray:
    """Return the arrivals (J,) of messages at which the clock of their topic was set back, ascending.

    Raises:
        DataError: that happened more often than any recording can explain.
    """
    found: set[int] = set()
    for messages in recorded:
        time = np.where(messages.stamped > 0, messages.stamped, messages.logged)
        begin = 0
        while True:
            newest = np.maximum.accumulate(time[begin:])
            back = np.flatnonzero(jumped_back(time[begin:], newest))
            if not len(back):
                break
            begin += int(back[0])
            found.add(int(messages.arrival[begin]))
            if len(found) > MOST_JUMPS:
                raise DataError(f"expected a clock that is set back at most {MOST_JUMPS} times, found more")
    return np.array(sorted(found), np.int64)


def common_clock(recorded: Sequence[Messages], pause_ns: int = LONGEST_AGE_NS) -> list[Track]:
    """Return one track per topic, with ranks that order the messages of all of them.

    A message counts from its header's stamp, or else from when it was recorded. Where a recording runs on another
    clock than the stamps (a wall clock, while the robot lives in simulation time), recording times are translated.

    Args:
        pause_ns: so long a time is put between what came before and after a clock was set back.

    Raises:
        DataError: the times are too far apart to be real.
    """
    logged = np.concatenate([messages.logged for messages in recorded])
    stamped = np.concatenate([messages.stamped for messages in recorded])
    arrival = np.concatenate([messages.arrival for messages in recorded])
    has_stamp = stamped > 0
    time = np.where(has_stamp, stamped, logged)
    jumps = clock_jumps(recorded)
    if len(jumps):
        segment = np.searchsorted(jumps, arrival, side="right")
        end = None
        for number in range(len(jumps) + 1):
            rows = np.flatnonzero(segment == number)
            if not len(rows):
                continue
            moved = _translated(time[rows], logged[rows], stamped[rows], arrival[rows])
            shift = 0 if end is None else end + pause_ns - int(moved.min())
            end = int(moved.max()) + shift
            if end > FAR_FUTURE_NS:
                raise DataError(f"expected times that a recording can span, found clocks set back by {-shift} ns")
            time[rows] = moved + shift
    else:
        time = _translated(time, logged, stamped, arrival)
    rank = np.empty(len(time), np.int64)
    rank[np.lexsort((arrival, logged, time))] = np.arange(len(time))
    tracks, start = [], 0
    for messages in recorded:
        part = slice(start, start + len(messages))
        order = np.argsort(rank[part], kind="stable")
        tracks.append(Track(time[part][order], rank[part][order], order))
        start += len(messages)
    return tracks


def other_clock(logged: np.ndarray, stamped: np.ndarray) -> bool:
    """Return whether recording times [ns] are of another clock than header stamps [ns] (0: none)."""
    has_stamp = stamped > 0
    return bool(has_stamp.any() and np.abs(logged - stamped)[has_stamp].max() > CLOCKS_AGREE_NS)


def _translated(time: np.ndarray, logged: np.ndarray, stamped: np.ndarray, arrival: np.ndarray) -> np.ndarray:
    """Return `time` (N,) with recording times on the clock of the stamps."""
    has_stamp = stamped > 0
    if has_stamp.all() or not other_clock(logged, stamped):
        return time
    by_arrival = np.flatnonzero(has_stamp)[np.argsort(arrival[has_stamp], kind="stable")]
    known_log = np.maximum.accumulate(logged[by_arrival])
    known_stamp = np.maximum.accumulate(stamped[by_arrival])
    base_log, base_stamp = known_log[0], known_stamp[0]
    translated = np.interp(logged[~has_stamp] - base_log, known_log - base_log, known_stamp - base_stamp)
    moved = time.copy()
    moved[~has_stamp] = base_stamp + np.round(translated).astype(np.int64)
    return moved


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
    same_episode = np.append(episode[1:] == episode[:-1], False)
    follows = same_episode & (np.append(np.diff(commands.time), FAR_FUTURE_NS) <= gap_ns)
    known = episode >= 0
    begin, end = spans[np.maximum(episode, 0)].T
    place = np.arange(count) - np.searchsorted(episode, episode)
    valid = known & (place < max_steps)

    state = [np.searchsorted(track.rank, commands.rank) - 1 for track, _ in sensors]
    fresh = valid.copy()
    for (track, max_age_ns), index in zip(sensors, state, strict=True):
        at = track.time[np.maximum(index, 0)]
        fresh &= (index >= 0) & is_fresh(commands.time, at, max_age_ns) & (at >= begin)

    continues = follows & np.append(fresh[1:], False)
    horizon = np.minimum(commands.time + period_ns + period_ns // 2, end - 1)
    tail = [np.searchsorted(track.time, horizon, side="right") - 1 for track, _ in sensors]
    newer = np.zeros(count, bool)
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
        if needed is None or needed[number]:
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
