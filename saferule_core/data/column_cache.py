"""Columns of a bag that are kept on disk, so that a second reading of the same bag takes as long as hashing it.

    topics = read_through_cache("logs/day_1", requests, report, ReadOptions(cache="store/columns"))

An entry is a directory named by the SHA-256 of the bag's files, of what was asked for and of how it was to be read. It
holds raw columns and `entry.json`, and is made under another name first, so that it is there as a whole or not at all.
Deleting entries is always safe. An entry that is damaged is read again from the bag.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import numpy as np

from saferule_core.data.bag_file import BagTopics, read_bag_topics
from saferule_core.data.bag_files import BagFiles, find_bag
from saferule_core.data.message_types import load_definitions
from saferule_core.data.reading import ReadOptions
from saferule_core.data.topic_columns import Messages, TopicRequest
from saferule_core.errors import DataError, DiskError

READER_VERSION = 1
"""To be raised when the same bag gives other columns than before."""

STALE_SECONDS = 86_400.0
"""An entry that is not complete after a day is of a process that was killed."""

UNUSED_SECONDS = 30 * 86_400.0
"""Entries that nobody has read for so long make room for others."""

HASHED_SHARE = 0.2
_PIECE = 1 << 22


class _Column(msgspec.Struct):
    """A column on disk: its file, element type and shape; texts: what its numbers stand for."""

    file: str
    dtype: str
    shape: list[int]
    sha256: str
    texts: list[str] | None = None


class _Entry(msgspec.Struct):
    """A whole entry: topic -> name -> column."""

    version: int
    notes: list[str]
    topics: dict[str, dict[str, _Column]]


def read_through_cache(
    path: str | Path,
    requests: Sequence[TopicRequest],
    report: Callable[[float], None],
    options: ReadOptions,
) -> BagTopics:
    """Do the same as `bag_file.read_bag_topics`, but keep the columns in `options.cache`, and take them from there.

    A cache that cannot be written is noted and does no harm. Raises as `read_bag_topics`.
    """
    bag = find_bag(Path(path), options)
    key = _key(bag, requests, options, lambda part: report(HASHED_SHARE * part))
    place = Path(options.cache) / key
    kept = _load(place)
    if kept is not None:
        with suppress(OSError):
            os.utime(place)
    else:
        topics = read_bag_topics(path, requests, lambda part: report(HASHED_SHARE + (1 - HASHED_SHARE) * part), options)
        try:
            _keep(place, topics)
        except DiskError as error:
            topics = replace(topics, notes=(*topics.notes, f"not kept for a second reading: {error}"))
        kept = _load(place) or topics
    report(1.0)
    return kept


def _key(bag: BagFiles, requests: Sequence[TopicRequest], options: ReadOptions, report: Callable[[float], None]) -> str:
    """Return the name of the entry for a bag and what is asked of it."""
    sha = hashlib.sha256()
    asked = [[r.topic, r.type, list(r.fields), r.required] for r in requests]
    types = [[name, definition.data] for name, definition in load_definitions(options.message_types)]
    sha.update(json.dumps([READER_VERSION, bag.storage, asked, types, options.tolerate_truncated]).encode())
    files = [*bag.files, *(file.with_name(file.name + "-wal") for file in bag.files)]
    if bag.metadata is not None:
        files.append(bag.path / "metadata.yaml")
    files = [file for file in files if file.is_file()]
    total, done = sum(file.stat().st_size for file in files), 0
    try:
        for file in files:
            sha.update(f"\n{file.name} {file.stat().st_size}\n".encode())
            with file.open("rb") as stream:
                while piece := stream.read(_PIECE):
                    sha.update(piece)
                    done += len(piece)
                    report(min(done / max(total, 1), 1.0))
    except OSError as error:
        raise DataError(f"{bag.path}: expected a readable bag, found: {error}") from error
    return sha.hexdigest()


def _keep(place: Path, topics: BagTopics) -> None:
    """Write an entry."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(place.parent)
        unfinished = Path(mkdtemp(prefix=".unfinished_", dir=place.parent))
    except OSError as error:
        raise DiskError(f"{place.parent}: expected a directory for the cache, found: {error}") from error
    try:
        entry = _Entry(READER_VERSION, list(topics.notes), {})
        number = 0
        for topic, messages in topics.messages.items():
            columns = {}
            for name, values in _named_columns(messages).items():
                texts = None
                if not isinstance(values, np.ndarray):
                    texts = list(dict.fromkeys(values))
                    codes = {text: code for code, text in enumerate(texts)}
                    values = np.array([codes[text] for text in values], "<i4")
                file = unfinished / f"{number}.bin"
                columns[name] = _Column(file.name, values.dtype.str, list(values.shape), _write(file, values), texts)
                number += 1
            entry.topics[topic] = columns
        (unfinished / "entry.json").write_bytes(msgspec.json.encode(entry))
        shutil.rmtree(place, ignore_errors=True)
        os.rename(unfinished, place)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not place.is_dir():
            raise DiskError(f"{place}: expected to write what was read into the cache, found: {error}") from error


def _remove_stale(cache: Path) -> None:
    """Remove what nobody has read for long, and what processes left that were killed while they wrote an entry."""
    for pattern, seconds in ((".unfinished_*", STALE_SECONDS), ("*/entry.json", UNUSED_SECONDS)):
        for found in cache.glob(pattern):
            entry = cache / found.relative_to(cache).parts[0]
            with suppress(OSError):  # another process may be faster
                if time.time() - entry.lstat().st_mtime > seconds:
                    shutil.rmtree(entry)


def _write(file: Path, values: np.ndarray) -> str:
    """Write values piece by piece; return their SHA-256."""
    sha, rows = hashlib.sha256(), max(_PIECE // max(values[:1].nbytes, 1), 1)
    with file.open("wb") as out:
        for begin in range(0, len(values), rows):
            piece = np.ascontiguousarray(values[begin : begin + rows]).tobytes()
            sha.update(piece)
            out.write(piece)
    return sha.hexdigest()


def _load(place: Path) -> BagTopics | None:
    """Return what an entry holds, or None if there is none that is whole."""
    try:
        entry = msgspec.json.decode((place / "entry.json").read_bytes(), type=_Entry)
        if entry.version != READER_VERSION:
            return None
        messages = {}
        for topic, columns in entry.topics.items():
            values = {name: _map(place, column) for name, column in columns.items()}
            times = {name: values.pop(f" {name}") for name in ("logged", "stamped", "arrival")}
            messages[topic] = Messages(**times, columns=values)
    except (OSError, msgspec.DecodeError, ValueError, KeyError, TypeError, IndexError):
        return None
    return BagTopics(messages, tuple(entry.notes))


def _map(place: Path, column: _Column) -> Any:
    """Return a column, mapped from its file. Raises ValueError if the file is not what was written."""
    file, dtype, shape = place / Path(column.file).name, np.dtype(column.dtype), tuple(column.shape)
    if dtype.kind not in "biuf" or any(size < 0 for size in shape):
        raise ValueError(f"{file}: expected numbers, found {dtype}")
    if file.stat().st_size != dtype.itemsize * int(np.prod(shape, dtype=object)) or _digest(file) != column.sha256:
        raise ValueError(f"{file}: expected what was written, found something else")
    values = np.memmap(file, dtype, "r", shape=shape) if file.stat().st_size else np.zeros(shape, dtype)
    if column.texts is None:
        return values
    return [column.texts[code] for code in values]


def _digest(file: Path) -> str:
    sha = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE):
            sha.update(piece)
    return sha.hexdigest()


def _named_columns(messages: Messages) -> dict[str, Any]:
    times = {f" {name}": getattr(messages, name) for name in ("logged", "stamped", "arrival")}
    return {**times, **messages.columns}
