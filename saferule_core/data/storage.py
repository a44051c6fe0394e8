"""What every kind of bag file gives: channels, and blocks of serialized messages that are not looked into yet.

    file = open_storage(Path("bag_0.mcap"), "mcap")
    for block in file.blocks(file.channels):
        first = bytes(block.data[block.start[0] : block.start[0] + block.size[0]])

A block is at most a few megabytes, so a file of any size is read in little memory. Every message in the file is walked
over and counted in `seen`, wanted or not, so that "how many are there" never rests on an index.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from rosbags.interfaces import MessageDefinition

LATEST_NS = 1 << 62
"""Recording times beyond this (the year 2116) are no times."""

LARGEST_MESSAGE = 1 << 29
"""A message or a chunk of messages that claims to be larger than this [bytes] is damaged."""


class Damaged(Exception):
    """A bag file is not what its format says; `offset` is where [bytes], if that is known."""


@dataclass(frozen=True)
class Channel:
    """A topic in a file. encoding: how its messages are serialized, "cdr" where they can be read."""

    id: int
    topic: str
    type: str
    encoding: str
    definition: MessageDefinition


@dataclass(frozen=True)
class Block:
    """N serialized messages, in the order in which they were recorded.

    data: (B,) uint8. start, size: (N,) int64, the bytes of each message in data. channel: (N,) int64, ids.
    logged: (N,) int64, when each was recorded [ns].
    """

    data: np.ndarray
    start: np.ndarray
    size: np.ndarray
    channel: np.ndarray
    logged: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


class StorageFile(Protocol):
    """An open bag file.

    channels: id -> channel. promised: channel id -> how many messages the file itself says that it has, None where it
    does not say. seen: the same as counted by `blocks`. fraction: how much of the file was read.
    """

    path: Path
    channels: dict[int, Channel]
    promised: dict[int, int] | None
    seen: dict[int, int]
    fraction: float

    def blocks(self, wanted: Collection[int]) -> Iterator[Block]:
        """Yield the messages of the channels `wanted`.

        Raises:
            Damaged: the rest of the file cannot be read; what was yielded before is good.
        """

    def close(self) -> None:
        """Close the file."""


def check_times(logged: np.ndarray) -> None:
    """Raise Damaged where a recording time (uint64 or int64) cannot be one."""
    if len(logged) and (logged.max() >= LATEST_NS or logged.min() < 0):
        worst = logged.max() if logged.max() >= LATEST_NS else logged.min()
        raise Damaged(f"expected recording times between 0 and {LATEST_NS} ns, found {worst}")


def open_storage(path: Path, kind: str, tolerant: bool = False) -> StorageFile:
    """Open a file of a `kind`, "mcap" or "sqlite3"; `tolerant`: also one that was cut off.

    Raises:
        Damaged: it cannot be read.
    """
    from saferule_core.data.mcap_file import McapFile
    from saferule_core.data.sqlite_file import SqliteFile

    return {"mcap": McapFile, "sqlite3": SqliteFile}[kind](path, tolerant)
