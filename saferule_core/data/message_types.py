"""Message types for bags, without a ROS installation: as a bag defines them, or as ROS ships them.

    types = typestore_of(connections)                      # to decode what a bag holds
    message = empty_message(standard_types(), "nav_msgs/msg/Odometry")
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore


def standard_types() -> Typestore:
    """Return the message types that ROS 2 itself ships."""
    return get_typestore(Stores.ROS2_JAZZY)


def typestore_of(connections: Sequence[Connection]) -> Typestore:
    """Return the types of a bag's `connections`, its own definitions before the standard ones.

    Definitions in a bag win, because it may have been recorded with another version of a message. What `rosbags`
    raises on malformed definitions passes through.
    """
    return _typestore(tuple(sorted({(c.msgtype, c.msgdef) for c in connections})))


@lru_cache(maxsize=8)
def _typestore(definitions: tuple[tuple[str, MessageDefinition], ...]) -> Typestore:
    """Return the types of a set of definitions; bags of one recorder share it, and its compiled decoders."""
    types = {}
    for name, definition in definitions:
        if definition.format == MessageDefinitionFormat.MSG:
            types.update(get_types_from_msg(definition.data, name))
        elif definition.format == MessageDefinitionFormat.IDL:
            types.update(_types_from_idl(definition.data))
    if any(name not in types for name, _ in definitions):
        types = {**standard_types().fielddefs, **types}
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    return store


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
