"""What a bag's directory says about it: metadata.yaml of rosbag2, versions 1 to 9.

    metadata = read_metadata(Path("logs/day_1"))
    metadata.files, metadata.counts[("/odom", "nav_msgs/msg/Odometry")]

Only what reading needs is looked at. Qualities of service are not: their form changed with almost every version, and
recorders write them differently here and into the files.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from saferule_core.data.reading import read_regular
from saferule_core.errors import DataError

LATEST_VERSION = 9
LARGEST_METADATA = 1 << 26


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Loads YAML without merging mappings into others, which can grow without bounds."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave the mapping as it is; a merge key is then an error."""


@dataclass(frozen=True)
class Metadata:
    """A bag's own table of contents.

    storage: "mcap" or "sqlite3". files: paths in the bag's directory. compression: "", "file" or "message" (zstd).
    messages: how many there are. counts: (topic, type) -> the same per topic.
    """

    version: int
    storage: str
    files: tuple[Path, ...]
    compression: str
    messages: int
    counts: Mapping[tuple[str, str], int]


def read_metadata(bag: Path) -> Metadata:
    """Return the metadata of the bag in directory `bag`.

    Raises:
        DataError: it is missing, no regular file, no YAML, of an unknown version, or lacks something.
    """
    path = bag / "metadata.yaml"
    try:
        content = yaml.load(read_regular(path, LARGEST_METADATA).decode(), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{path}: expected the metadata of a rosbag2 bag (YAML), found: {error}") from error
    return _Checked(path, content).metadata()


class _Checked:
    """Takes typed values out of parsed YAML; errors name the file and the key."""

    def __init__(self, path: Path, content: Any) -> None:
        self._path = path
        self._content = self._get(content, "rosbag2_bagfile_information", Mapping)

    def metadata(self) -> Metadata:
        version = self._get(self._content, "version", int)
        if not 1 <= version <= LATEST_VERSION:
            raise self._error("version", f"1 to {LATEST_VERSION}", version)
        storage = self._get(self._content, "storage_identifier", str)
        if storage not in ("mcap", "sqlite3"):
            raise self._error("storage_identifier", "mcap or sqlite3", storage)
        compression = str(self._content.get("compression_mode") or "").lower()
        compression = "" if compression == "none" else compression
        if compression not in ("", "file", "message"):
            raise self._error("compression_mode", "file, message or none", compression)
        if compression and self._content.get("compression_format") != "zstd":
            raise self._error("compression_format", "zstd", self._content.get("compression_format"))
        counts: Counter[tuple[str, str]] = Counter()
        for entry in self._get(self._content, "topics_with_message_count", Sequence):
            topic = self._get(entry, "topic_metadata", Mapping)
            key = (self._get(topic, "name", str), self._get(topic, "type", str))
            counts[key] += self._count(entry, "message_count")
        return Metadata(
            version, storage, self._files(), compression, self._count(self._content, "message_count"), counts
        )

    def _files(self) -> tuple[Path, ...]:
        names = self._get(self._content, "relative_file_paths", Sequence)
        files = []
        for name in names:
            if not isinstance(name, str) or PurePosixPath(name).name in ("", "..", "."):
                raise self._error("relative_file_paths", "names of files", name)
            # Older versions put the bag's name before the file's; the files lie beside metadata.yaml in all of them.
            files.append(self._path.parent / PurePosixPath(name).name)
        if len(set(files)) != len(files):
            raise self._error("relative_file_paths", "files that differ", [file.name for file in files])
        return tuple(files)

    def _count(self, content: Any, key: str) -> int:
        count = self._get(content, key, int)
        if count < 0:
            raise self._error(key, "at least 0", count)
        return count

    def _get(self, content: Any, key: str, kind: type) -> Any:
        value = content.get(key) if isinstance(content, Mapping) else None
        wrong = isinstance(value, bool) or (kind is Sequence and isinstance(value, str))
        if not isinstance(value, kind) or wrong:
            names = {Mapping: "a mapping", Sequence: "a list", int: "a whole number", str: "text"}
            raise self._error(key, names[kind], value)
        return value

    def _error(self, key: str, expected: str, found: object) -> DataError:
        return DataError(f"{self._path}: {key}: expected {expected}, found {reprlib.repr(found)}")
