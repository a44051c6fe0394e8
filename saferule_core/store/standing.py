"""What the history says against a policy: marks that keep it from driving again without an explicit wish.

    marks = marks_of(store.history.verified())
    marks.get(policy_id, ())          # (Mark("poisoned", "it learned from day_3, which 3f9a12… forgot"), ...)

rejected     it was taken back on probation, or an operator rejected it
refused      the gate refused it, when it was judged last
superseded   a policy that was repaired from it, directly or not, has driven; going back would bring the poison back
poisoned     it learned from a bag, or from episodes of one, that a policy that has driven was made to forget

A repair that was itself rejected says nothing against others any more: then its incumbent is the better one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Mark:
    """One thing that speaks against a policy; `why` completes "it is <kind>: ..."."""

    kind: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.why}"


def marks_of(entries: Sequence[Entry]) -> dict[str, tuple[Mark, ...]]:
    """Return the marks of every policy that has any; `entries` are a history's, oldest first."""
    found: dict[str, list[Mark]] = {}
    added = {entry["policy_id"]: entry for entry in entries if entry["event"] == "added"}
    rejected = {entry["policy_id"]: entry for entry in entries if entry["event"] == "rejected"}
    judged = {entry["policy_id"]: entry for entry in entries if entry["event"] == "judged"}
    for policy_id, entry in rejected.items():
        why = entry.get("reason") or "no reason was given"
        found.setdefault(policy_id, []).append(Mark("rejected", f"{why} ({entry['time'][:19]})"))
    for policy_id, entry in judged.items():
        if not entry["accepted"]:
            found.setdefault(policy_id, []).append(Mark("refused", entry["message"]))
    for repair in _standing_repairs(entries, added, rejected):
        for ancestor in _ancestors(repair, added):
            why = f"{repair[:12]} was repaired from it and has driven"
            found.setdefault(ancestor, []).append(Mark("superseded", why))
        forgotten = {bag["sha256"]: bag["name"] for bag in added[repair].get("forgotten", ())}
        for policy_id, entry in added.items():
            shared = {bag["sha256"] for bag in entry.get("used", ())} & forgotten.keys()
            shared = {sha256 for sha256 in shared if _shares_episodes(entry, added[repair], sha256)}
            if names := sorted(forgotten[sha256] for sha256 in shared):
                why = f"it learned from {', '.join(names)}, which {repair[:12]} forgot"
                found.setdefault(policy_id, []).append(Mark("poisoned", why))
    return {policy_id: tuple(marks) for policy_id, marks in found.items()}


def was_forced(entries: Sequence[Entry], policy_id: str) -> bool:
    """Say whether the last step that let `policy_id` drive was taken against its marks, on explicit wish."""
    steps = [e for e in entries if e["event"] in ("activated", "rolled back") and e.get("active") == policy_id]
    return bool(steps) and bool(steps[-1].get("forced"))


def _standing_repairs(
    entries: Sequence[Entry], added: Mapping[str, Entry], rejected: Mapping[str, Entry]
) -> list[str]:
    """Return the policies that forgot something, have driven, and were not rejected; each once, in order."""
    driven = dict.fromkeys(entry.get("active") for entry in entries)
    return [name for name in driven if name in added and _forgets(added[name]) and name not in rejected]


def _shares_episodes(learner: Entry, repair: Entry, sha256: str) -> bool:
    """Say whether a policy learned from episodes of a bag that a repair forgot, as far as the history can tell.

    Which episodes of a bag are meant is only written down where not all of them are.
    """
    used = learner.get("configuration", {}).get("episodes", {}).get("used", {}).get(sha256)
    forgotten = repair.get("configuration", {}).get("episodes", {}).get("forgotten", {}).get(sha256)
    return used is None or forgotten is None or bool(set(used) & set(forgotten))


def _forgets(entry: Entry) -> bool:
    return bool(entry.get("forgotten")) or "forget" in entry.get("data", {})


def _ancestors(policy_id: str, added: Mapping[str, Entry]) -> list[str]:
    """Return whom a repair goes back to, youngest first; a history may name a policy that it never added."""
    line = [policy_id]
    for name in line:  # it grows while it is walked
        entry = added.get(name)
        parents = () if entry is None or not _forgets(entry) else entry.get("parents", ())
        line += [parent for parent in parents if parent not in line]
    return line[1:]
