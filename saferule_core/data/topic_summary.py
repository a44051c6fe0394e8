"""What a bag holds, topic by topic: how many messages, how often, and the longest silence.

    for topic in topic_summaries("logs/day_1"):
        print(topic.name, topic.type, topic.messages, topic.rate_hz, topic.longest_gap_s)

Read from recording times, without looking into any message.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saferule_core.data.bag_files import damaged, find_bag, opened
from saferule_core.data.reading import USUAL, ReadOptions
from saferule_core.data.storage import Damaged


@dataclass(frozen=True)
class TopicSummary:
    """One topic of a bag. rate_hz: median, 0 for fewer than two messages. longest_gap_s: between two messages [s]."""

    name: str
    type: str
    messages: int
    rate_hz: float
    longest_gap_s: float


def topic_summaries(path: str | Path, options: ReadOptions = USUAL) -> tuple[TopicSummary, ...]:
    """Return the topics of a bag in alphabetical order.

    Raises:
        DataError: there is no bag, or it is damaged and `options` do not tolerate that.
    """
    bag, tolerant = find_bag(Path(path), options), options.tolerate_truncated
    times: dict[tuple[str, str], list[np.ndarray]] = {}
    for key in bag.metadata.counts if bag.metadata is not None else ():
        times[key] = []
    for file in bag.files:
        try:
            with opened(file, bag, tolerant) as storage:
                for channel in storage.channels.values():
                    times.setdefault((channel.topic, channel.type), [])
                for block in storage.blocks(storage.channels):
                    for number in np.unique(block.channel).tolist():
                        channel = storage.channels[number]
                        times[channel.topic, channel.type].append(block.logged[block.channel == number])
        except (Damaged, OSError) as error:
            if not tolerant:
                raise damaged(bag.path, error) from error
    return tuple(_summary(name, kind, stamps) for (name, kind), stamps in sorted(times.items()))


def _summary(name: str, kind: str, stamps: list[np.ndarray]) -> TopicSummary:
    times = np.concatenate(stamps) if stamps else np.zeros(0, np.int64)
    gaps = np.diff(np.sort(times)) / 1e9
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    return TopicSummary(name, kind, len(times), 1.0 / usual if usual > 0.0 else 0.0, float(gaps.max(initial=0.0)))
