"""The policy store: every policy that a robot ever drove with, and which one drives now.

    store = PolicyStore("store")
    candidate = store.add(agent, spec, Card(seed=0, parent=store.active(), method="safe_rule"))
    store.activate(candidate, reason="passed validation")
    store.rollback(reason="violated its limit on probation", reject=True)

    policies/<content id>/   bundles; immutable, named by their content
    active, previous         symbolic links, each replaced in one step
    history.jsonl            what happened and on whose wish, hash-chained
    trusted_keys/            optional; from then on only policies that one of these keys signed, see `signing`

A policy may be named by its id, by six or more of its first hex digits where these are unambiguous, or as "active" or
"previous". Any number of processes may use a store; changes exclude each other by a lock file. A crash at any point
leaves `active` on a whole bundle, and the next change tidies up and records what it found. Readers take no lock.

A policy that the history speaks against (see `standing`) drives only where `force` says so. See `upkeep` for
exporting, pruning and checking a whole store.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saferule_core.agents import Agent
from saferule_core.errors import StoreError
from saferule_core.spec import RobotSpec
from saferule_core.store import bundle, signing
from saferule_core.store.card import Card
from saferule_core.store.checking import check_store
from saferule_core.store.files import replace_file, sync_directory
from saferule_core.store.folder import ACTIVE, INCOMING, PREVIOUS, StoreEntry, StoreFolder, check_marks
from saferule_core.store.origin import asker
from saferule_core.store.standing import marks_of

__all__ = ["PolicyStore", "StoreEntry"]


class PolicyStore(StoreFolder):
    """A directory of policies that can be changed.

    Args:
        create: make it if it does not exist.
        key: signs what is added; None takes the configured key, if there is one.

    Raises:
        StoreError: `root` cannot be made, is no directory, or does not exist and is not to be made.
    """

    def __init__(
        self, root: str | Path, create: bool = True, key: signing.Ed25519PrivateKey | None = None
    ) -> None:
        super().__init__(root, create)
        self._key = key

    def verify(self) -> int:
        """Check everything and return the number of policies. Raises as `checking.check_store`."""
        return check_store(self).policies

    def check_can_add(self) -> None:
        """Raise StoreError if this store only takes signed policies and there is no key here that it trusts."""
        trust = signing.trusted_keys(self._policies / INCOMING)
        if trust is None:
            return
        key = self._key or signing.configured_key()
        if key is None or signing.public_bytes(key) not in trust.keys:
            found = "no signing key" if key is None else f"key {signing.key_id(signing.public_bytes(key))}"
            raise StoreError(
                f"{self.root}: expected a signing key that {trust.source} trusts, to add a policy, found {found}; "
                f"name one in {signing.SIGNING_KEY}"
            )

    def add(self, agent: Agent, spec: RobotSpec, card: Card) -> str:
        """Put a policy in and return its id; it does not drive until it is activated.

        Raises:
            StoreError: a weight is not finite, the parent is malformed, the store cannot be written or is locked, or
                it takes signed policies only and there is no key to sign with.
        """
        self.check_can_add()
        return self._enter(lambda directory: bundle.write_files(directory, agent, spec, card, self._key))

    def add_bundle(self, directory: str | Path) -> str:
        """Copy a bundle from elsewhere into the store, with its signatures, and return its id.

        Raises:
            StoreError: it is missing, damaged or not signed as this store wants it, or the store cannot be written.
        """
        source = Path(directory)
        bundle.verify(source)

        def copy(target: Path) -> str:
            for entry in source.iterdir():
                if entry.name != bundle.REPORT:  # nothing vouches for it
                    shutil.copyfile(entry, target / entry.name, follow_symlinks=False)
                    (target / entry.name).chmod(0o444)
            sync_directory(target)
            bundle.verify(target)
            return bundle.content_id(target)

        return self._enter(copy)

    def add_report(self, name: str, report: bytes) -> None:
        """Put `report.json` beside a policy; the history has its hash, the policy's id does not."""
        with self._changing():
            policy_id = self.resolve(name)
            self._record("reported", policy_id=policy_id, report_sha256=hashlib.sha256(report).hexdigest())
            self._put_beside(policy_id, bundle.REPORT, report)

    def sign(self, name: str, key: signing.Ed25519PrivateKey) -> str:
        """Add a signature to a policy and return its id; the key signs once. Raises as `resolve` and `verify`."""
        with self._changing():
            policy_id = self.resolve(name)
            before = bundle.signatures(self._policies / policy_id)
            made = signing.sign(key, signing.POLICY, policy_id)
            if made not in before:  # Ed25519 is deterministic
                self._put_beside(policy_id, bundle.SIGNATURE, signing.encode_signatures([*before, made]))
                self._record("signed", policy_id=policy_id, key_id=made.key_id)
            return policy_id

    def record(self, event: str, policy_id: str | None = None, **facts: Any) -> None:
        """Write into the history what happened to a policy, or to an attempt to make one; facts are JSON-able."""
        with self._changing():
            self._record(event, policy_id=policy_id, **facts)

    def reject(self, name: str, reason: str = "", asked_by: str = "") -> str:
        """Mark a policy as one that is not to drive, and return its id; a running robot is not told."""
        with self._changing():
            policy_id = self.resolve(name)
            self._record("rejected", policy_id=policy_id, reason=reason, asked_by=asker(asked_by))
            return policy_id

    def activate(self, name: str, reason: str = "", *, force: bool = False, asked_by: str = "") -> str:
        """Let a policy drive: `active` points to it, `previous` to the one before. Return its id.

        force: even though the history speaks against it.

        Raises:
            StoreError: there is no such policy, it is damaged or not signed as this store wants it, the history speaks
                against it or is damaged, or the store is locked.
        """
        with self._changing():
            policy_id, before = self.resolve(name), self.active()
            forced = self._check_may_drive(policy_id, force)
            if before == policy_id and not forced:
                return policy_id
            if before not in (None, policy_id):
                self._link(PREVIOUS, before)
            self._link(ACTIVE, policy_id)
            self._record("activated", reason=reason, asked_by=asker(asked_by), **forced)
            return policy_id

    def rollback(
        self, reason: str = "", *, reject: bool = False, force: bool = False, asked_by: str = ""
    ) -> str:
        """Let the previous policy drive again, and keep the present one as `previous`. Return the new active id.

        reject: mark the present one as rejected, too; a repair that is rejected no longer speaks against the policy
        that it was made from. force: as for `activate`.

        Raises:
            StoreError: there is no previous policy, or as `activate`.
        """
        with self._changing():
            active, previous = self.resolve(ACTIVE), self.resolve(PREVIOUS)
            if reject:
                self._record("rejected", policy_id=active, reason=reason, asked_by=asker(asked_by))
            forced = self._check_may_drive(previous, force)
            self._link(ACTIVE, previous)
            self._link(PREVIOUS, active)
            self._record("rolled back", reason=reason, asked_by=asker(asked_by), **forced)
            return previous

    def remove(self, ids: Sequence[str], reason: str = "", asked_by: str = "") -> None:
        """Delete policies; the history keeps what it knows of them, and says that they were pruned.

        Raises:
            StoreError: one is not there, is active or previous, or the store is locked.
        """
        with self._changing():
            for name in ids:
                if self.resolve(name) in (self.active(), self.previous()):
                    raise StoreError(f"{self.root}: policy {name}: expected neither the active nor the previous one")
            for name in ids:
                policy_id = self.resolve(name)
                self._record("pruned", policy_id=policy_id, reason=reason, asked_by=asker(asked_by))
                doomed = self._policies / f"{INCOMING}{secrets.token_hex(8)}"
                os.rename(self._policies / policy_id, doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def _check_may_drive(self, policy_id: str, force: bool) -> dict[str, Any]:
        """Check bundle and history before a policy drives; return what to record of a forced step."""
        bundle.verify(self._policies / policy_id)
        marks = marks_of(self.history.verified()).get(policy_id, ())
        if not force:
            check_marks(self.root, policy_id, marks, "force (--force)")
        return {"forced": [str(mark) for mark in marks]} if marks else {}

    def _put_beside(self, policy_id: str, name: str, data: bytes) -> None:
        """Write a file into a bundle in one step; it is prepared outside, as a reader refuses unknown files."""
        replace_file(self._policies / policy_id / name, data, beside=self._policies / INCOMING.strip(".-"))

    def _enter(self, write: Callable[[Path], str]) -> str:
        """Write a bundle where nobody looks, then move it to its name in one step."""
        with self._changing():
            temporary = self._policies / f"{INCOMING}{secrets.token_hex(8)}"
            try:
                temporary.mkdir()
                policy_id = write(temporary)
                target = self._policies / policy_id
                if not target.exists():
                    os.rename(temporary, target)
                    sync_directory(self._policies)
                    self._record_added(policy_id)
            except OSError as error:
                raise StoreError(f"{self.root}: expected to add a policy, found: {error.strerror}") from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            return policy_id
