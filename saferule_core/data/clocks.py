"""One clock for all messages of a recording.

    tracks = common_clock([odometry, commands, rewards])       # one order over all messages
    tracks[1].time, tracks[1].rank

A message counts from its header's stamp, or else from when it was recorded. Where clocks differ recording times are
translated, and where a clock was set back the recording goes on after a long pause, so that time never goes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saferule_core.data.topic_columns import Messages
from saferule_core.errors import DataError
from saferule_core.freshness import LONGEST_AGE_NS, jumped_back

CLOCKS_AGREE_NS = 1_000_000_000
"""Header stamps and recording times that are closer than this are taken to be of the same clock."""

FAR_FUTURE_NS = np.iinfo(np.int64).max // 2

MOST_JUMPS = 1000


@dataclass(frozen=True)
class Track:
    """When the messages of a topic happened: (N,) int64 each, time and rank ascending.

    time: header stamp, or recording time [ns]; after a clock was set back, moved to after what came before.
    rank: place in the order of all messages by time, then by recording time and arrival.
    order: (N,) which message, in order of arrival, each entry is.
    said: `time` as the clock itself said it, not moved.
    """

    time: np.ndarray
    rank: np.ndarray
    order: np.ndarray
    said: np.ndarray


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
        said = time.copy()
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
            said[rows], time[rows] = moved, moved + shift
    else:
        said = time = _translated(time, logged, stamped, arrival)
    rank = np.empty(len(time), np.int64)
    rank[np.lexsort((arrival, logged, time))] = np.arange(len(time))
    tracks, start = [], 0
    for messages in recorded:
        part = slice(start, start + len(messages))
        order = np.argsort(rank[part], kind="stable")
        ordered = time[part][order]
        tracks.append(Track(ordered, rank[part][order], order, ordered if said is time else said[part][order]))
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
