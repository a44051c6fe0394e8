"""One rosbag2 bag while it is written: it can be completed at any time, also when the disk is full.

    bag = DurableBag(path, StoragePlugin.MCAP, topics, types, latched=frozenset({"/episode"}))
    bag.write("/odom", data, stamp_ns)
    bag.flush()                       # what was written up to here survives the death of this process
    bag.close()                       # or, after a write has failed: bag.salvage()

The writer of rosbags collects about 1 MiB before any of it is in the file, and one transaction for all of sqlite3; what
it has begun to write when the disk is full leaves a file that nobody can read. Here the file is known to be good up to
the last `flush`, and is cut there, before index and metadata.yaml are written.
"""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosbags.typesys.store import Typestore

BAG_VERSION = 8
"""Version of metadata.yaml that every ROS 2 distribution from Humble on reads."""

MARKS_KEPT = 16
"""Places to which a file may be cut back; the last one mostly does."""

WRITE_ERRORS = (OSError, WriterError, sqlite3.Error)
"""What a write raises that fails."""


@dataclass(frozen=True)
class _Mark:
    """The state of a bag when all of it was in the file."""

    position: int
    chunks: int
    counts: dict[int, int]
    times: tuple[int, int]


class DurableBag:
    """A new bag; not thread-safe. All that fails raises one of `WRITE_ERRORS`.

    Attributes:
        path: the bag's folder. messages: how many it holds.

    Args:
        topics: topic -> message type. types: definitions of these types.
        latched: topics whose last message a late reader has to get when the bag is played.
    """

    def __init__(
        self, path: Path, storage: StoragePlugin, topics: Mapping[str, str], types: Typestore, latched: frozenset[str]
    ) -> None:
        self.path = path
        self._writer = Writer(path, version=BAG_VERSION, storage_plugin=storage)
        self._writer.open()
        self._mcap = storage is StoragePlugin.MCAP
        self._marks: deque[_Mark] = deque(maxlen=MARKS_KEPT)
        try:
            if self._mcap:
                self._writer.storage.bio = _reopened(self._writer.storage.bio, self._writer.storage.path)
            self._connections = {
                topic: self._writer.add_connection(
                    topic if topic.startswith("/") else f"/{topic}",
                    kind,
                    typestore=types,
                    offered_qos_profiles=[_quality(topic in latched)],
                )
                for topic, kind in topics.items()
            }
        except WRITE_ERRORS:
            self.salvage()
            raise

    @property
    def messages(self) -> int:
        """How many messages were written."""
        return sum(self._writer.counts.values())

    def write(self, topic: str, data: bytes, stamp_ns: int) -> None:
        """Write a serialized (CDR) message at time `stamp_ns` [ns]."""
        self._writer.write(self._connections[topic], stamp_ns, data)
        if self._mcap and len(self._writer.storage.chunks) != (self._marks[-1].chunks if self._marks else 0):
            self._mark()

    def flush(self) -> None:
        """Hand everything to the operating system."""
        storage = self._writer.storage
        if not self._mcap:
            storage.conn.commit()
            self._mark()
        elif storage.chunk.msgs:
            storage.close_chunk()
            self._mark()

    def note(self, key: str, value: str) -> None:
        """Say something about the bag in `custom_data` of its metadata.yaml."""
        self._writer.set_custom_data(key, value)

    def close(self) -> None:
        """Complete the bag, metadata.yaml included."""
        self.flush()
        self._writer.close()

    def salvage(self) -> int:
        """Complete the bag with what fits on the disk, after something has failed; return how many messages it holds.

        A bag in which nothing is whole is removed.
        """
        while self._marks and self._writer.storage is not None:
            with suppress(*WRITE_ERRORS):
                self._cut_back(self._marks.pop())
                self._writer.close()
                return self.messages
            if not self._mcap:
                break
        with suppress(*WRITE_ERRORS):
            self._writer.abort()
        if self._marks or self._writer.metapath.exists():
            return self.messages
        shutil.rmtree(self.path, ignore_errors=True)
        return 0

    def _mark(self) -> None:
        writer = self._writer
        position, chunks = (writer.storage.bio.tell(), len(writer.storage.chunks)) if self._mcap else (0, 0)
        self._marks.append(_Mark(position, chunks, dict(writer.counts), (writer.min_timestamp, writer.max_timestamp)))

    def _cut_back(self, mark: _Mark) -> None:
        writer, storage = self._writer, self._writer.storage
        writer.counts = dict(mark.counts)
        writer.min_timestamp, writer.max_timestamp = mark.times
        if not self._mcap:
            storage.conn.rollback()
            return
        storage.bio.truncate(mark.position)
        storage.bio.seek(mark.position)
        del storage.chunks[mark.chunks :]
        storage.channel_stats = dict(mark.counts)
        storage.message_start_time, storage.message_end_time = mark.times
        storage.chunk.bio.seek(0)
        storage.chunk.bio.truncate()
        storage.chunk.msgs.clear()


class _WholeWrites(io.FileIO):
    """A file without a buffer: what `write` returned from is with the operating system, or it has raised."""

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):
            written += super().write(view[written:])
        return written


def _reopened(file: io.BufferedWriter, path: Path) -> _WholeWrites:
    """Return the same file without a buffer, at its end."""
    file.close()
    reopened = _WholeWrites(path, "r+")
    reopened.seek(0, os.SEEK_END)
    return reopened


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
