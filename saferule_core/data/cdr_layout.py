"""Fields of many serialized (CDR) messages at once, without an object per message.

    layout = Layout(typestore, "nav_msgs/msg/Odometry", ("pose.pose.position.x",))
    good, stamps, columns = layout.decode(block.data, block.start, block.size)       # columns: arrays (N,) or (N, k)

A message type is compiled once into a few steps: stretches of fixed layout, in which the wanted fields have known
places, and strings and sequences between them, whose lengths are read from each message. A step is done for all
messages together. Every length is checked against the message's own size, and what is not as expected (another byte
order, a length that does not fit, a type with wide strings) is marked as not good: `rosbags` decodes or refuses that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

from saferule_core.data.cdr_cursor import Cursor
from saferule_core.data.message_types import part_of
from saferule_core.errors import DataError, SpecError
from saferule_core.fields import FieldPath

_SIZES = {"bool": 1, "byte": 1, "char": 1, "octet": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4,
          "uint32": 4, "int64": 8, "uint64": 8, "float32": 4, "float64": 8}  # fmt: skip
_DTYPES = {name: np.dtype({"bool": "?", "byte": "i1", "char": "u1", "octet": "u1"}.get(name, name)).newbyteorder("<")
           for name in _SIZES}  # fmt: skip
MOST_ITEMS = 4096
"""Messages with more texts or messages in sequences than this are left to rosbags."""
QUATERNION = ("x", "y", "z", "w")
TRAILING = 3
"""Bytes that may follow a message: some middleware pads to four."""


class _NoLayout(Exception):
    """A type has parts that are not decoded in bulk."""


@dataclass(frozen=True)
class _Take:
    """Read `count` values of `dtype` at `offset` of a stretch into place `slot` of a column."""

    column: str
    slot: int
    offset: int
    dtype: np.dtype
    count: int


@dataclass
class _Stretch:
    """Align, then `size` bytes of fixed layout."""

    align: int
    takes: list[_Take]
    size: int = 0


@dataclass(frozen=True)
class _Text:
    """A string: its length, its bytes, a zero."""

    column: str | None


@dataclass(frozen=True)
class _Numbers:
    """A sequence of numbers. wanted: column -> (first, how many; None for all)."""

    dtype: np.dtype
    wanted: tuple[tuple[str, int, int | None], ...]


@dataclass(frozen=True)
class _Items:
    """A sequence (`length` None) or array of anything else, each item of `steps`."""

    steps: tuple
    length: int | None


def field_node(types: Typestore, kind: str, names: Sequence[str]) -> tuple:
    """Return the type of a field as `rosbags` describes it.

    Raises:
        SpecError: there is no such field.
    """
    node: tuple = (Nodetype.NAME, kind)
    for name in names:
        fields = dict(types.fielddefs[node[1]][1]) if node[0] == Nodetype.NAME else {}
        if name not in fields:
            raise SpecError(f"{kind}: expected a field {'.'.join(names)!r}, found none")
        node = fields[name]
    return node


def check_defined(types: Typestore, kind: str) -> None:
    """Raise DataError where a type that messages of `kind` are made of is not defined."""
    known, waiting = set(), [kind]
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        if name not in types.fielddefs:
            raise DataError(f"{kind}: expected a definition of its part {name}, found none; give it as message types")
        known.add(name)
        waiting += [part for _, node in types.fielddefs[name][1] if (part := part_of(node)) is not None]


def stamp_path(types: Typestore, kind: str) -> str | None:
    """Return where messages of a type carry their time, or None."""
    for path in ("header.stamp", "stamp"):
        try:
            field_node(types, kind, (*path.split("."), "nanosec"))
            field_node(types, kind, (*path.split("."), "sec"))
        except SpecError:
            continue
        return path
    return None


class Layout:
    """How to read some fields from messages of one type.

    columns: field path -> dtype and number of values (None: one number; 0: as many as there are; -1: text).

    Raises:
        SpecError: the type has no such field, or one is no number, text, sequence of numbers or quaternion.
        DataError: the type has a part whose definition is missing.
    """

    def __init__(self, types: Typestore, kind: str, fields: Sequence[str]) -> None:
        self._types = types
        check_defined(types, kind)
        self.columns: dict[str, tuple[np.dtype | None, int | None]] = {}
        self._wanted: dict[tuple[str, ...], list[tuple[str, FieldPath, int | None]]] = {}
        for text in fields:
            self._want(kind, text)
        self.stamp = stamp_path(types, kind)
        if self.stamp is not None:
            for name in ("sec", "nanosec"):
                self._wanted.setdefault((*self.stamp.split("."), name), []).append((f" {name}", FieldPath(name, ()), 0))
        self._steps: list | None = []
        self._known = 8
        try:
            self._message(kind, ())
        except (_NoLayout, RecursionError):
            self._steps = None

    # -- compiling -------------------------------------------------------------------------------------------------

    def _want(self, kind: str, text: str) -> None:
        path = FieldPath.parse(text)
        node, detail = field_node(self._types, kind, path.names)
        if node == Nodetype.NAME and path.start is None:
            parts = dict(self._types.fielddefs[detail][1])
            if all(axis in parts and parts[axis][0] == Nodetype.BASE for axis in QUATERNION):
                kinds = {parts[axis][1][0] for axis in QUATERNION}
                if len(kinds) == 1 and kinds <= set(_DTYPES):
                    self.columns[text] = (_DTYPES[kinds.pop()], 4)
                    for slot, axis in enumerate(QUATERNION):
                        self._wanted.setdefault((*path.names, axis), []).append((text, path, slot))
                    return
        sequence = node in (Nodetype.ARRAY, Nodetype.SEQUENCE)
        base = detail if node == Nodetype.BASE else detail[0][1] if sequence else None
        name = base[0] if isinstance(base, tuple) else None
        if node == Nodetype.BASE and path.start is not None:
            raise SpecError(f"{kind}: {text}: expected a sequence, found {name}")
        if node == Nodetype.BASE and name == "string":
            self.columns[text] = (None, -1)
        elif name in _DTYPES and (node == Nodetype.BASE or detail[0][0] == Nodetype.BASE):
            width = None if node == Nodetype.BASE or (path.start is not None and path.stop is None) else path.size
            if node != Nodetype.BASE and path.start is None:
                width = detail[1] if node == Nodetype.ARRAY else 0
            self.columns[text] = (_DTYPES[name], width)
        else:
            raise SpecError(f"{kind}: {text}: expected numbers, text or a quaternion, found {name or detail}")
        self._wanted.setdefault(path.names, []).append((text, path, None))

    def _stretch(self, size: int) -> _Stretch:
        """Return a stretch whose end is aligned to `size` bytes at run time, and move its end there."""
        last = self._steps[-1] if self._steps and isinstance(self._steps[-1], _Stretch) else None
        if last is None or self._known < size:
            last = _Stretch(size, [])
            self._steps.append(last)
            self._known = size if len(self._steps) > 1 else 8
        last.size = -(-last.size // size) * size
        return last

    def _message(self, kind: str, prefix: tuple[str, ...]) -> None:
        for name, (node, detail) in self._types.fielddefs[kind][1]:
            self._field(node, detail, (*prefix, name))

    def _field(self, node: Nodetype, detail: object, names: tuple[str, ...]) -> None:
        if node == Nodetype.NAME:
            self._message(detail, names)
        elif node == Nodetype.BASE and detail[0] == "string":
            columns = [column for column, _, _ in self._wanted.get(names, ())]
            self._text(columns[0] if columns else None)
        elif node == Nodetype.BASE:
            self._numbers(self._dtype(detail[0]), 1, names)
        elif node == Nodetype.ARRAY and detail[0][0] == Nodetype.BASE and detail[0][1][0] != "string":
            self._numbers(self._dtype(detail[0][1][0]), detail[1], names)
        elif node == Nodetype.SEQUENCE and detail[0][0] == Nodetype.BASE and detail[0][1][0] != "string":
            dtype = self._dtype(detail[0][1][0])
            self._stretch(4)
            wanted = tuple(
                (column, path.start or 0, None if path.start is None else path.size)
                for column, path, _ in self._wanted.get(names, ())
            )
            self._steps.append(_Numbers(dtype, wanted))
            self._known = min(4, dtype.itemsize)
        else:
            self._items(detail[0], detail[1] if node == Nodetype.ARRAY else None)

    def _dtype(self, name: str) -> np.dtype:
        if name not in _DTYPES:
            raise _NoLayout(name)
        return _DTYPES[name]

    def _text(self, column: str | None) -> None:
        self._stretch(4)
        self._steps.append(_Text(column))
        self._known = 1

    def _numbers(self, dtype: np.dtype, count: int, names: tuple[str, ...]) -> None:
        stretch = self._stretch(dtype.itemsize)
        for column, path, slot in self._wanted.get(names, ()):
            first, size = (path.start or 0), (count if path.start is None else path.size)
            if first + size > count:
                raise SpecError(f"{path.text}: expected {first + size} elements, found {count}")
            stretch.takes.append(_Take(column, slot or 0, stretch.size + first * dtype.itemsize, dtype, size))
        stretch.size += count * dtype.itemsize

    def _items(self, item: tuple, length: int | None) -> None:
        if length is None:
            self._stretch(4)
        outer, self._steps, self._known = self._steps, [_Stretch(1, [])], 1
        self._field(item[0], item[1], ("[]",))
        steps, self._steps = tuple(self._steps), outer
        self._steps.append(_Items(steps, length))
        self._known = 1

    # -- decoding --------------------------------------------------------------------------------------------------

    def decode(
        self, data: np.ndarray, start: np.ndarray, size: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray | list[str]]]:
        """Return which of N messages are good (N,), their stamps (N,) int64 [ns], 0 where there are none, and columns.

        Rows that are not good hold nothing of use. A column of a sequence that is read as a whole has as many values
        as the first message; messages with another number are not good.
        """
        cursor, self._items_left = Cursor(data, start, size), MOST_ITEMS
        if len(start) and len(data) >= 4 and self._steps is not None:
            cursor.check(self._encapsulated(data, start, size))
            self._walk(cursor, self._steps)
            left = cursor.limit - cursor.position
            cursor.check((left >= 0) & (left <= TRAILING))
        else:
            cursor.good[:] = False
        stamps = np.zeros(len(start), np.int64)
        if self.stamp is not None and " sec" in cursor.columns:
            stamps = cursor.columns[" sec"].astype(np.int64) * 1_000_000_000 + cursor.columns[" nanosec"]
        return cursor.good, stamps, {name: cursor.columns.get(name) for name in self.columns}

    @staticmethod
    def _encapsulated(data: np.ndarray, start: np.ndarray, size: np.ndarray) -> np.ndarray:
        at = np.minimum(start, len(data) - 4)
        return (size >= 4) & (data[at] == 0) & (data[at + 1] == 1)

    def _walk(self, cursor: Cursor, steps: Sequence) -> None:
        for step in steps:
            if isinstance(step, _Stretch):
                cursor.align(step.align)
                cursor.check(cursor.position + step.size <= cursor.limit)
                for take in step.takes:
                    self._take(cursor, take)
                cursor.position += step.size
            elif isinstance(step, _Text):
                self._read_text(cursor, step)
            elif isinstance(step, _Numbers):
                self._read_numbers(cursor, step)
            else:
                self._read_items(cursor, step)

    def _take(self, cursor: Cursor, take: _Take) -> None:
        values = cursor.gather(take.offset, take.dtype, take.count)
        if take.column[0] == " ":
            cursor.columns[take.column] = values
            return
        width = self.columns[take.column][1]
        if width is None or take.slot == 0 and take.count == width:
            cursor.columns[take.column] = values if width is not None and values.ndim == 2 else values.reshape(-1)
            if width is not None and values.ndim == 1:
                cursor.columns[take.column] = values[:, None]
            return
        column = cursor.columns.setdefault(take.column, np.zeros((len(values), width), take.dtype))
        column[:, take.slot] = values

    def _read_text(self, cursor: Cursor, step: _Text) -> None:
        length = cursor.count()
        cursor.check((length >= 1) & (cursor.position + length <= cursor.limit))
        cursor.check(cursor.bytes_at(cursor.position + np.maximum(length, 1) - 1) == 0)
        if step.column is not None:
            cursor.columns[step.column] = cursor.texts(length)
        cursor.position += length

    def _read_numbers(self, cursor: Cursor, step: _Numbers) -> None:
        count, size = cursor.count(), step.dtype.itemsize
        if size > 4:
            cursor.position = np.where(count > 0, -(-cursor.position // size) * size, cursor.position)
        cursor.check(cursor.position + count * size <= cursor.limit)
        for column, first, wanted in step.wanted:
            whole = wanted is None
            wanted = int(count[0]) if whole else wanted
            if whole and not cursor.good[0]:
                wanted = int(count[cursor.good][0]) if cursor.good.any() else 0
            cursor.check(count == wanted if whole else count >= first + wanted)
            values = cursor.gather(first * size, step.dtype, wanted)
            narrow = self.columns[column][1] is None
            cursor.columns[column] = values.reshape(len(count)) if narrow else values.reshape(len(count), wanted)
        cursor.position += count * size

    def _read_items(self, cursor: Cursor, step: _Items) -> None:
        if step.length is None:
            count = cursor.count()
            cursor.check(cursor.position + count <= cursor.limit)
        else:
            count = np.where(cursor.good, step.length, 0)
        for number in range(int(count.max(initial=0))):
            self._items_left -= 1
            if self._items_left < 0:
                cursor.check(np.zeros(len(count), bool))
                return
            active = count > number
            if active.all():
                self._walk(cursor, step.steps)
            else:
                part = cursor.part(active)
                self._walk(part, step.steps)
                cursor.position[active] = part.position
                cursor.good[active] = part.good
            count = np.where(cursor.good, count, 0)
