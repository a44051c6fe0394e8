"""One sqlite3 file of a bag (.db3), read in the order of its rows.

    file = SqliteFile(Path("bag_0.db3"))
    for block in file.blocks({1, 2}): ...

A file that somebody made up may be a trap: views, virtual tables and generated columns are refused, sizes are bounded,
and row numbers must rise, so that a damaged tree cannot be walked forever. Rows that a crashed recorder left in the
write-ahead log beside the file are part of it.
"""

from __future__ import annotations

import shutil
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import apsw
import numpy as np
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from saferule_core.data.storage import LARGEST_MESSAGE, Block, Channel, Damaged, check_times

BLOCK_ROWS, BLOCK_BYTES = 4096, 1 << 22
_FORMATS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}
_NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")


class SqliteFile:
    """An open .db3 file; see `storage.StorageFile`. It says itself how many rows it has, by its index of times.

    Raises:
        Damaged: it is no sqlite3 file, has not the tables of a bag, or cannot be read.
    """

    def __init__(self, path: Path, tolerant: bool = False) -> None:
        self.path, self.fraction = path, 0.0
        self.seen: dict[int, int] = Counter()
        self.promised = None
        self._copy: TemporaryDirectory | None = None
        self._database: apsw.Connection | None = None
        try:
            self._check_size(tolerant)
            self._database = self._open(tolerant)
            self._check_tables()
            self.channels = {channel.id: channel for channel in self._channels()}
            self._rows = self._count(tolerant)
        except (apsw.Error, ValueError, TypeError, UnicodeDecodeError) as error:
            self.close()
            raise Damaged(f"expected a sqlite3 database, found: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close(True)
            self._database = None
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def blocks(self, wanted: Collection[int]) -> Iterator[Block]:
        """Yield the messages of the channels `wanted`; see `storage.StorageFile`."""
        self.seen = Counter()
        chosen = ",".join(str(int(key)) for key in sorted(wanted)) or "NULL"
        query = (
            f"SELECT id, topic_id, timestamp, CASE WHEN topic_id IN ({chosen}) THEN data END FROM messages ORDER BY id"
        )
        last, done = None, 0
        rows: list[tuple[int, int, bytes]] = []
        held = 0
        try:
            for number, channel, logged, data in self._database.execute(query):
                if last is not None and number <= last:
                    raise Damaged(f"expected row numbers that rise, found {number} after {last}")
                last, done = number, done + 1
                if channel not in self.channels:
                    raise Damaged(f"expected messages of known topics, found topic {channel!r} in row {number}")
                self.seen[channel] += 1
                if data is None and channel not in wanted:
                    continue
                if not isinstance(data, bytes) or not isinstance(logged, int):
                    raise Damaged(f"expected a time and a message in row {number}, found {type(data).__name__}")
                rows.append((channel, logged, data))
                held += len(data)
                if len(rows) >= BLOCK_ROWS or held >= BLOCK_BYTES:
                    self.fraction = min(done / max(self._rows, 1), 1.0)
                    yield _block(rows)
                    rows, held = [], 0
        except (apsw.Error, ValueError, UnicodeDecodeError) as error:
            if rows:
                yield _block(rows)
            raise Damaged(f"expected readable rows, found: {error}") from error
        if rows:
            yield _block(rows)
        if self._rows >= 0 and done != self._rows:
            raise Damaged(f"expected {self._rows} rows, as its index says, found {done}")
        self.fraction = 1.0

    # -- opening ---------------------------------------------------------------------------------------------------

    def _check_size(self, tolerant: bool) -> None:
        """Compare the file with how many pages its header says it has."""
        with self.path.open("rb") as file:
            header, size = file.read(100), file.seek(0, 2)
        if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
            raise Damaged(f"expected a sqlite3 database, found {size} bytes that are none")
        (page,) = struct.unpack_from(">H", header, 16)
        change, pages = struct.unpack_from(">II", header, 24)
        (valid,) = struct.unpack_from(">I", header, 92)
        page = 65536 if page == 1 else page
        if change == valid and pages * page > size and not tolerant:
            raise Damaged(f"expected {pages} pages of {page} bytes, found {size} bytes; it was cut off")

    def _open(self, tolerant: bool) -> apsw.Connection:
        path, mode = self.path, "immutable=1"
        log = path.with_name(path.name + "-wal")
        if log.is_symlink():
            raise Damaged(f"expected the write-ahead log {log.name} to be a file, found a link")
        if log.is_file() and log.stat().st_size > 0:
            # An immutable database is read without its log; to read it with the log, sqlite has to write beside it.
            self._copy = TemporaryDirectory(prefix="saferule_")
            path, mode = Path(self._copy.name) / "bag.db3", "mode=rw"
            shutil.copyfile(self.path, path)
            shutil.copyfile(log, path.with_name(path.name + "-wal"))
        flags = (apsw.SQLITE_OPEN_READWRITE if self._copy else apsw.SQLITE_OPEN_READONLY) | apsw.SQLITE_OPEN_URI
        database = apsw.Connection(f"file:{quote(str(path.absolute()))}?{mode}", flags=flags)
        database.limit(apsw.SQLITE_LIMIT_LENGTH, LARGEST_MESSAGE)
        database.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        # sqlite refuses a file that is shorter than its header says, but not with this.
        database.execute("PRAGMA writable_schema=ON" if tolerant else "PRAGMA cell_size_check=ON")
        return database

    def _check_tables(self) -> None:
        for table, needed in (("topics", {"id", "name", "type", "serialization_format"}),
                              ("messages", {"id", "topic_id", "timestamp", "data"})):  # fmt: skip
            made = [row[0] for row in self._database.execute(
                "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))]  # fmt: skip
            columns = {row[1]: row[6] for row in self._database.execute(f"PRAGMA table_xinfo({table})")}
            plain = len(made) == 1 and str(made[0]).upper().startswith("CREATE TABLE") and not any(columns.values())
            if not plain or not needed <= set(columns):
                found = ", ".join(columns) or "no such table"
                raise Damaged(f"expected a plain table {table} with {', '.join(sorted(needed))}, found {found}")

    def _channels(self) -> Iterator[Channel]:
        definitions = {}
        if any(self._database.execute("PRAGMA table_info(message_definitions)")):
            for kind, encoding, text in self._database.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            ):
                if encoding in _FORMATS:
                    definitions[kind] = MessageDefinition(_FORMATS[encoding], str(text))
        for key, topic, kind, encoding in self._database.execute(
            "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
        ):
            if not isinstance(key, int) or not all(isinstance(text, str) for text in (topic, kind, encoding)):
                raise Damaged(f"expected topics with names and types, found {topic!r} of type {kind!r}")
            yield Channel(key, topic, kind, encoding, definitions.get(kind, _NO_DEFINITION))

    def _count(self, tolerant: bool) -> int:
        """Return the number of rows; -1 where that cannot be counted. sqlite takes the smallest index for it."""
        try:
            return int(self._database.execute("SELECT count(*) FROM messages").fetchone()[0])
        except apsw.Error:
            if tolerant:
                return -1
            raise


def _block(rows: list[tuple[int, int, bytes]]) -> Block:
    channel, logged, data = zip(*rows, strict=True)
    size = np.fromiter(map(len, data), np.int64, len(data))
    times = np.array(logged, np.int64)
    check_times(times)
    start = np.cumsum(size) - size
    return Block(np.frombuffer(b"".join(data), np.uint8), start, size, np.array(channel, np.int64), times)
