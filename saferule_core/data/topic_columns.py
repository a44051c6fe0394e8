"""One topic's messages become columns: in bulk where the layout allows, by `rosbags` for the rest.

columns = TopicColumns(request, folder)
columns.add(block, rows, types, first_arrival)          # for every block of the bag
messages = columns.finish()
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

from saferule_core.data.cdr_layout import Layout
from saferule_core.data.column_store import Column, ColumnFolder
from saferule_core.data.columns import raw_value_getter
from saferule_core.data.storage import Block
from saferule_core.errors import DataError
from saferule_core.fields import FieldPath

# What rosbags raises on messages that are not what their type says, as found by damaging them at random places.
DECODING = (
    SerdeError, struct.error, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    AssertionError, OverflowError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class TopicRequest:
    """Fields of a topic to read. A topic that is not required may be missing from the bag."""

    topic: str
    type: str
    fields: tuple[str, ...]
    required: bool = True


@dataclass
class Messages:
    """N messages of a topic in the order of arrival.

    logged: (N,) int64, when each was recorded [ns]. stamped: (N,) int64, its header's stamp [ns], 0 where it has none.
    arrival: (N,) int64, its place among all messages that were read from the bag.
    columns: field path -> values, an array (N,) or (N, k) of numbers, or a list of texts.
    """

    logged: np.ndarray
    stamped: np.ndarray
    arrival: np.ndarray
    columns: dict[str, Any]

    def __len__(self) -> int:
        return len(self.logged)


class TopicColumns:
    """Gathers the messages of one topic while a bag is read."""

    def __init__(self, request: TopicRequest, folder: ColumnFolder) -> None:
        self._request, self._folder = request, folder
        self._layouts: dict[int, tuple[Typestore, Layout]] = {}
        self._times = {name: folder.column(name, np.dtype("<i8")) for name in ("logged", "stamped", "arrival")}
        self._columns: dict[str, Column] = {}
        self._tables: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return self._times["logged"].length

    def add(self, block: Block, rows: np.ndarray, types: Typestore, first_arrival: int) -> None:
        """Take the messages `rows` of a block. The block's first message is number `first_arrival` of the bag.

        Raises:
            SpecError: the type lacks a field that is asked for.
            DataError: a message is not what its type says.
        """
        layout = self._layout(types)
        start, size = block.start[rows], block.size[rows]
        good, stamped, columns = layout.decode(block.data, start, size)
        if not good.all():
            columns = self._repair(block, start, size, types, good, stamped, columns)
        self._times["logged"].append(block.logged[rows])
        self._times["stamped"].append(stamped)
        self._times["arrival"].append(first_arrival + rows)
        for name, (dtype, _) in layout.columns.items():
            values = columns[name]
            if dtype is None:
                table = self._tables.setdefault(name, {})
                values = np.array([table.setdefault(text, len(table)) for text in values], np.int32)
                dtype = np.dtype("<i4")
            if name not in self._columns:
                self._columns[name] = self._folder.column(name, dtype)
            self._columns[name].append(values)

    def finish(self) -> Messages:
        """Return what was gathered."""
        columns: dict[str, Any] = {name: column.finish() for name, column in self._columns.items()}
        for name, table in self._tables.items():
            texts = list(table)
            columns[name] = [texts[code] for code in columns[name]]
        return Messages(**{name: column.finish() for name, column in self._times.items()}, columns=columns)

    def _layout(self, types: Typestore) -> Layout:
        if id(types) not in self._layouts:
            self._layouts[id(types)] = (types, Layout(types, self._request.type, self._request.fields))
        return self._layouts[id(types)][1]

    def _repair(
        self, block: Block, start: np.ndarray, size: np.ndarray, types: Typestore,
        good: np.ndarray, stamped: np.ndarray, columns: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        """Decode the messages that are not `good` one by one; complete `stamped` and return completed columns."""
        layout, kind = self._layout(types), self._request.type
        odd = np.flatnonzero(~good)
        getters: list | None = None
        values: list[list[Any]] = [[] for _ in layout.columns]
        stamp = attrgetter(f"{layout.stamp}.sec", f"{layout.stamp}.nanosec") if layout.stamp else lambda _: (0, 0)
        for row in odd:
            data = block.data[start[row] : start[row] + size[row]].tobytes()
            try:
                message = types.deserialize_cdr(data, kind)
                if getters is None:
                    getters = [raw_value_getter(FieldPath.parse(path), message) for path in layout.columns]
                seconds, nanoseconds = stamp(message)
                stamped[row] = seconds * 1_000_000_000 + nanoseconds
                for getter, found in zip(getters, values, strict=True):
                    found.append(getter(message))
            except DECODING as error:
                reason = str(error).strip() or type(error).__name__
                number = len(self) + int(row)
                raise DataError(
                    f"message {number}: expected a {kind} of {len(data)} bytes, found it damaged: {reason}"
                ) from error
        done = {}
        for (name, (dtype, _)), found in zip(layout.columns.items(), values, strict=True):
            done[name] = _merged(name, dtype, columns[name], good, odd, found)
        return done


def _merged(
    name: str, dtype: np.dtype | None, bulk: Any, good: np.ndarray, odd: np.ndarray, found: Sequence[Any]
) -> Any:
    """Return the values of a column, `found` in the rows `odd` and `bulk` in the others."""
    if dtype is None:
        texts = list(bulk) if bulk is not None else [""] * len(good)
        for row, text in zip(odd, found, strict=True):
            texts[row] = text
        return texts
    try:
        late = np.array(found, dtype)
    except ValueError as error:
        raise DataError(f"{name}: expected the same number of values in every message, found others") from error
    if not good.any():
        return late
    if late.shape[1:] != bulk.shape[1:]:
        raise DataError(
            f"{name}: expected {bulk.shape[1] if bulk.ndim == 2 else 1} values in every message, "
            f"found {late.shape[1] if late.ndim == 2 else 1}"
        )
    bulk[odd] = late
    return bulk
