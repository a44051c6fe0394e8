"""The folder of a policy store: names, links, what may be read without a lock, and how a change begins.

    folder = StoreFolder("store")
    folder.active(), folder.list(), folder.path("3f9a12"), folder.marks("previous")

`PolicyStore` adds the changes. Disk and history are made to agree at the beginning of each.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from saferule_core.errors import StoreError
from saferule_core.store import bundle, signing
from saferule_core.store.card import Card
from saferule_core.store.files import locked, replace_link
from saferule_core.store.history import History
from saferule_core.store.origin import asker
from saferule_core.store.standing import Mark, marks_of, was_forced

ACTIVE, PREVIOUS = "active", "previous"
POLICIES = signing.POLICIES_FOLDER
INCOMING = ".incoming-"
_PREFIX = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class StoreEntry:
    """A policy in the store; `card` says where it comes from."""

    policy_id: str
    card: Card
    active: bool
    previous: bool


class StoreFolder:
    """A directory of policies.

    Args:
        create: make it if it does not exist.

    Raises:
        StoreError: `root` cannot be made, is no directory, or does not exist and is not to be made.
    """

    def __init__(self, root: str | Path, create: bool = True) -> None:
        self.root = Path(root)
        if not create and not self.root.is_dir():
            raise StoreError(f"{self.root}: expected a policy store, found no such directory; train a policy into it")
        self._policies = self.root / POLICIES
        self.history = History(self.root / "history.jsonl")
        try:
            self._policies.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.root}: expected a writable policy store, found: {error.strerror}") from error

    def active(self) -> str | None:
        """Return the id of the policy that drives, None if there is none yet."""
        return self._linked(ACTIVE)

    def previous(self) -> str | None:
        """Return the id of the policy that `rollback` would return to, None if there is none."""
        return self._linked(PREVIOUS)

    def ids(self) -> list[str]:
        """Return all policy ids, oldest first. Raises StoreError if a card is damaged."""
        created = {}
        for name in self._names():
            try:
                created[name] = bundle.read_card(self._policies / name).created
            except StoreError:
                if (self._policies / name).exists():  # else it was pruned just now
                    raise
        return sorted(created, key=lambda name: (created[name], name))

    def list(self) -> list[StoreEntry]:
        """Return all policies with their cards, oldest first.

        Raises:
            StoreError: a card is damaged.
        """
        active, previous = self.active(), self.previous()
        return [StoreEntry(name, self.card(name), name == active, name == previous) for name in self.ids()]

    def resolve(self, name: str) -> str:
        """Return the full id of a policy named by id, unambiguous prefix, "active" or "previous".

        Raises:
            StoreError: there is no such policy, or there are several.
        """
        if name in (ACTIVE, PREVIOUS):
            linked = self._linked(name)
            if linked is None:
                raise StoreError(f"{self.root}: {name}: expected a policy, found none; activate one first")
            return linked
        if not _PREFIX.fullmatch(name):
            raise StoreError(f"{self.root}: policy: expected active, previous or 6 to 64 hex digits, found {name!r}")
        found = sorted(entry.name for entry in self._policies.glob(f"{name}*"))
        if len(found) != 1:
            several = f"{len(found)}: {', '.join(entry[: len(name) + 4] for entry in found)}" if found else "none"
            raise StoreError(f"{self.root}: policy {name}: expected exactly one that begins so, found {several}")
        return found[0]

    def path(self, name: str) -> Path:
        """Return the bundle directory of a policy. Raises as `resolve`."""
        return self._policies / self.resolve(name)

    def card(self, name: str) -> Card:
        """Return the card of a policy. Raises as `resolve`, and StoreError if the card is damaged."""
        return bundle.read_card(self.path(name))

    def lineage(self, name: str) -> list[str]:
        """Return the ids of a policy and its ancestors, youngest first, as far as they are in this store."""
        line = [self.resolve(name)]
        while (parent := self.card(line[-1]).parent) is not None and (self._policies / parent).is_dir():
            if parent in line:
                raise StoreError(f"{self.root}: policy {parent[:12]}: expected no policy to be its own ancestor")
            line.append(parent)
        return line

    def marks(self, name: str) -> tuple[Mark, ...]:
        """Return what the history says against a policy. Raises as `resolve` and `verify_history`."""
        return marks_of(self.history.verified()).get(self.resolve(name), ())

    def path_to_drive(self, name: str) -> Path:
        """Return the bundle directory of a policy that is about to drive.

        Raises:
            StoreError: as `resolve` and `verify_history`, or the history speaks against it and nobody forced it.
        """
        policy_id, entries = self.resolve(name), self.history.verified()
        if policy_id != self.active() or not was_forced(entries, policy_id):
            marks = marks_of(entries).get(policy_id, ())
            check_marks(self.root, policy_id, marks, "`saferule policies activate --force`")
        return self._policies / policy_id

    def verify_history(self, head: str | None = None) -> str:
        """Check the history's hash chain; return its newest hash. Arguments and errors as `History.verify`."""
        return self.history.verify(head)

    def tidy(self, timeout: float = 0.2) -> None:
        """Remove what a crash may have left, as every change does first.

        Raises:
            StoreError: somebody else holds the store for longer than `timeout` [s].
        """
        with self._changing(timeout):
            pass

    # -- beginning a change -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changing(self, timeout: float = 10.0) -> Iterator[None]:
        """Hold the lock, after tidying up what a crash may have left.

        Raises:
            StoreError: somebody else holds it for longer than `timeout` [s], or a file cannot be written.
        """
        with locked(self.root / ".lock", timeout):
            try:
                for left in self._policies.glob(f"{INCOMING}*"):
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
                self._reconcile()
                yield
            except OSError as error:
                reason = error.strerror or error
                raise StoreError(f"{self.root}: expected a store that can be changed, found: {reason}") from error

    def _reconcile(self) -> None:
        """Make disk and history agree after a crash between them; what is on disk is what counts."""
        entries = self.history.entries()
        for policy_id in sorted(set(self._names()) - known_policies(entries)):
            with contextlib.suppress(StoreError):  # no bundle: a whole check of the store says so
                self._record_added(policy_id)
        active, previous, last = self.active(), self.previous(), entries[-1] if entries else None
        known = (last or {}).get(ACTIVE), (last or {}).get(PREVIOUS)
        if (active, previous) == known:
            return
        if active is not None and active == previous:
            # A crash between the two links: the policy that is not active now is the one to go back to.
            other = known[1] if active == known[0] else known[0]
            if other is not None and other != active and (self._policies / other).is_dir():
                self._link(PREVIOUS, other)
            else:
                (self.root / PREVIOUS).unlink()
        self._record("found")

    def _record_added(self, policy_id: str) -> None:
        card = bundle.read_card(self._policies / policy_id)
        origin = msgspec.to_builtins(card.origin)
        self._record(
            "added",
            policy_id=policy_id,
            parents=[card.parent] if card.parent else [],
            asked_by=asker(card.origin.asked_by),
            method=card.method,
            algorithm=card.algorithm,
            configuration={"hyperparameters": card.hyperparameters, **card.details},
            seed=card.seed,
            data=card.data,
            used=origin["used"],
            forgotten=origin["forgotten"],
            spec_hash=card.spec_hash,
            code_version=card.code_version,
        )

    def _record(self, event: str, **facts: Any) -> None:
        facts = json.loads(msgspec.json.encode(facts))  # a number that is not finite becomes null: JSON has none
        self.history.append(event, **facts, active=self.active(), previous=self.previous())

    def _names(self) -> list[str]:
        return [entry.name for entry in self._policies.iterdir() if not entry.name.startswith(".")]

    def _link(self, name: str, policy_id: str) -> None:
        replace_link(self.root / name, f"{POLICIES}/{policy_id}")

    def _linked(self, name: str) -> str | None:
        link = self.root / name
        if not link.is_symlink():
            return None
        target = Path(os.readlink(link))
        if target.parent != Path(POLICIES) or not (self._policies / target.name).is_dir():
            raise StoreError(f"{link}: expected a link to a policy in {self._policies}, found {target}")
        return target.name


def known_policies(entries: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the policies that a history has added and not pruned."""
    known: set[str] = set()
    for entry in entries:
        if entry["event"] == "added":
            known.add(entry["policy_id"])
        elif entry["event"] == "pruned":
            known.discard(entry["policy_id"])
    return known


def check_marks(root: Path, policy_id: str, marks: tuple[Mark, ...], remedy: str) -> None:
    """Raise StoreError, which names the remedy, if there is a mark."""
    if marks:
        raise StoreError(
            f"{root}: policy {policy_id[:12]}: expected one that the history says nothing against, found "
            f"{'; '.join(str(mark) for mark in marks)}; {remedy} lets it drive all the same"
        )
