"""Checking a whole policy store: bundles, signatures, reports, links and history against each other.

    check = check_store(store)                         # check.policies, check.signed, check.head
    check_store(store, head=noted_last_week)           # and nothing was cut off the history since
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from saferule_core.errors import StoreError
from saferule_core.store import bundle
from saferule_core.store.folder import StoreFolder, known_policies


@dataclass(frozen=True)
class StoreCheck:
    """A store that is whole: number of policies, how many of them carry a signature, newest hash of the history."""

    policies: int
    signed: int
    head: str


def check_store(store: StoreFolder, head: str | None = None) -> StoreCheck:
    """Check every bundle, report, link and line of the history against each other.

    head: a hash of the history that was noted earlier; it has to be part of the chain still.

    Raises:
        StoreError: the first thing that is wrong, for example a policy that the history knows and that is not there.
    """
    found, entries = store.verify_history(head), store.history.entries()
    ids = store.ids()
    if lost := sorted(known_policies(entries) - set(ids)):
        raise StoreError(f"{store.root}: policy {lost[0][:12]}: expected it in the store, found it only in the history")
    reports: dict[str, set[str]] = {}
    for entry in entries:
        if entry["event"] == "reported":
            reports.setdefault(entry["policy_id"], set()).add(entry["report_sha256"])
    signed = 0
    for policy_id in ids:
        path = store.path(policy_id)
        bundle.verify(path)
        signed += bool(bundle.signatures(path))
        _check_report(path / bundle.REPORT, reports.get(policy_id))
    store.active(), store.previous()
    return StoreCheck(len(ids), signed, found)


def _check_report(path: Path, recorded: set[str] | None) -> None:
    """A report is no part of a policy's content, so the history vouches for it; reports of old stores have no hash.

    The history is written first, so a crash leaves an older report, or none.
    """
    if recorded is None or not path.is_file():
        return
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found not in recorded:
        raise StoreError(f"{path}: expected a report that the history knows, found one with the SHA-256 {found[:12]}")
