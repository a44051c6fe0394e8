"""How bags are to be read, where the usual way does not fit.

options = ReadOptions(tolerate_truncated=True, message_types=("src/my_msgs",), cache="store/columns")
contents = read_bags(["logs/day_1"], spec, options=options)
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saferule_core.errors import DataError


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading bags.

    tolerate_truncated: take what can be read of a bag that was cut off or lacks messages, and say so in its record,
        instead of refusing it.
    message_types: .msg or .idl files, or directories with them (a package, or a `share` of many), for types that the
        bag does not define itself.
    cache: directory where what was read is kept by the content of the bag; None keeps nothing.
    roots: directories that bags have to lie in, symbolic links followed; empty allows all.
    """

    tolerate_truncated: bool = False
    message_types: tuple[str, ...] = ()
    cache: str | None = None
    roots: tuple[str, ...] = ()


USUAL = ReadOptions()


def check_inside(path: Path, roots: Sequence[str | Path]) -> None:
    """Raise DataError if `path`, its symbolic links followed, is not in one of `roots`; no roots allow all."""
    if not roots:
        return
    real = path.resolve()
    if not any(real.is_relative_to(Path(root).resolve()) for root in roots):
        allowed = ", ".join(str(root) for root in roots)
        raise DataError(f"{path}: expected a path inside {allowed}, found one that leads to {real}")


def read_regular(path: Path, largest: int) -> bytes:
    """Return the content of a file of at most `largest` bytes; a pipe is not waited for, a device is not read.

    Raises:
        DataError: it is larger, or no regular file. OSError: it cannot be read.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DataError(f"{path}: expected a regular file, found a pipe or a device")
        content = file.read(largest + 1)
        if len(content) > largest:
            raise DataError(f"{path}: expected at most {largest} bytes, found {os.fstat(file.fileno()).st_size}")
    return content
