"""Record serialized messages as they come into a series of rosbag2 bags.

    recording = Recording("logs", topics={"odom": "nav_msgs/msg/Odometry"}, definition_of=installed_definition)
    recording.write("odom", data, stamp_ns)
    recording.close()                 # logs/2025-01-31T12-00-00Z/bag_000/{metadata.yaml, bag_000.mcap}, bag_001, ...

Each bag is complete in itself, so that a part of what was driven can be named, for example to forget it. A bag that has
grown to its limit ends where an episode does, or at twice the limit if none does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from rosbags.interfaces import Nodetype, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from saferule_core.errors import DataError

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
"""Formats of bags by their rosbag2 name."""

BAG_VERSION = 8
"""Version of metadata.yaml that every ROS 2 distribution from Humble on reads."""

_BUILTIN = "builtin_interfaces/"


class Recording:
    """One recording: a folder named by the present UTC time, with bags in it; not thread-safe.

    Attributes:
        folder: the recording's folder. messages: how many were written.

    Args:
        out_dir: where the folder is made.
        topics: topic -> message type of everything that will be written.
        definition_of: returns the .msg text of a message type.
        latched: topics whose last message a late reader has to get when the bag is played.
        max_seconds, max_bytes: a bag is closed when it is longer [s] or larger; 0 means no limit.
        boundary_topic: a message on it begins an episode. storage: a key of `STORAGES`.

    Raises:
        DataError: the storage is unknown, a message definition is missing, or the folder cannot be made.
    """

    def __init__(
        self,
        out_dir: str | Path,
        topics: Mapping[str, str],
        definition_of: Callable[[str], str],
        *,
        latched: frozenset[str] = frozenset(),
        max_seconds: float = 0.0,
        max_bytes: int = 0,
        boundary_topic: str | None = None,
        storage: str = "mcap",
    ) -> None:
        if storage not in STORAGES:
            raise DataError(f"recording: storage: expected one of {', '.join(STORAGES)}, found {storage!r}")
        self._topics, self._latched, self._storage = dict(topics), latched, STORAGES[storage]
        self._types = typestore_of(set(topics.values()), definition_of)
        self._max_ns, self._max_bytes = round(1e9 * max_seconds), max_bytes
        self._boundary_topic = boundary_topic
        self._writer: Writer | None = None
        self._connections = {}
        self._bags = 0
        self.messages = 0
        self.folder = _new_folder(Path(out_dir))

    def write(self, topic: str, data: bytes, stamp_ns: int) -> None:
        """Write a serialized (CDR) message at time `stamp_ns` [ns].

        Raises:
            DataError: it cannot be written, for example because the disk is full.
        """
        if self._writer is not None and self._has_to_split(topic, stamp_ns):
            self.close()
        try:
            if self._writer is None:
                self._open(stamp_ns)
            self._writer.write(self._connections[topic], stamp_ns, data)
        except (OSError, WriterError) as error:
            raise DataError(f"{self.folder}: expected a bag to write to, found: {error}") from error
        self._bytes += len(data)
        self.messages += 1

    def close(self) -> None:
        """Complete the last bag, its metadata.yaml included; a second call does nothing.

        Raises:
            DataError: it cannot be written.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except (OSError, WriterError) as error:
                raise DataError(f"{writer.path}: expected to complete the bag, found: {error}") from error

    def _has_to_split(self, topic: str, stamp_ns: int) -> bool:
        spent = max(
            (stamp_ns - self._begun_ns) / self._max_ns if self._max_ns else 0.0,
            self._bytes / self._max_bytes if self._max_bytes else 0.0,
        )
        return spent >= (1.0 if self._boundary_topic in (topic, None) else 2.0)

    def _open(self, stamp_ns: int) -> None:
        path = self.folder / f"bag_{self._bags:03d}"
        self._writer = Writer(path, version=BAG_VERSION, storage_plugin=self._storage)
        self._writer.open()
        self._connections = {
            topic: self._writer.add_connection(
                topic if topic.startswith("/") else f"/{topic}",
                kind,
                typestore=self._types,
                offered_qos_profiles=[_quality(topic in self._latched)],
            )
            for topic, kind in self._topics.items()
        }
        self._bags += 1
        self._begun_ns, self._bytes = stamp_ns, 0


def typestore_of(kinds: set[str], definition_of: Callable[[str], str]) -> Typestore:
    """Return a store of exactly these message types, and of those that they are made of.

    Raises:
        DataError: a definition is missing.
    """
    types = {}
    waiting = sorted(kinds)
    while waiting:
        kind = waiting.pop()
        if kind in types or kind.startswith(_BUILTIN):
            continue
        parsed = get_types_from_msg(definition_of(kind), kind)
        types.update(parsed)
        waiting += sorted({name for _, fields in parsed.values() for _, field in fields for name in _names(field)})
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    return store


def _names(field: tuple) -> set[str]:
    """Return the message types in a parsed field."""
    node, inner = field
    if node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return _names(inner[0])
    return {inner} if node is Nodetype.NAME else set()


def _new_folder(out_dir: Path) -> Path:
    name = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%SZ")
    for suffix in ("", *(f"_{number}" for number in range(1, 100))):
        folder = out_dir / f"{name}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise DataError(f"{folder}: expected to make a folder for the recording, found: {error}") from error
        return folder
    raise DataError(f"{out_dir}: expected less than 100 recordings in one second, found {name}_99")


def _quality(latched: bool) -> Qos:
    """Return the quality of service that `ros2 bag play` shall offer."""
    never = QosTime(0x7FFFFFFF, 0x7FFFFFFF)
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 50,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        never,
        never,
        QosLiveliness.AUTOMATIC,
        never,
        False,
    )
