"""History of a policy store: append-only JSON lines, each carrying the hash of the one before.

    history = History(root / "history.jsonl")
    history.append("activated", policy_id=new, previous_id=old, reason="passed validation")
    history.verify()                            # raises StoreError at the first line that was changed or removed

Only the end can be cut off without trace, or all of it written anew; the head hash that `verify` returns can be kept
elsewhere against that, and `verify(head)` says whether it is still part of the chain.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from saferule_core.errors import StoreError
from saferule_core.store.files import sync_directory

FIRST = "0" * 64


class History:
    """A hash-chained log; callers that append hold the store's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, **facts: Any) -> dict[str, Any]:
        """Add a line and return it; it is on disk when this returns.

        A last line that a crash left half written was never part of the history: it is cut off, and the new line
        says so.
        """
        torn = self._torn_bytes()
        last = self.last()
        entry: dict[str, Any] = {
            "index": 0 if last is None else last["index"] + 1,
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "event": event,
            **facts,
            "before": FIRST if last is None else last["hash"],
        }
        if torn:
            entry["torn_bytes"] = torn
        entry["hash"] = entry_hash(entry)
        is_new = not self.path.exists()
        with open(self.path, "ab") as file:
            file.truncate(file.seek(0, os.SEEK_END) - torn)
            file.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_directory(self.path.parent)
        return entry

    def entries(self) -> list[dict[str, Any]]:
        """Return all whole lines, oldest first.

        Raises:
            StoreError: a line is no JSON object with index, event, before and hash.
        """
        return [self._parse(number, line) for number, line in enumerate(self._lines(), start=1)]

    def last(self) -> dict[str, Any] | None:
        """Return the newest whole line, None while there is none."""
        lines = self._lines()
        return self._parse(len(lines), lines[-1]) if lines else None

    def verify(self, head: str | None = None) -> str:
        """Check the whole chain and return the hash of its newest line.

        head: a hash that was the newest one once; it has to be part of the chain.

        Raises:
            StoreError: a line was changed, removed, inserted or moved; the message names it. Or `head` is not there.
        """
        hashes = [FIRST, *(entry["hash"] for entry in self.verified())]
        if head is not None and head not in hashes:
            raise StoreError(
                f"{self.path}: expected a line with the hash {head[:12]}, found none; lines were cut off or replaced"
            )
        return hashes[-1]

    def verified(self) -> list[dict[str, Any]]:
        """Return all whole lines, oldest first, after checking their chain. Raises as `verify`."""
        entries, before = self.entries(), FIRST
        for number, entry in enumerate(entries, start=1):
            where = f"{self.path}: line {number}"
            if entry["index"] != number - 1:
                raise StoreError(f"{where}: index: expected {number - 1}, found {entry['index']}")
            if entry["before"] != before:
                raise StoreError(f"{where}: before: expected {before[:12]}, found {str(entry['before'])[:12]}")
            found = entry_hash(entry)
            if entry["hash"] != found:
                raise StoreError(f"{where}: hash: expected {found[:12]}, found {str(entry['hash'])[:12]}")
            before = found
        return entries

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _lines(self) -> list[bytes]:
        return self._content().split(b"\n")[:-1]

    def _torn_bytes(self) -> int:
        return len(self._content().rsplit(b"\n", 1)[-1])

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise StoreError(f"{self.path}: line {number}: expected JSON, found: {error}") from error
        if not isinstance(entry, dict) or not {"index", "event", "before", "hash"} <= entry.keys():
            raise StoreError(f"{self.path}: line {number}: expected an entry with index, event, before and hash")
        return entry


def entry_hash(entry: Mapping[str, Any]) -> str:
    """Return the hash that a line has to carry, which is over all else in it."""
    content = {key: value for key, value in entry.items() if key != "hash"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
