"""Record serialized messages as they come into a series of rosbag2 bags.

    recording = Recording("logs", topics={"odom": "nav_msgs/msg/Odometry"}, definition_of=installed_definition)
    recording.write("odom", data, stamp_ns)
    recording.flush()                 # once per second: what came up to here survives a crash
    recording.close()                 # logs/2025-01-31T12-00-00Z/bag_000/{metadata.yaml, bag_000.mcap}, bag_001, ...

Each bag is complete in itself, so that a part of what was driven can be named, for example to forget it. A bag that has
grown to its limit ends where an episode does, or at twice the limit if none does.

When the disk is full, or nearly, the recording ends: its last bag is completed with what fits (a little room is
reserved for that), and the call that found out raises.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from rosbags.interfaces import Nodetype
from rosbags.rosbag2 import StoragePlugin
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from saferule_core.data.durable_bag import WRITE_ERRORS, DurableBag
from saferule_core.errors import DataError

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
"""Formats of bags by their rosbag2 name."""

RESERVED_BYTES = 1 << 18
"""Room on the disk that is kept for completing a bag when there is no other left."""

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
        min_free_bytes: the recording ends when the disk has less room than this.

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
        min_free_bytes: int = 0,
    ) -> None:
        if storage not in STORAGES:
            raise DataError(f"recording: storage: expected one of {', '.join(STORAGES)}, found {storage!r}")
        self._topics, self._latched, self._storage = dict(topics), latched, STORAGES[storage]
        self._types = typestore_of(set(topics.values()), definition_of)
        self._max_ns, self._max_bytes = round(1e9 * max_seconds), max_bytes
        self._boundary_topic = boundary_topic
        self._min_free_bytes = min_free_bytes
        self._bag: DurableBag | None = None
        self._done: list[Path] = []
        self._bags = 0
        self._policies: list[str] = []
        self._swaps: list[dict[str, object]] = []
        self._broken = ""
        self.messages = 0
        self.folder = _new_folder(Path(out_dir))
        self._reserve = self.folder / ".reserve"
        try:
            self._reserve.write_bytes(bytes(RESERVED_BYTES))
        except OSError as error:
            self._free_reserve()
            raise DataError(f"{self.folder}: expected room for a recording, found: {error}") from error

    def write(self, topic: str, data: bytes, stamp_ns: int) -> None:
        """Write a serialized (CDR) message at time `stamp_ns` [ns].

        Raises:
            DataError: it cannot be written, for example because the disk is full; the recording has ended then.
        """
        if self._broken:
            raise DataError(self._broken)
        try:
            if self._bag is not None and self._has_to_split(topic, stamp_ns):
                self._complete()
            if self._bag is None:
                self._open(stamp_ns)
            self._bag.write(topic, data, stamp_ns)
        except WRITE_ERRORS as error:
            self._end(f"expected a bag to write to, found: {error}")
        self._bytes += len(data)
        self.messages += 1

    def policy(self, policy_id: str, stamp_ns: int) -> None:
        """Say which policy drives from time `stamp_ns` [ns] on; a bag's `custom_data` says which drove in it, and when.

        `saferule.policies` is a list of ids, `saferule.swaps` one of {time_ns, from, to}, both JSON.
        """
        before = self._policies[-1] if self._policies else ""
        if not policy_id or policy_id == before:
            return
        if before:
            self._swaps.append({"time_ns": stamp_ns, "from": before, "to": policy_id})
        self._policies.append(policy_id)

    def flush(self) -> None:
        """Make sure that what was written survives a crash of this process.

        Raises:
            DataError: the disk is full, or has less room than `min_free_bytes`; the recording has ended then.
        """
        if self._broken:
            raise DataError(self._broken)
        try:
            if self._bag is not None:
                self._bag.flush()
            free = shutil.disk_usage(self.folder).free
        except WRITE_ERRORS as error:
            self._end(f"expected a bag to write to, found: {error}")
        if free < self._min_free_bytes:
            self._end(f"expected at least {self._min_free_bytes} bytes of room on the disk, found {free}")

    def pour(self) -> Iterator[None]:
        """Write what is held in memory: nothing, as everything was written when it came."""
        return iter(())

    def snapshot(self) -> list[Path]:
        """Complete the running bag, so that all up to here can be read; return the bags since the last snapshot.

        Raises:
            DataError: it cannot be written; the recording has ended then.
        """
        if self._broken:
            raise DataError(self._broken)
        try:
            self._complete()
        except WRITE_ERRORS as error:
            self._end(f"expected to complete the bag, found: {error}")
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Complete the last bag, its metadata.yaml included; a second call does nothing.

        Raises:
            DataError: it cannot be written.
        """
        if not self._broken:
            try:
                self._complete()
            except WRITE_ERRORS as error:
                self._end(f"expected to complete the bag, found: {error}")
        self._free_reserve()

    def _free_reserve(self) -> None:
        with suppress(OSError):  # the folder may be gone altogether
            self._reserve.unlink(missing_ok=True)

    def _complete(self) -> None:
        """Complete the running bag, where there is one."""
        if self._bag is not None:
            self._note_policies()
            self._bag.close()
            self._done.append(self._bag.path)
            self._bag = None

    def _end(self, reason: str) -> None:
        """End the recording with what can be kept, and raise."""
        self._free_reserve()
        bag, self._bag = self._bag, None
        if bag is not None:
            self._note_policies(bag)
            self.messages -= bag.messages
            self.messages += bag.salvage()
        self._broken = f"{self.folder}: {reason}; {self.messages} messages up to then are complete"
        raise DataError(self._broken)

    def _note_policies(self, bag: DurableBag | None = None) -> None:
        bag = bag or self._bag
        if self._policies:
            bag.note("saferule.policies", json.dumps(self._policies))
            bag.note("saferule.swaps", json.dumps(self._swaps))
        self._policies, self._swaps = self._policies[-1:], []

    def _has_to_split(self, topic: str, stamp_ns: int) -> bool:
        spent = max(
            (stamp_ns - self._begun_ns) / self._max_ns if self._max_ns else 0.0,
            self._bytes / self._max_bytes if self._max_bytes else 0.0,
        )
        return spent >= (1.0 if self._boundary_topic in (topic, None) else 2.0)

    def _open(self, stamp_ns: int) -> None:
        path = self.folder / f"bag_{self._bags:03d}"
        self._bag = DurableBag(path, self._storage, self._topics, self._types, self._latched)
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
