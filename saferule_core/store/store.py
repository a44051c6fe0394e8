"""The policy store: every policy that a robot ever drove with, and which one drives now.

    store = PolicyStore("store")
    candidate = store.add(agent, spec, Card(seed=0, parent=store.active(), method="safe_rule"))
    store.activate(candidate, reason="passed validation")
    store.rollback(reason="violated its limit on probation")

    policies/<content id>/   bundles; immutable, named by their content
    active, previous         symbolic links, each replaced in one step
    history.jsonl            what happened, hash-chained

A policy may be named by its id, by six or more of its first hex digits where these are unambiguous, or as "active" or
"previous". Any number of processes may use a store; changes exclude each other by a lock file. A crash at any point
leaves `active` on a whole bundle, and the next change tidies up and records what it found.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saferule_core.agents import Agent
from saferule_core.errors import StoreError
from saferule_core.spec import RobotSpec
from saferule_core.store import bundle
from saferule_core.store.card import Card
from saferule_core.store.files import locked, replace_file, replace_link, sync_directory
from saferule_core.store.history import History

ACTIVE, PREVIOUS = "active", "previous"
_POLICIES = "policies"
_INCOMING = ".incoming-"
_PREFIX = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class StoreEntry:
    """A policy in the store; `card` says where it comes from."""

    policy_id: str
    card: Card
    active: bool
    previous: bool


class PolicyStore:
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
        self._policies = self.root / _POLICIES
        self.history = History(self.root / "history.jsonl")
        try:
            self._policies.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.root}: expected a writable policy store, found: {error.strerror}") from error

    # -- reading ---------------------------------------------------------------------------------------------------

    def active(self) -> str | None:
        """Return the id of the policy that drives, None if there is none yet."""
        return self._linked(ACTIVE)

    def previous(self) -> str | None:
        """Return the id of the policy that `rollback` would return to, None if there is none."""
        return self._linked(PREVIOUS)

    def ids(self) -> list[str]:
        """Return all policy ids, oldest first."""
        found = [entry.name for entry in self._policies.iterdir() if not entry.name.startswith(_INCOMING)]
        return sorted(found, key=lambda name: (bundle.read_card(self._policies / name).created, name))

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

    def verify(self) -> int:
        """Check every bundle, the links and the history; return the number of policies.

        Raises:
            StoreError: the first thing that is wrong.
        """
        ids = self.ids()
        for policy_id in ids:
            bundle.verify(self._policies / policy_id)
        self.active(), self.previous()
        self.verify_history()
        return len(ids)

    def verify_history(self) -> str:
        """Check the history's hash chain; return its newest hash. Raises StoreError naming the line that is wrong."""
        return self.history.verify()

    # -- changing --------------------------------------------------------------------------------------------------

    def add(self, agent: Agent, spec: RobotSpec, card: Card) -> str:
        """Put a policy in and return its id; it does not drive until it is activated.

        Raises:
            StoreError: a weight is not finite, the parent is malformed, or the store cannot be written or is locked.
        """
        return self._enter(lambda directory: bundle.write_files(directory, agent, spec, card))

    def add_bundle(self, directory: str | Path) -> str:
        """Copy a bundle from elsewhere into the store and return its id.

        Raises:
            StoreError: it is missing, damaged, or the store cannot be written or is locked.
        """
        source = Path(directory)
        bundle.verify(source)

        def copy(target: Path) -> str:
            for name in bundle.CONTENT_FILES:
                shutil.copyfile(source / name, target / name)
                (target / name).chmod(0o444)
            sync_directory(target)
            bundle.verify(target)
            return bundle.content_id(target)

        return self._enter(copy)

    def add_report(self, name: str, report: bytes) -> None:
        """Put `report.json` beside a policy; it is not part of the policy's content. Raises as `resolve`."""
        with self._changing():
            replace_file(self.path(name) / bundle.REPORT, report)

    def activate(self, name: str, reason: str = "") -> str:
        """Let a policy drive: `active` points to it, `previous` to the one before. Return its id.

        Raises:
            StoreError: there is no such policy, it is damaged, or the store is locked.
        """
        with self._changing():
            policy_id = self.resolve(name)
            bundle.verify(self._policies / policy_id)
            before = self.active()
            if before == policy_id:
                return policy_id
            if before is not None:
                self._link(PREVIOUS, before)
            self._link(ACTIVE, policy_id)
            self._record("activated", reason=reason)
            return policy_id

    def rollback(self, reason: str = "") -> str:
        """Let the previous policy drive again, and keep the present one as `previous`. Return the new active id.

        Raises:
            StoreError: there is no previous policy, it is damaged, or the store is locked.
        """
        with self._changing():
            active, previous = self.resolve(ACTIVE), self.resolve(PREVIOUS)
            bundle.verify(self._policies / previous)
            self._link(ACTIVE, previous)
            self._link(PREVIOUS, active)
            self._record("rolled back", reason=reason)
            return previous

    def _enter(self, write: Callable[[Path], str]) -> str:
        """Write a bundle where nobody looks, then move it to its name in one step."""
        with self._changing():
            temporary = self._policies / f"{_INCOMING}{secrets.token_hex(8)}"
            try:
                temporary.mkdir()
                policy_id = write(temporary)
                target = self._policies / policy_id
                if not target.exists():
                    os.rename(temporary, target)
                    sync_directory(self._policies)
                    parent = bundle.read_card(target).parent
                    self._record("added", policy_id=policy_id, parent=parent)
            except OSError as error:
                raise StoreError(f"{self.root}: expected to add a policy, found: {error.strerror}") from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            return policy_id

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock, after tidying up what a crash may have left."""
        with locked(self.root / ".lock"):
            for left in self._policies.glob(f"{_INCOMING}*"):
                shutil.rmtree(left, ignore_errors=True)
            self._reconcile()
            yield

    def _reconcile(self) -> None:
        """Make links and history agree after a crash between them; the `active` link is what counts."""
        active, previous, last = self.active(), self.previous(), self.history.last()
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

    def _record(self, event: str, **facts: Any) -> None:
        self.history.append(event, **facts, active=self.active(), previous=self.previous())

    def _link(self, name: str, policy_id: str) -> None:
        replace_link(self.root / name, f"{_POLICIES}/{policy_id}")

    def _linked(self, name: str) -> str | None:
        link = self.root / name
        if not link.is_symlink():
            return None
        target = Path(os.readlink(link))
        if target.parent != Path(_POLICIES) or not (self._policies / target.name).is_dir():
            raise StoreError(f"{link}: expected a link to a policy in {self._policies}, found {target}")
        return target.name
