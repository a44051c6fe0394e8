"""What a bag holds, topic by topic: how many messages, how often, and the longest silence.

    for topic in topic_summaries("logs/day_1"):
        print(topic.name, topic.type, topic.messages, topic.rate_hz, topic.longest_gap_s)

Read from recording times, without looking into any message.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import Reader, ReaderError

from saferule_core.errors import DataError


@dataclass(frozen=True)
class TopicSummary:
    """One topic of a bag. rate_hz: median, 0 for fewer than two messages. longest_gap_s: between two messages [s]."""

    name: str
    type: str
    messages: int
    rate_hz: float
    longest_gap_s: float


def topic_summaries(path: str | Path) -> tuple[TopicSummary, ...]:
    """Return the topics of a bag in alphabetical order.

    Raises:
        DataError: there is no bag, or it is damaged.
    """
    times: dict[tuple[str, str], list[int]] = {}
    try:
        with Reader(Path(path)) as reader:
            for connection in reader.connections:
                times.setdefault((connection.topic, connection.msgtype), [])
            for connection, time, _ in reader.messages():
                times[connection.topic, connection.msgtype].append(time)
    except (ReaderError, OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: expected a rosbag2 bag, found: {error}") from error
    return tuple(_summary(name, kind, np.array(stamps, np.int64)) for (name, kind), stamps in sorted(times.items()))


def _summary(name: str, kind: str, times: np.ndarray) -> TopicSummary:
    gaps = np.diff(np.sort(times)) / 1e9
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    return TopicSummary(name, kind, len(times), 1.0 / usual if usual > 0.0 else 0.0, float(gaps.max(initial=0.0)))
