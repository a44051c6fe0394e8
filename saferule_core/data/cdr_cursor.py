"""Where many serialized messages are being read at once; see `cdr_layout`.

    cursor = Cursor(block.data, block.start, block.size)
    cursor.align(8)
    x = cursor.gather(0, np.dtype("<f8"))          # (N,), one number of each message
    cursor.position += 8

Nothing is read outside of the data, and a message that turns out not to fit is given up, not guessed at.
"""

from __future__ import annotations

import numpy as np


class Cursor:
    """Where N messages are being read, relative to the ends of their encapsulation headers."""

    def __init__(self, data: np.ndarray, start: np.ndarray, size: np.ndarray) -> None:
        self._data, self._base = data, start + 4
        self.limit = size - 4
        self.position = np.zeros(len(start), np.int64)
        self.good = np.ones(len(start), bool)
        self.columns: dict[str, np.ndarray | list[str]] = {}

    def part(self, rows: np.ndarray) -> Cursor:
        """Return a cursor over some of the messages."""
        part = Cursor(self._data, self._base[rows] - 4, self.limit[rows] + 4)
        part.position, part.good = self.position[rows], self.good[rows]
        return part

    def check(self, right: np.ndarray) -> None:
        """Give up on messages where `right` is false; they stand at their beginning from now on."""
        if not right.all():
            self.good &= right
            self.position[~self.good] = 0

    def align(self, size: int) -> None:
        """Go on to the next multiple of `size`, a power of two."""
        if size > 1:
            self.position = (self.position + (size - 1)) & -size

    def gather(self, offset: int, dtype: np.dtype, count: int = 1) -> np.ndarray:
        """Return `count` values at `offset` from here: (N,), or (N, count)."""
        width = dtype.itemsize * count
        if width == 0:
            return np.zeros((len(self.good), 0), dtype)
        last = len(self._data) - width
        if last < 0:
            self.check(np.zeros(len(self.good), bool))
            return np.zeros((len(self.good), count) if count > 1 else len(self.good), dtype)
        at = self._base + self.position + offset
        if not self.good.all():
            at = np.clip(at, 0, last)
        plain = np.dtype("u1") if dtype.kind == "b" else dtype
        kind = plain if count == 1 else np.dtype(f"V{width}")
        values = np.ndarray(last + 1, kind, self._data, strides=(1,))[at]
        values = values if count == 1 else values.view(plain).reshape(len(at), count)
        return values != 0 if dtype.kind == "b" else values

    def count(self) -> np.ndarray:
        """Read a length and go past it: (N,) int64, 0 for messages that are not good."""
        self.check(self.position + 4 <= self.limit)
        count = np.where(self.good, self.gather(0, np.dtype("<u4")).astype(np.int64), 0)
        self.position += 4
        return count

    def bytes_at(self, position: np.ndarray) -> np.ndarray:
        """Return one byte of each message."""
        return self._data[np.clip(self._base + position, 0, len(self._data) - 1)]

    def texts(self, length: np.ndarray) -> list[str]:
        """Return the text of `length` bytes, its final zero included, that begins here in each message."""
        begin = np.where(self.good, self._base + self.position, 0)
        raw, texts = memoryview(np.ascontiguousarray(self._data)), []
        for row, (first, size) in enumerate(zip(begin.tolist(), length.tolist(), strict=True)):
            try:
                texts.append(str(raw[first : first + max(size - 1, 0)], "utf-8") if self.good[row] else "")
            except UnicodeDecodeError:
                self.good[row] = False
                texts.append("")
        self.position[~self.good] = 0
        return texts
