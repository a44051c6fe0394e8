"""Looking after a policy store: making room, and taking a policy elsewhere.

    names = prune(store, keep=10, dry_run=True)        # what would go
    export(store, "3f9a12", "for_the_other_robot")     # a bundle; `PolicyStore.add_bundle` takes it in
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from saferule_core.errors import StoreError
from saferule_core.store import bundle
from saferule_core.store.files import sync_directory
from saferule_core.store.store import PolicyStore


def prune(store: PolicyStore, keep: int, *, dry_run: bool = False, reason: str = "", asked_by: str = "") -> list[str]:
    """Delete old policies and return their ids, oldest first.

    The newest `keep` stay, and so do the active and the previous one with all their ancestors: their origin has to
    remain checkable. What the history says of the deleted ones stays, their marks included.

    Raises:
        StoreError: the store is damaged or locked.
    """
    ids = store.ids()
    kept = set(ids[len(ids) - keep :] if keep else ())
    for linked in (store.active(), store.previous()):
        kept.update(store.lineage(linked) if linked is not None else ())
    doomed = [policy_id for policy_id in ids if policy_id not in kept]
    if doomed and not dry_run:
        store.remove(doomed, reason, asked_by)
    return doomed


def export(store: PolicyStore, name: str, directory: str | Path) -> str:
    """Copy a policy with its signatures and report into a new directory and return its id.

    Raises:
        StoreError: there is no such policy, it is damaged, or the directory exists or cannot be written.
    """
    source, target = store.path(name), Path(directory)
    bundle.verify(source)
    if target.exists() or target.is_symlink():
        raise StoreError(f"{target}: expected a new directory to export to, found one that exists")
    temporary = target.with_name(f".outgoing-{secrets.token_hex(8)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, temporary)
        if bundle.content_id(temporary) != source.name:
            raise StoreError(f"{temporary}: expected a copy of policy {source.name[:12]}, found another")
        os.rename(temporary, target)
        sync_directory(target.parent)
    except OSError as error:
        raise StoreError(f"{target}: expected to write a policy bundle, found: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return source.name
