"""The messages of a rosbag2 bag as columns: times and field values of the topics that somebody asks for.

    requests = [TopicRequest("odom", "nav_msgs/msg/Odometry", ("pose.pose.position.x",))]
    messages = read_topics("logs/day_1", requests)["odom"]
    messages.columns["pose.pose.position.x"]              # (N,), as the messages have them

MCAP and sqlite3, split over files or not, compressed or not, with metadata.yaml or a single file without. Topics that
nobody asks for are counted but not decoded, so they may have types that are not known here. Anything damaged is a
DataError that names the bag, and so is a bag with fewer or more messages than it says itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rosbags.rosbag2.reader import zstd
from rosbags.typesys.store import Typestore

from saferule_core.data.bag_files import BagFiles, damaged, find_bag, opened
from saferule_core.data.column_store import ColumnFolder
from saferule_core.data.message_types import TYPE_ERRORS, Definitions, load_definitions, types_of
from saferule_core.data.reading import USUAL, ReadOptions
from saferule_core.data.storage import LARGEST_MESSAGE, Block, Channel, Damaged, StorageFile
from saferule_core.data.topic_columns import Messages, TopicColumns, TopicRequest
from saferule_core.errors import DataError, SpecError

__all__ = ["BagTopics", "Messages", "TopicRequest", "read_bag_topics", "read_topics"]

Topics = Mapping[tuple[str, str], int | None]
"""(name, type) of the topics of a bag -> how many messages it says that they have."""


@dataclass(frozen=True)
class BagTopics:
    """What was read of a bag: the messages of each topic, and notes on what a user of the data should know."""

    messages: dict[str, Messages]
    notes: tuple[str, ...]


def read_topics(
    path: str | Path,
    requests: Sequence[TopicRequest],
    report: Callable[[float], None] = lambda _: None,
    options: ReadOptions = USUAL,
) -> dict[str, Messages]:
    """Return the messages of every requested topic that the bag has, by the topic's name in the request.

    A topic without a leading slash is found under any namespace: "odom" is /odom or /robot_1/odom.

    Args:
        path: a bag's directory, or one of its .mcap or .db3 files.
        report: called now and then with the fraction of the bag that was read; what it raises ends the reading.

    Raises:
        DataError: there is no bag, it is damaged or not complete, it lacks a required topic, or a topic has another
            type or fields.
    """
    return read_bag_topics(path, requests, report, options).messages


def read_bag_topics(
    path: str | Path,
    requests: Sequence[TopicRequest],
    report: Callable[[float], None] = lambda _: None,
    options: ReadOptions = USUAL,
) -> BagTopics:
    """Do the same as `read_topics`, with notes."""
    bag = find_bag(Path(path), options)
    with ColumnFolder() as columns:
        return _Reading(bag, _merged(requests), report, options, columns).read()


class _Reading:
    """One bag being read."""

    def __init__(
        self,
        bag: BagFiles,
        requests: Sequence[TopicRequest],
        report: Callable[[float], None],
        options: ReadOptions,
        folder: ColumnFolder,
    ) -> None:
        self._bag, self._requests, self._report, self._options = bag, requests, report, options
        self._definitions: Definitions = load_definitions(options.message_types)
        self._folder = folder
        self._notes = list(bag.notes)
        self._chosen: dict[str, TopicRequest] = {}
        self._columns: dict[str, TopicColumns] = {}
        self._arrival = self._walked = 0

    def read(self) -> BagTopics:
        """Read all files of the bag."""
        bag, tolerant = self._bag, self._options.tolerate_truncated
        if bag.metadata is not None:
            self._choose(bag.metadata.counts)
        sizes = [file.stat().st_size for file in bag.files]
        for number, file in enumerate(bag.files):
            done, share = sum(sizes[:number]) / max(sum(sizes), 1), sizes[number] / max(sum(sizes), 1)
            self._report(done)
            try:
                with opened(file, bag, tolerant) as storage:
                    if bag.metadata is None:
                        self._choose(_topics_of(storage.channels.values()))
                    self._read_file(storage, lambda part, d=done, s=share: self._report(min(d + s * part, 1.0)))
            except (Damaged, OSError, MemoryError) as error:
                unknown = bag.metadata is None and not self._columns
                if not tolerant or unknown or isinstance(error, MemoryError):
                    raise damaged(bag.path, error) from error
                self._notes.append(f"{file.name}: {error}")
        self._check_complete()
        return BagTopics({topic: columns.finish() for topic, columns in self._columns.items()}, tuple(self._notes))

    def _choose(self, topics: Topics) -> None:
        """Decide which recorded topics are read."""
        self._chosen = _choose_topics(self._bag.path, topics, self._requests)
        self._columns = {request.topic: TopicColumns(request, self._folder) for request in self._chosen.values()}

    def _read_file(self, storage: StorageFile, report: Callable[[float], None]) -> None:
        mine = {key: channel for key, channel in storage.channels.items() if channel.topic in self._chosen}
        types = self._types(mine.values()) if mine else None
        failed: Damaged | None = None
        blocks = storage.blocks(mine)
        while True:
            try:
                block = next(blocks, None)
                if block is not None and self._bag.messages_packed:
                    block = unpacked_messages(block)
            except Damaged as error:
                block, failed = None, error
            if block is None:
                break
            report(storage.fraction)
            self._take(block, mine, types)
        self._walked += sum(storage.seen.values())
        if failed is not None:
            raise failed
        self._check_file(storage)

    def _take(self, block: Block, mine: Mapping[int, Channel], types: Typestore) -> None:
        """Hand the messages of a block to their topics."""
        by_topic: dict[str, list[int]] = {}
        for key, channel in mine.items():
            by_topic.setdefault(channel.topic, []).append(key)
        for topic, keys in by_topic.items():
            rows = np.flatnonzero(np.isin(block.channel, keys) if len(keys) > 1 else block.channel == keys[0])
            if not len(rows):
                continue
            try:
                self._columns[self._chosen[topic].topic].add(block, rows, types, self._arrival)
            except (SpecError, DataError) as error:
                raise DataError(f"{self._bag.path}: topic {topic}: {error}") from error
        self._arrival += len(block)

    def _types(self, channels: Iterable[Channel]) -> Typestore:
        """Return the types of `channels`."""
        channels = list(channels)
        for channel in channels:
            wanted = self._chosen[channel.topic].type
            if channel.type != wanted:
                raise DataError(
                    f"{self._bag.path}: topic {channel.topic}: expected messages of type {wanted}, found {channel.type}"
                )
            if channel.encoding != "cdr":
                raise DataError(
                    f"{self._bag.path}: topic {channel.topic}: expected messages serialized as cdr, "
                    f"found {channel.encoding!r}"
                )
        try:
            store = types_of(((channel.type, channel.definition) for channel in channels), self._definitions)
        except TYPE_ERRORS as error:
            raise damaged(self._bag.path, error) from error
        for channel in channels:
            if channel.type not in store.fielddefs:
                raise DataError(
                    f"{self._bag.path}: topic {channel.topic}: expected a bag that defines its message types, "
                    f"found no definition of {channel.type}; name its .msg file or package (--message-types)"
                )
        return store

    def _check_file(self, storage: StorageFile) -> None:
        """Compare what a file has with what its own summary says."""
        if storage.promised is None:
            return
        for key in sorted({*storage.promised, *storage.seen}):
            wanted, found = storage.promised.get(key, 0), storage.seen.get(key, 0)
            if wanted != found:
                topic = storage.channels[key].topic if key in storage.channels else f"channel {key}"
                self._complain(f"topic {topic}", wanted, found, "the summary of its file")

    def _check_complete(self) -> None:
        """Compare what was read with what metadata.yaml says."""
        if self._bag.metadata is None:
            return
        for topic, request in self._chosen.items():
            wanted = self._bag.metadata.counts[(topic, request.type)]
            if wanted != len(self._columns[request.topic]):
                self._complain(f"topic {topic}", wanted, len(self._columns[request.topic]), "its metadata")
        if self._bag.metadata.messages != self._walked:
            self._complain("all topics", self._bag.metadata.messages, self._walked, "its metadata")

    def _complain(self, what: str, wanted: int, found: int, source: str) -> None:
        text = f"{what}: expected {wanted} messages, as {source} says, found {found}"
        if not self._options.tolerate_truncated:
            raise DataError(
                f"{self._bag.path}: {text}; it is not complete (--tolerate-truncated reads what is there all the same)"
            )
        self._notes.append(text)


def _topics_of(channels: Iterable[Channel]) -> Topics:
    return {(channel.topic, channel.type): None for channel in channels}


def _choose_topics(path: Path, topics: Topics, requests: Sequence[TopicRequest]) -> dict[str, TopicRequest]:
    """Return recorded topic -> the request that it answers."""
    types: dict[str, list[str]] = {}
    for name, kind in topics:
        types.setdefault(name, []).append(kind)
    listing = ", ".join(f"{name} ({kinds[0]})" for name, kinds in sorted(types.items())[:50]) or "no topics"
    chosen: dict[str, TopicRequest] = {}
    missing = []
    for request in requests:
        names = matching_topics(request.topic, types)
        if len(names) > 1:
            raise DataError(
                f"{path}: topic {request.topic}: expected one topic of that name, found {', '.join(names)}; "
                f"put the whole name into the robot description"
            )
        if not names:
            missing.extend([request.topic] if request.required else [])
            continue
        wrong = [kind for kind in types[names[0]] if kind != request.type]
        if wrong:
            raise DataError(f"{path}: topic {names[0]}: expected messages of type {request.type}, found {wrong[0]}")
        if names[0] in chosen:
            both = f"{chosen[names[0]].topic} and {request.topic}"
            raise DataError(f"{path}: topic {names[0]}: expected one name for it in the description, found {both}")
        chosen[names[0]] = request
    if missing:
        raise DataError(f"{path}: expected the topics {', '.join(missing)}, found {listing}")
    return chosen


def matching_topics(topic: str, names: Iterable[str]) -> list[str]:
    """Return the recorded names that a topic of the description may have; an exact match excludes the others."""
    names = sorted(names)
    exact = [name for name in names if name.strip("/") == topic.strip("/")]
    if exact or topic.startswith("/"):
        return exact
    return [name for name in names if name.endswith(f"/{topic}")]


def unpacked_messages(block: Block) -> Block:
    """Return a block whose messages were compressed one by one (zstd)."""
    pieces, total = [], 0
    raw = memoryview(np.ascontiguousarray(block.data))
    for start, size in zip(block.start.tolist(), block.size.tolist(), strict=True):
        try:
            unpacker = zstd.ZstdDecompressor()
            piece = unpacker.decompress(raw[start : start + size], LARGEST_MESSAGE)
        except zstd.ZstdError as error:
            raise Damaged(f"expected a message in zstd, found: {error}") from error
        total += len(piece)
        if not unpacker.eof or total > 4 * LARGEST_MESSAGE:
            raise Damaged(f"expected a whole message in zstd of at most {LARGEST_MESSAGE} bytes, found another")
        pieces.append(piece)
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    data = np.frombuffer(b"".join(pieces), np.uint8)
    return Block(data, np.cumsum(sizes) - sizes, sizes, block.channel, block.logged)


def _merged(requests: Sequence[TopicRequest]) -> list[TopicRequest]:
    """Return one request per topic, with all fields that are asked of it."""
    merged: dict[str, TopicRequest] = {}
    for request in requests:
        before = merged.get(request.topic, request)
        fields = tuple(dict.fromkeys((*before.fields, *request.fields)))
        required = before.required or request.required
        merged[request.topic] = TopicRequest(request.topic, request.type, fields, required)
    return list(merged.values())
