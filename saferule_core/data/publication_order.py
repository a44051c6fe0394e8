"""Put messages in the order in which they were published, and date them by a simulated clock.

    order = PublicationOrder()
    order.add(published_ns, "odom", data)
    for time_ns, topic, data in order.tick(published_ns, clock_ns): ...      # each time /clock is heard
    for time_ns, topic, data in order.rest(): ...

A recorder that runs behind for a moment hears the topics in any order, and the clock late or early relative to them.
In simulation, faster than real time, that would date a reward by a wrong control period. When each message was
published, by the machine's clock, tells where it belongs: at the last tick of the simulated clock before it.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections import deque
from collections.abc import Iterator

Dated = tuple[int, str, bytes]

TICKS_KEPT = 1000
HELD_MOST = 5000


class PublicationOrder:
    """Holds messages until the next tick of the clock shows that what was published before them is there.

    Times are nanoseconds; `published` is by the machine's clock. Not thread-safe.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, int, str, bytes]] = []
        self._number = itertools.count()
        self._published: deque[int] = deque(maxlen=TICKS_KEPT)
        self._times: deque[int] = deque(maxlen=TICKS_KEPT)

    @property
    def held(self) -> int:
        """How many messages wait for the next tick."""
        return len(self._held)

    def add(self, published_ns: int, topic: str, data: bytes) -> None:
        """Take a message. Before the first tick, and while the clock stands still, only the newest are held."""
        heapq.heappush(self._held, (published_ns, next(self._number), topic, data))
        if len(self._held) > HELD_MOST:
            heapq.heappop(self._held)

    def tick(self, published_ns: int, time_ns: int) -> list[Dated]:
        """Take a tick of the clock to `time_ns`; return what was published before it, in order."""
        ready = list(self._take(published_ns))
        self._published.append(published_ns)
        self._times.append(time_ns)
        return ready

    def rest(self) -> list[Dated]:
        """Return everything that is still held, in order; nothing before the first tick, as it has no date."""
        return list(self._take(None))

    def _take(self, before_ns: int | None) -> Iterator[Dated]:
        while self._published and self._held and (before_ns is None or self._held[0][0] < before_ns):
            published_ns, _, topic, data = heapq.heappop(self._held)
            yield self._time_of(published_ns), topic, data

    def _time_of(self, published_ns: int) -> int:
        return self._times[max(0, bisect.bisect_right(self._published, published_ns) - 1)]
