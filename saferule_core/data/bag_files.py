"""Which files make up a bag, and how they are packed.

bag = find_bag(Path("logs/day_1"), ReadOptions())
for file in bag.files:
    with opened(file, bag.storage, bag.compression == "file") as storage: ...
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rosbags.rosbag2.reader import zstd

from saferule_core.data.bag_metadata import Metadata, read_metadata
from saferule_core.data.reading import ReadOptions, check_inside
from saferule_core.data.storage import Damaged, StorageFile, open_storage
from saferule_core.errors import DataError

ENDINGS = {".mcap": "mcap", ".db3": "sqlite3"}
PIECE = 1 << 20
ALWAYS_UNPACKED, LARGEST_RATIO = 1 << 30, 1000
"""A packed file may unpack to so many bytes, or to so many times its size if that is more."""


@dataclass(frozen=True)
class BagFiles:
    """The files of a bag, in order.

    storage: "mcap" or "sqlite3". packed: whole files are compressed. messages_packed: each message is.
    metadata: None where there is none. notes: what a user of the data should know.
    """

    path: Path
    storage: str
    files: tuple[Path, ...]
    packed: bool
    messages_packed: bool
    metadata: Metadata | None
    notes: tuple[str, ...] = ()


def find_bag(path: Path, options: ReadOptions) -> BagFiles:
    """Return the files of the bag at `path`: a directory, or one .mcap or .db3 file (.zstd after it: packed).

    Raises:
        DataError: there is no bag, its metadata is wrong, a file is missing or no regular one, or leads out of the
            allowed roots.
    """
    check_inside(path, options.roots)
    try:
        if not path.exists():
            raise DataError(
                f"{path}: expected a rosbag2 bag, found no such path; check the name and the working directory"
            )
        check_inside(path / "metadata.yaml" if path.is_dir() else path, options.roots)
        found = _of_directory(path) if path.is_dir() else _of_file(path, ())
        for file in found.files:
            check_inside(file, options.roots)
            if not file.exists():
                raise DataError(f"{path}: expected the file {file.name}, as its metadata says, found no such file")
            if not file.is_file():
                raise DataError(f"{path}: expected the file {file.name}, found something that is no regular file")
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: expected a rosbag2 bag, found: {error}") from error
    return found


def _of_directory(path: Path) -> BagFiles:
    if (path / "metadata.yaml").exists():
        metadata = read_metadata(path)
        return BagFiles(
            path, metadata.storage, metadata.files, metadata.compression == "file",
            metadata.compression == "message", metadata,
        )  # fmt: skip
    entries = sorted(path.iterdir())
    files = [entry for entry in entries if entry.with_suffix("").suffix in ENDINGS or entry.suffix in ENDINGS]
    if len(files) == 1:
        note = f"no metadata.yaml: {files[0].name} was read as the whole bag"
        return _of_file(files[0], (note,))
    if files:
        names = ", ".join(file.name for file in files[:5])
        raise DataError(
            f"{path}: expected metadata.yaml, which says in which order its {len(files)} files are to be read, "
            f"found {names}; name the files one by one"
        )
    listing = ", ".join(entry.name for entry in entries[:5]) or "nothing in it"
    raise DataError(f"{path}: expected a rosbag2 bag (a directory with metadata.yaml), found {listing}")


def _of_file(path: Path, notes: tuple[str, ...]) -> BagFiles:
    packed = path.suffix == ".zstd"
    ending = path.with_suffix("").suffix if packed else path.suffix
    if ending not in ENDINGS:
        kind = "a file of another kind"
        if ending == ".bag":
            kind = "one of ROS 1; convert it with `rosbags-convert`, from the package rosbags"
        raise DataError(f"{path}: expected a readable rosbag2 bag (MCAP or sqlite3), found {kind}")
    return BagFiles(path, ENDINGS[ending], (path,), packed, False, None, notes)


@contextmanager
def opened(file: Path, bag: BagFiles, tolerant: bool) -> Iterator[StorageFile]:
    """Give one file of a bag, open and unpacked.

    Raises:
        Damaged: it cannot be read.
    """
    with TemporaryDirectory(prefix="saferule_bag_") as folder:
        source = _unpack(file, Path(folder) / "file", tolerant) if bag.packed else file
        storage = open_storage(source, bag.storage, tolerant)
        try:
            yield storage
        finally:
            storage.close()


def _unpack(file: Path, target: Path, tolerant: bool) -> Path:
    """Unpack a zstd file; it may not fill the disk, nor be a bomb."""
    largest = max(ALWAYS_UNPACKED, LARGEST_RATIO * file.stat().st_size)
    room = shutil.disk_usage(target.parent).free * 9 // 10
    try:
        with file.open("rb") as packed, zstd.open(packed, "rb") as stream, target.open("wb") as out:
            while piece := stream.read(PIECE):
                if (size := out.tell() + len(piece)) > room:
                    raise Damaged(f"expected a file that fits on the disk when unpacked, found more in {file.name}")
                if size > largest:
                    raise Damaged(
                        f"expected at most {largest} bytes in {file.name} ({file.stat().st_size} bytes packed), found "
                        "more; if it is no trap, unpack it first"
                    )
                out.write(piece)
    except (zstd.ZstdError, EOFError) as error:
        if not tolerant:
            raise Damaged(f"expected a file in zstd, found: {error or type(error).__name__}") from error
    return target


def damaged(path: Path, error: BaseException) -> DataError:
    """Return the error of a bag that cannot be read."""
    reason = str(error).strip() or type(error).__name__
    return DataError(f"{path}: expected a readable rosbag2 bag (MCAP or sqlite3), found it damaged: {reason}")
