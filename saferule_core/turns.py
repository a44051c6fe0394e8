"""One at a time, in the order of arrival; so and so many may wait, others are turned away.

    turns = Turns(waiting=2)
    turn = turns.join()                 # None: too many wait already
    turn.ahead                          # how many come first; 0: it is this one's turn
    turn.leave()                        # when it is done, or does not want to wait any longer
"""

from __future__ import annotations

import threading


class Turn:
    """A place in the line."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    @property
    def ahead(self) -> int:
        """How many are before this one."""
        return self._turns.ahead(self)

    def leave(self) -> None:
        """Give up the place; the next one moves up. A second call does nothing."""
        self._turns.leave(self)


class Turns:
    """A line of which the first is served. waiting: how many may stand behind it."""

    def __init__(self, waiting: int = 0) -> None:
        self._most = 1 + waiting
        self._line: list[Turn] = []
        self._lock = threading.Lock()

    def join(self) -> Turn | None:
        """Return a place at the end, or None where the line is full."""
        with self._lock:
            if len(self._line) >= self._most:
                return None
            self._line.append(Turn(self))
            return self._line[-1]

    def ahead(self, turn: Turn) -> int:
        """Return how many are before `turn`; 0 for one that has left."""
        with self._lock:
            return self._line.index(turn) if turn in self._line else 0

    def leave(self, turn: Turn) -> None:
        """Take `turn` out of the line."""
        with self._lock:
            if turn in self._line:
                self._line.remove(turn)
