"""Message types for bags, without a ROS installation: as a bag defines them, or as ROS ships them.

types = typestore_of(connections)                      # to decode what a bag holds
message = empty_message(standard_types(), "nav_msgs/msg/Odometry")
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from saferule_core.data.reading import read_regular
from saferule_core.errors import DataError

Definitions = tuple[tuple[str, MessageDefinition], ...]
"""Names of message types, with their definitions."""

TYPE_ERRORS = (
    TypesysError, struct.error, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    AssertionError, SyntaxError, OverflowError, MemoryError,
)  # fmt: skip
"""What rosbags raises on definitions that are none, as found by damaging them at random places."""

MOST_DEFINITIONS = 20_000
MOST_DEPTH, MOST_PARTS, LARGEST_ARRAY = 50, 20_000, 1 << 26
LARGEST_DEFINITION = 1 << 20


def standard_types() -> Typestore:
    """Return the message types that ROS 2 itself ships."""
    return get_typestore(Stores.ROS2_JAZZY)


def typestore_of(connections: Sequence[Connection]) -> Typestore:
    """Return the types of a bag's `connections`; see `types_of`."""
    return types_of((connection.msgtype, connection.msgdef) for connection in connections)


def types_of(definitions: Iterable[tuple[str, MessageDefinition]], more: Definitions = ()) -> Typestore:
    """Return the types of a bag: its own `definitions`, then those of `load_definitions`, then the standard ones.

    Definitions in a bag win, because it may have been recorded with another version of a message. What `rosbags`
    raises on malformed definitions (see TYPE_ERRORS) passes through.
    """
    return _typestore(tuple(sorted(set(definitions))), tuple(more))


def load_definitions(places: Sequence[str | Path]) -> Definitions:
    """Return (type, definition) of .msg and .idl files, or of all of those in directories: packages, or a `share`.

    Raises:
        DataError: a place does not exist or has no definitions, or a file does not lie in <package>/msg/.
    """
    found: dict[str, MessageDefinition] = {}
    for place in map(Path, places):
        files = [place] if place.is_file() else sorted(itertools.islice(place.rglob("*.msg"), MOST_DEFINITIONS))
        if not files and place.is_dir():
            files = sorted(itertools.islice(place.rglob("*.idl"), MOST_DEFINITIONS))
        if not files:
            raise DataError(f"{place}: expected .msg files, or a directory with some, found none")
        for file in files:
            name, definition = _definition(file)
            found.setdefault(name, definition)
    return tuple(sorted(found.items()))


def _definition(file: Path) -> tuple[str, MessageDefinition]:
    path = file.absolute()
    kinds = {".msg": MessageDefinitionFormat.MSG, ".idl": MessageDefinitionFormat.IDL}
    if path.suffix not in kinds or path.parent.name != "msg":
        raise DataError(f"{file}: expected a path such as my_msgs/msg/Name.msg, to know the package, found another one")
    try:
        text = read_regular(file, LARGEST_DEFINITION).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: expected a message definition, found: {error}") from error
    name = f"{path.parent.parent.name}/msg/{path.stem}"
    definition = MessageDefinition(kinds[path.suffix], text)
    try:
        _parsed(name, definition)
    except TYPE_ERRORS as error:
        raise DataError(f"{file}: expected a message definition, found: {str(error).strip()[:300]}") from error
    return name, definition


@lru_cache(maxsize=8)
def _typestore(definitions: Definitions, more: Definitions) -> Typestore:
    """Return the types of a set of definitions; bags of one recorder share it, and its compiled decoders."""
    types = {}
    for name, definition in definitions:
        types.update(_parsed(name, definition))
    if any(name not in types for name, _ in definitions) or not _closed(types):
        given: dict = {}
        for name, definition in more:
            given.update(_parsed(name, definition))
        types = {**standard_types().fielddefs, **given, **types}
    _check_sizes(types, [name for name, _ in definitions])
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    return store


def _check_sizes(types: Mapping[str, tuple], names: Iterable[str]) -> None:
    """Raise ValueError where a type has more parts than any message: `rosbags` would unroll all of them."""
    parts: dict[str, int] = {}

    def count(name: str, depth: int) -> int:
        if depth > MOST_DEPTH:
            raise ValueError(f"{name}: expected at most {MOST_DEPTH} types inside of each other, found more")
        if name not in parts:
            parts[name] = sum(parts_of(node, depth) for _, node in types[name][1]) if name in types else 1
        return parts[name]

    def parts_of(node: tuple, depth: int) -> int:
        kind, detail = node
        if kind == Nodetype.ARRAY:
            numbers = detail[0][0] == Nodetype.BASE and detail[0][1][0] != "string"
            each = parts_of(detail[0], depth) * (1 if numbers else detail[1])
            if each > MOST_PARTS or detail[1] > LARGEST_ARRAY:
                raise ValueError(f"expected arrays of sensible sizes in message definitions, found {detail[1]} items")
            return each
        return parts_of(detail[0], depth) if kind == Nodetype.SEQUENCE else count(detail, depth + 1) if (
            kind == Nodetype.NAME) else 1  # fmt: skip

    for name in names:
        if count(name, 0) > MOST_PARTS:
            raise ValueError(f"{name}: expected at most {MOST_PARTS} parts, found {parts[name]}")


def _parsed(name: str, definition: MessageDefinition) -> dict:
    if definition.format == MessageDefinitionFormat.MSG:
        return get_types_from_msg(definition.data, name)
    if definition.format == MessageDefinitionFormat.IDL:
        return _types_from_idl(definition.data)
    return {}


def _closed(types: Mapping[str, tuple]) -> bool:
    """Return whether all types that others are made of are there, too."""
    return all(part_of(node) in (None, *types) for _, fields in types.values() for _, node in fields)


def part_of(node: tuple) -> str | None:
    """Return the message type in the description of a field."""
    kind, detail = node
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return part_of(detail[0])
    return detail if kind == Nodetype.NAME else None


def _types_from_idl(text: str) -> dict:
    """Return the types of one IDL text, or of several with "IDL: name" headings between lines of equal signs."""
    parts = [part.split("\n", 1)[1] for part in text.split("=" * 80 + "\n") if part.startswith("IDL: ")]
    return {name: definition for part in parts or [text] for name, definition in get_types_from_idl(part).items()}


def empty_message(types: Typestore, kind: str) -> Any:
    """Return a message of type `kind` with zeros, empty strings and empty sequences."""
    return types.types[kind](**{name: _empty_value(types, node) for name, node in types.fielddefs[kind][1]})


def _empty_value(types: Typestore, node: tuple) -> Any:
    what, detail = node
    if what == Nodetype.NAME:
        return empty_message(types, detail)
    if what == Nodetype.BASE:
        return "" if detail[0] == "string" else False if detail[0] == "bool" else _dtype(detail[0])(0).item()
    (item, item_detail), length = detail
    length = length if what == Nodetype.ARRAY else 0
    if item == Nodetype.BASE and item_detail[0] != "string":
        return np.zeros(length, _dtype(item_detail[0]))
    return [_empty_value(types, (item, item_detail)) for _ in range(length)]


def _dtype(name: str) -> type:
    return np.dtype({"octet": "uint8", "char": "uint8", "byte": "uint8"}.get(name, name)).type
