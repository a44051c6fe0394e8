"""The messages of a rosbag2 bag as columns: times and field values of the topics that somebody asks for.

    requests = [TopicRequest("odom", "nav_msgs/msg/Odometry", ("pose.pose.position.x",))]
    messages = read_topics("logs/day_1", requests)["odom"]
    messages.columns["pose.pose.position.x"]              # (N,) float64

MCAP and sqlite3, split over files or not, compressed or not. Topics that nobody asks for are not decoded, so they may
have types that are not known here. Anything damaged is a DataError that names the bag.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.rosbag2.reader import zstd
from rosbags.serde import SerdeError
from rosbags.typesys import TypesysError
from rosbags.typesys.store import Typestore

from saferule_core.data.columns import raw_value_getter
from saferule_core.data.message_types import typestore_of
from saferule_core.errors import DataError, SpecError
from saferule_core.fields import FieldPath

# What rosbags and its decompressors raise on damaged files, as found by damaging files at random places.
DAMAGE = (
    ReaderError, SerdeError, TypesysError, apsw.Error, zstd.ZstdError, struct.error, RuntimeError, ValueError,
    TypeError, KeyError, IndexError, AttributeError, AssertionError, OverflowError, MemoryError, EOFError, OSError,
)  # fmt: skip
_REPORT_EVERY = 5000


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
    columns: field path -> values, an array (N,) or (N, k) of numbers, or a list of anything else.
    """

    logged: np.ndarray
    stamped: np.ndarray
    arrival: np.ndarray
    columns: dict[str, Any]

    def __len__(self) -> int:
        return len(self.logged)


@dataclass
class _Collector:
    """Gathers the messages of one topic while the bag is read."""

    request: TopicRequest
    decode: Callable[[bytes, str], object]
    values_of: Callable[[object], tuple] | None = None
    stamp_of: Callable[[object], tuple[int, int]] | None = None
    logged: list[int] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    arrival: list[int] = field(default_factory=list)
    rows: list[tuple] = field(default_factory=list)

    def add(self, logged: int, data: bytes, arrival: int) -> None:
        message = self.decode(data, self.request.type)
        if self.values_of is None:
            getters = [raw_value_getter(FieldPath.parse(path), message) for path in self.request.fields]
            self.values_of = lambda sample: tuple(getter(sample) for getter in getters)
            stamp = next((s for s in ("header.stamp", "stamp") if _has(message, f"{s}.nanosec")), None)
            self.stamp_of = attrgetter(f"{stamp}.sec", f"{stamp}.nanosec") if stamp else lambda _: (0, 0)
        seconds, nanoseconds = self.stamp_of(message)
        self.logged.append(logged)
        self.stamps.append(seconds * 1_000_000_000 + nanoseconds)
        self.arrival.append(arrival)
        self.rows.append(self.values_of(message))

    def messages(self) -> Messages:
        columns = dict(zip(self.request.fields, zip(*self.rows, strict=True), strict=True)) if self.rows else {}
        return Messages(
            np.array(self.logged, np.int64),
            np.array(self.stamps, np.int64),
            np.array(self.arrival, np.int64),
            {path: _column(values) for path, values in columns.items()},
        )


def read_topics(
    path: str | Path, requests: Sequence[TopicRequest], report: Callable[[float], None] = lambda _: None
) -> dict[str, Messages]:
    """Return the messages of every requested topic that the bag has, by the topic's name in the request.

    A topic without a leading slash is found under any namespace: "odom" is /odom or /robot_1/odom.

    Args:
        path: a bag's directory, or one of its .mcap or .db3 files.
        report: called now and then with the fraction of the bag that was read; what it raises ends the reading.

    Raises:
        DataError: there is no bag, it is damaged, it lacks a required topic, or a topic has another type or fields.
    """
    path, requests = Path(path), _merged(requests)
    reader = _open(path)
    try:
        chosen = _choose_connections(path, reader.connections, requests)
        typestore = _types(path, [connection for group in chosen.values() for connection in group])
        wanted = [request for request in requests if request.topic in chosen]
        collectors = {request.topic: _Collector(request, typestore.deserialize_cdr) for request in wanted}
        owner = {id(connection): collectors[topic] for topic, group in chosen.items() for connection in group}
        _read_all(path, reader, [c for group in chosen.values() for c in group], owner, report)
        return {topic: collector.messages() for topic, collector in collectors.items()}
    finally:
        reader.close()


def _open(path: Path) -> Reader:
    if not path.exists():
        raise DataError(f"{path}: expected a rosbag2 bag (a directory with metadata.yaml), found no such path")
    if path.is_dir() and not (path / "metadata.yaml").exists():
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing in it"
        raise DataError(f"{path}: expected a rosbag2 bag (a directory with metadata.yaml), found {found}")
    try:
        reader = Reader(path)
        reader.open()
    except DAMAGE as error:
        raise _damaged(path, error) from error
    return reader


def _damaged(path: Path, error: BaseException) -> DataError:
    reason = str(error).strip() or type(error).__name__
    return DataError(f"{path}: expected a readable rosbag2 bag (MCAP or sqlite3), found it damaged: {reason}")


def _choose_connections(
    path: Path, connections: Iterable[Connection], requests: Sequence[TopicRequest]
) -> dict[str, list[Connection]]:
    """Return requested topic -> the connections that carry it."""
    by_topic: dict[str, list[Connection]] = {}
    for connection in connections:
        by_topic.setdefault(connection.topic, []).append(connection)
    listing = ", ".join(f"{topic} ({group[0].msgtype})" for topic, group in sorted(by_topic.items())) or "no topics"
    chosen, missing = {}, []
    for request in requests:
        names = _matching(request.topic, by_topic)
        if len(names) > 1:
            raise DataError(
                f"{path}: topic {request.topic}: expected one topic of that name, found {', '.join(names)}; "
                f"put the whole name into the robot description"
            )
        if not names:
            missing.extend([request.topic] if request.required else [])
            continue
        wrong = [connection.msgtype for connection in by_topic[names[0]] if connection.msgtype != request.type]
        if wrong:
            raise DataError(f"{path}: topic {names[0]}: expected messages of type {request.type}, found {wrong[0]}")
        chosen[request.topic] = by_topic[names[0]]
    if missing:
        raise DataError(f"{path}: expected the topics {', '.join(missing)}, found {listing}")
    return chosen


def _matching(topic: str, names: Iterable[str]) -> list[str]:
    """Return the recorded names that a topic of the description may have; an exact match excludes the others."""
    names = sorted(names)
    exact = [name for name in names if name.strip("/") == topic.strip("/")]
    if exact or topic.startswith("/"):
        return exact
    return [name for name in names if name.endswith(f"/{topic}")]


def _types(path: Path, connections: Sequence[Connection]) -> Typestore:
    """Return the types of `connections`."""
    try:
        store = typestore_of(connections)
    except DAMAGE as error:
        raise _damaged(path, error) from error
    for connection in connections:
        if connection.msgtype not in store.fielddefs:
            raise DataError(
                f"{path}: topic {connection.topic}: expected a bag that defines its message types, "
                f"found no definition of {connection.msgtype}"
            )
    return store


def _read_all(
    path: Path,
    reader: Reader,
    connections: list[Connection],
    owner: dict[int, _Collector],
    report: Callable[[float], None],
) -> None:
    """Feed all messages of `connections` to their collectors."""
    if not connections:
        return
    total, arrival = sum(connection.msgcount for connection in connections), 0
    messages = iter(reader.messages(connections))
    while True:
        if arrival % _REPORT_EVERY == 0:
            report(min(arrival / max(total, 1), 1.0))
        try:
            connection, logged, data = next(messages)
        except StopIteration:
            break
        except DAMAGE as error:
            raise _damaged(path, error) from error
        collector = owner[id(connection)]
        try:
            collector.add(logged, data, arrival)
        except SpecError as error:
            raise DataError(f"{path}: topic {connection.topic}: {error}") from error
        except DAMAGE as error:
            raise _damaged(path, error) from error
        arrival += 1
    if arrival < total:
        raise DataError(f"{path}: expected {total} messages, as its metadata says, found {arrival}; it is not complete")


def _merged(requests: Sequence[TopicRequest]) -> list[TopicRequest]:
    """Return one request per topic, with all fields that are asked of it."""
    merged: dict[str, TopicRequest] = {}
    for request in requests:
        before = merged.get(request.topic, request)
        fields = tuple(dict.fromkeys((*before.fields, *request.fields)))
        required = before.required or request.required
        merged[request.topic] = TopicRequest(request.topic, request.type, fields, required)
    return list(merged.values())


def _has(message: object, path: str) -> bool:
    try:
        attrgetter(path)(message)
    except AttributeError:
        return False
    return True


def _column(values: tuple) -> Any:
    if isinstance(values[0], str):
        return list(values)
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return list(values)
