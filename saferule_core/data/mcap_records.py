"""Records of an MCAP file, taken apart without believing what they say of their sizes.

for op, begin, end in records(data): ...
record = Record(data[begin:end])
topic, (key,) = record.text(), record.take("<H")
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from lz4.frame import LZ4FrameDecompressor
from rosbags.rosbag2.reader import zstd

from saferule_core.data.storage import LARGEST_MESSAGE, Damaged

record_head = struct.Struct("<BQ").unpack_from
"""Opcode and length of a record, from a buffer and an offset."""


def records(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, begin and end of every record in `data`, which must hold whole ones."""
    offset, size = 0, len(data)
    while offset < size:
        if offset + 9 > size:
            raise Damaged(f"expected whole records, found {size - offset} bytes left over")
        op, length = record_head(data, offset)
        end = offset + 9 + length
        if end > size:
            raise Damaged(f"expected a record of {length} bytes, found {size - offset - 9}")
        yield op, offset + 9, end
        offset = end


def sane(size: int) -> int:
    """Return `size`, or raise Damaged if nothing is so large."""
    if size > LARGEST_MESSAGE:
        raise Damaged(f"expected records of at most {LARGEST_MESSAGE} bytes, found one that says {size}")
    return size


def decompressed(compression: str, data: memoryview, size: int) -> bytes:
    """Return `data` unpacked, never more than a byte over `size` of it."""
    try:
        if compression == "":
            found = bytes(data)
        elif compression == "zstd":
            found = zstd.ZstdDecompressor().decompress(data, size + 1)
        elif compression == "lz4":
            found = LZ4FrameDecompressor().decompress(bytes(data), size + 1)
        else:
            raise Damaged(f"expected a chunk in zstd, lz4 or not compressed, found {compression!r}")
    except (zstd.ZstdError, RuntimeError, EOFError) as error:
        raise Damaged(f"expected a chunk that can be unpacked, found: {error}") from error
    if len(found) != size:
        raise Damaged(f"expected a chunk of {size} bytes, found {len(found)}")
    return found


class Record:
    """Takes the fields of one record, one after the other; raises Damaged where it ends too early."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self._at = data, 0

    def take(self, layout: str) -> tuple:
        """Return numbers of a `struct` layout."""
        size = struct.calcsize(layout)
        if self._at + size > len(self._data):
            raise Damaged(f"expected {size} more bytes in a record, found {len(self._data) - self._at}")
        found = struct.unpack_from(layout, self._data, self._at)
        self._at += size
        return found

    def sized(self, layout: str) -> bytes | memoryview:
        """Return bytes after their number, which has a `struct` layout."""
        (size,) = self.take(layout)
        if size > len(self._data) - self._at:
            raise Damaged(f"expected {size} more bytes in a record, found {len(self._data) - self._at}")
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def bytes(self) -> bytes:
        """Return bytes after their number in 4 bytes."""
        return bytes(self.sized("<I"))

    def text(self) -> str:
        """Return a text after its length in 4 bytes."""
        try:
            return self.bytes().decode()
        except UnicodeDecodeError as error:
            raise Damaged(f"expected text, found: {error}") from error
