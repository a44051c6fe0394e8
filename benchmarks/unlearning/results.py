"""What was measured, as JSON lines: one file per task, one line per cell and method, only ever appended to.

    with Results("benchmarks/results/unlearning").writing() as results:
        results.append(line)
    Results("benchmarks/results/unlearning").lines()

A line that a killed process left unfinished is cut off before the next one is written. Where a cell and method were
run again, the later line counts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.unlearning.grid import Plan
from saferule_core.errors import DataError, StoreError
from saferule_core.store.files import locked

Line = dict[str, Any]


class Results:
    """A folder of result files."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def lines(self) -> list[Line]:
        """Return the last line of every cell and method, in the order of the first.

        Raises:
            DataError: a line, other than an unfinished one at the end of a file, is damaged.
        """
        found: dict[tuple[str, str], Line] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for number, text in enumerate(_whole(path.read_bytes()).splitlines(), start=1):
                try:
                    line = json.loads(text)
                    found[line["key"], line["method"]] = line
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(f"{path}: line {number}: expected a result as JSON, found {error!r}") from error
        return list(found.values())

    def missing(self, plan: Plan, renewed: Collection[str] = ()) -> Plan:
        """Return the part of `plan` that has no line yet, or whose method is among `renewed`."""
        done = {(line["key"], line["method"]) for line in self.lines() if line["method"] not in renewed}
        left = [(cell, tuple(name for name in methods if (cell.key, name) not in done)) for cell, methods in plan]
        return [(cell, methods) for cell, methods in left if methods]

    @contextmanager
    def writing(self) -> Iterator[Results]:
        """Hold the folder against another run, and cut off unfinished lines.

        Raises:
            DataError: another process writes there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.folder / ".lock", timeout=0.1):
                for path in self.folder.glob("*.jsonl"):
                    if len(whole := _whole(path.read_bytes())) < path.stat().st_size:
                        os.truncate(path, len(whole))
                yield self
        except StoreError as error:
            raise DataError(f"{self.folder}: expected to be the only run that writes there, found another") from error

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line, so that it survives whatever comes next."""
        with (self.folder / f"{line['cell']['task']}.jsonl").open("ab") as file:
            file.write(json.dumps(_finite(line), allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _whole(content: bytes) -> bytes:
    """Return the content up to its last line end."""
    return content[: content.rfind(b"\n") + 1]


def _finite(value: Any) -> Any:
    """Return `value` with None for numbers that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, (list, tuple)) else value
