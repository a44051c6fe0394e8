"""How bags are to be read, where the usual way does not fit.

options = ReadOptions(tolerate_truncated=True, message_types=("src/my_msgs",), cache="store/columns")
contents = read_bags(["logs/day_1"], spec, options=options)
"""

from __future__ import annotations

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
