"""Keep the last seconds in memory, and write them to disk when they are asked for: a flight recorder's ring.

    ring = RingRecording(Recording(...), RingBuffer(max_seconds=30.0, max_bytes=2**26, latched=frozenset({"/episode"})))
    ring.write("odom", data, stamp_ns)            # nothing is written to disk
    ring.snapshot()                               # [Path("logs/<time>/bag_000")]: what led here; then the ring is empty

As the snapshot mode of rosbag2 does, with one thing more: what a late reader has to know (the running episode, a
latched stop) is written first, however long ago it was said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from saferule_core.data.recording import Recording

SLICE = 1000
"""Messages that are written at once: some 10 ms, in which no other message is taken."""


class RingBuffer:
    """Serialized messages of the last `max_seconds`, at most `max_bytes` of them; whichever is less.

    Attributes:
        size: bytes that are held.

    Args:
        max_seconds, max_bytes: 0 means no limit. latched: topics whose last message is kept when it leaves the ring.
    """

    def __init__(self, max_seconds: float, max_bytes: int, latched: frozenset[str] = frozenset()) -> None:
        self._max_ns, self._max_bytes, self._latched = round(1e9 * max_seconds), max_bytes, latched
        self._messages: deque[tuple[int, str, bytes]] = deque()
        self._said: dict[str, bytes] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, topic: str, data: bytes, stamp_ns: int) -> None:
        """Take a message of time `stamp_ns` [ns] and let go what is too old or too much."""
        self._messages.append((stamp_ns, topic, data))
        self.size += len(data)
        while len(self._messages) > 1 and (
            (self._max_ns and abs(stamp_ns - self._messages[0][0]) > self._max_ns)
            or (self._max_bytes and self.size > self._max_bytes)
        ):
            self._let_go()

    def take(self) -> list[tuple[str, bytes, int]]:
        """Return (topic, data, stamp [ns]) in the order of arrival, what is latched first, and empty the ring."""
        if not self._messages:
            return []
        first_ns = self._messages[0][0]
        taken = [(topic, data, first_ns) for topic, data in self._said.items()]
        while self._messages:
            stamp_ns, topic, data = self._let_go()
            taken.append((topic, data, stamp_ns))
        return taken

    def _let_go(self) -> tuple[int, str, bytes]:
        message = self._messages.popleft()
        _, topic, data = message
        self.size -= len(data)
        if topic in self._latched:
            self._said[topic] = data
        return message


class RingRecording:
    """A `Recording` that is written only by snapshots; the same methods."""

    def __init__(self, recording: Recording, ring: RingBuffer) -> None:
        self._recording, self._ring = recording, ring
        self.folder = recording.folder
        self.messages = 0

    def write(self, topic: str, data: bytes, stamp_ns: int) -> None:
        """Keep a message for a while."""
        self._ring.add(topic, data, stamp_ns)
        self.messages += 1

    def policy(self, policy_id: str, stamp_ns: int) -> None:
        """See `Recording.policy`."""
        self._recording.policy(policy_id, stamp_ns)

    def flush(self) -> None:
        """See `Recording.flush`."""
        self._recording.flush()

    def pour(self) -> Iterator[None]:
        """Empty the ring and write what it held, a slice per step; messages may come in between. Raises DataError."""
        for number, (topic, data, stamp_ns) in enumerate(self._ring.take(), start=1):
            self._recording.write(topic, data, stamp_ns)
            if number % SLICE == 0:
                yield

    def snapshot(self) -> list[Path]:
        """Write what the ring holds into bags, empty it, and return their folders; raises DataError."""
        for _ in self.pour():
            pass
        return self._recording.snapshot()

    def close(self) -> None:
        """Complete the recording; what the ring holds is dropped. Raises DataError."""
        self._recording.close()
