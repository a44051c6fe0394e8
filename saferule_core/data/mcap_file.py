"""One MCAP file, read from front to back: https://mcap.dev/spec

    file = McapFile(Path("bag_0.mcap"))
    for block in file.blocks({1, 2}): ...

Nothing is looked up by the file's indexes, which may be damaged, and no size in the file is believed before it is
compared with how many bytes there are. Chunks are checked against their CRC, message counts against the statistics.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Collection, Generator, Iterator
from pathlib import Path

import numpy as np
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from saferule_core.data.mcap_records import Record, decompressed, record_head, records, sane
from saferule_core.data.storage import Block, Channel, Damaged, check_times

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, STATISTICS, DATA_END = 1, 2, 3, 4, 5, 6, 0x0B, 0x0F
RESERVED = range(0x10, 0x80)
FOOTER_BYTES = 9 + 20 + 8
WINDOW = 1 << 22
LARGEST_SUMMARY = 1 << 28

_FORMATS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL,
            "omgidl": MessageDefinitionFormat.IDL}  # fmt: skip
_HEAD = np.dtype([("op", "u1"), ("length", "<u8"), ("channel", "<u2"), ("sequence", "<u4"), ("logged", "<u8"),
                  ("published", "<u8")])  # fmt: skip


Stretch = tuple[bytes, list[int], tuple[int, int]]
"""Bytes, where message records begin in them, and the earliest and latest time that they may have been logged [ns]."""

ANY_TIME = (0, 2**64 - 1)


class McapFile:
    """An open MCAP file; see `storage.StorageFile`.

    Raises:
        Damaged: it is no MCAP file, or was cut off (with `tolerant` only the former).
    """

    def __init__(self, path: Path, tolerant: bool = False) -> None:
        self.path, self.fraction = path, 0.0
        self.channels: dict[int, Channel] = {}
        self.promised: dict[int, int] | None = None
        self.seen: dict[int, int] = Counter()
        self._schemas: dict[int, tuple[str, MessageDefinition]] = {}
        self._nameless: set[int] = set()
        self._complete = False
        self._file = path.open("rb")
        try:
            self._size = self._file.seek(0, 2)
            self._end: int | None = None
            self._begin = self._read_header()
            try:
                self._read_footer()
            except Damaged:
                if not tolerant:
                    raise
                self._end = self.promised = None
                self.channels.clear()
                self._schemas.clear()
            if not self.channels:
                self._find_channels(tolerant)
            self._complete = True
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def blocks(self, wanted: Collection[int]) -> Iterator[Block]:
        """Yield the messages of the channels `wanted`; see `storage.StorageFile`."""
        self.seen = Counter()
        chosen = np.array(sorted(wanted), np.int64)
        for data, offsets, times in self._stretches():
            block = self._block(data, offsets, times, chosen)
            if len(block):
                yield block
        self.fraction = 1.0

    # -- reading records -------------------------------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset`, which must be there."""
        if size > self._size - offset or offset < 0:
            raise Damaged(f"expected {size} bytes at offset {offset}, found the end of the file at {self._size}")
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise Damaged(f"expected {size} bytes at offset {offset}, found {len(data)}")
        return data

    def _read_header(self) -> int:
        """Check the beginning and return where the first record after the header begins."""
        if self._size < len(MAGIC) + 9 or self._read(0, len(MAGIC)) != MAGIC:
            raise Damaged(f"expected the file to begin as MCAP does, found {self._size} bytes that do not")
        op, length = record_head(self._read(len(MAGIC), 9))
        if op != HEADER:
            raise Damaged(f"expected a header record, found record {op:#x}")
        record = Record(self._read(len(MAGIC) + 9, sane(length)))
        profile = record.text()
        if profile not in ("ros2", ""):
            raise Damaged(f"expected the profile ros2, found {profile!r}")
        return len(MAGIC) + 9 + length

    def _read_footer(self) -> None:
        """Read the summary section: channels, and how many messages the file promises."""
        start = self._size - FOOTER_BYTES
        if start < self._begin:
            raise Damaged("expected a footer, found the end of the file; it was cut off")
        footer = self._read(start, FOOTER_BYTES)
        op, length, summary, _, crc = struct.unpack_from("<BQQQI", footer)
        if footer[-len(MAGIC) :] != MAGIC or (op, length) != (FOOTER, 20):
            raise Damaged("expected a footer at the end, found none; the file was cut off")
        self._end = summary or start
        if summary == 0:
            return
        if not self._begin <= summary <= start:
            raise Damaged(f"expected the summary between {self._begin} and {start}, found it at {summary}")
        if start - summary > LARGEST_SUMMARY:
            raise Damaged(f"expected a summary of at most {LARGEST_SUMMARY} bytes, found {start - summary}")
        data = self._read(summary, start - summary)
        if crc and zlib.crc32(footer[:25], zlib.crc32(data)) != crc:
            raise Damaged("expected the summary to match its checksum, found another one")
        for op, begin, end in records(data):
            if op == STATISTICS:
                record = Record(data[begin:end])
                record.take("<QHIIIIQQ")
                counts = record.bytes()
                if len(counts) % 10:
                    raise Damaged(f"expected statistics in steps of 10 bytes, found {len(counts)}")
                self.promised = {key: count for key, count in struct.iter_unpack("<HQ", counts)}
            else:
                self._learn(op, data, begin, end)
        if self._nameless:
            # The summary does not repeat the schemas of its channels: they are beside the messages.
            self.channels.clear()
            self._nameless.clear()

    def _find_channels(self, tolerant: bool) -> None:
        """Go through a file that has no summary of its channels."""
        try:
            for _ in self._stretches():
                pass
        except Damaged:
            if not tolerant:
                raise

    def _stretches(self) -> Iterator[Stretch]:
        """Yield stretches of the file, unpacked, with the offsets of the message records in them."""
        offset, end = self._begin, self._size if self._end is None else self._end
        while offset < end:
            self.fraction = offset / max(self._size, 1)
            window = self._read(offset, min(WINDOW, end - offset))
            messages, used = [], 0
            while used + 9 <= len(window):
                op, length = record_head(window, used)
                if length > end - offset - used - 9:
                    if messages:
                        yield window, messages, ANY_TIME
                    raise Damaged(
                        f"expected a record of {length} bytes at offset {offset + used}, "
                        f"found the end of the data at {end}"
                    )
                sane(length)
                after = used + 9 + length
                if op == CHUNK:
                    if messages:
                        yield window, messages, ANY_TIME
                        messages = []
                    whole = window if after <= len(window) else self._read(offset + used, 9 + length)
                    begin = used + 9 if whole is window else 9
                    yield self._unpacked(memoryview(whole)[begin : begin + length])
                elif after > len(window):
                    break
                elif op == MESSAGE:
                    messages.append(used)
                elif op == DATA_END:
                    if self._end is not None and offset + after != end:
                        raise Damaged(f"expected the data to end at {end}, found it at {offset + after}")
                    if messages:
                        yield window, messages, ANY_TIME
                    return
                else:
                    self._learn(op, window, used + 9, after)
                used = after
            if messages:
                yield window, messages, ANY_TIME
            offset += used
            if used == 0:
                offset = yield from self._large(offset, end)
        if self._end is None:
            raise Damaged(f"expected the end of the data, found the end of the file at {self._size}; it was cut off")

    def _large(self, offset: int, end: int) -> Generator[Stretch, None, int]:
        """Yield one record that does not fit into a window; return where the next one begins."""
        if end - offset < 9:
            raise Damaged(f"expected a record at offset {offset}, found the end of the data at {end}")
        op, length = record_head(self._read(offset, 9))
        data = self._read(offset, 9 + sane(length))
        if op == MESSAGE:
            yield data, [0], ANY_TIME
        else:
            self._learn(op, data, 9, len(data))
        return offset + 9 + length

    def _unpacked(self, record: memoryview) -> Stretch:
        """Return the content of a chunk record, the offsets of its messages, and when they were logged."""
        chunk = Record(record)
        first, last, size, crc = chunk.take("<QQQI")
        compression = chunk.text()
        data = decompressed(compression, chunk.sized("<Q"), sane(size))
        if crc and zlib.crc32(data) != crc:
            raise Damaged("expected a chunk to match its checksum, found another one")
        messages = []
        for op, begin, end in records(data):
            if op == MESSAGE:
                messages.append(begin - 9)
            elif op == CHUNK:
                raise Damaged("expected messages in a chunk, found another chunk")
            else:
                self._learn(op, data, begin, end)
        return data, messages, (first, last)

    def _learn(self, op: int, data: bytes, begin: int, end: int) -> None:
        """Take a schema or channel record; ignore others."""
        if op == SCHEMA:
            record = Record(data[begin:end])
            (key,) = record.take("<H")
            name, encoding, text = record.text(), record.text(), record.text()
            known = _FORMATS.get(encoding, MessageDefinitionFormat.NONE)
            self._schemas[key] = (name, MessageDefinition(known, text))
        elif op == CHANNEL:
            record = Record(data[begin:end])
            key, schema = record.take("<HH")
            topic, encoding = record.text(), record.text()
            if schema and schema not in self._schemas:
                self._nameless.add(key)
            kind, definition = self._schemas.get(schema, ("", MessageDefinition(MessageDefinitionFormat.NONE, "")))
            channel = Channel(key, topic, kind, encoding, definition)
            if self._complete and key not in self.channels:
                raise Damaged(f"expected the channels of the summary, found channel {key} ({topic}) beside them")
            if self.channels.setdefault(key, channel) != channel:
                raise Damaged(f"expected one meaning of channel {key}, found {self.channels[key].topic} and {topic}")
        elif op in RESERVED and self.promised is None:
            raise Damaged(f"expected known records, found record {op:#x}")

    def _block(self, data: bytes, offsets: list[int], times: tuple[int, int], chosen: np.ndarray) -> Block:
        """Return the chosen ones of the messages whose records begin at `offsets`."""
        if offsets and len(data) < _HEAD.itemsize:
            raise Damaged(f"expected a message, found {len(data)} bytes")
        start = np.array(offsets, np.int64)
        if len(start) and start[-1] + _HEAD.itemsize > len(data):
            raise Damaged("expected a message with a channel and times, found a shorter record")
        raw = np.frombuffer(data, np.uint8)
        heads = np.ndarray(max(len(data) - _HEAD.itemsize + 1, 0), _HEAD, data, strides=(1,))[start]
        size = heads["length"].astype(np.int64) - (_HEAD.itemsize - 9)
        if len(size) and size.min() < 0:
            raise Damaged("expected a message with a channel and times, found a shorter record")
        channel, logged = heads["channel"].astype(np.int64), heads["logged"]
        if len(logged) and not times[0] <= int(logged.min()) <= int(logged.max()) <= times[1]:
            raise Damaged(
                f"expected the messages of a chunk to be logged from {times[0]} to {times[1]}, as it says, "
                f"found {logged.min()} to {logged.max()}"
            )
        for key, count in zip(*np.unique(channel, return_counts=True), strict=True):
            self.seen[int(key)] += int(count)
            if int(key) not in self.channels:
                raise Damaged(f"expected messages of known channels, found channel {key}")
        mine = np.isin(channel, chosen)
        check_times(logged[mine])
        return Block(raw, start[mine] + _HEAD.itemsize, size[mine], channel[mine], logged[mine].astype(np.int64))
