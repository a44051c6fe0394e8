"""Checking a whole store, and looking after it: pruning, exporting."""

import pytest
import torch

from saferule_core import agents
from saferule_core.errors import StoreError
from saferule_core.store import Card, PolicyStore, bundle, signing
from saferule_core.store.checking import check_store
from saferule_core.store.upkeep import export, prune


@pytest.fixture
def store(tmp_path):
    return PolicyStore(tmp_path / "store")


@pytest.fixture
def add(store, point_spec):
    """Adds the policy of a seed and returns its id."""

    def enter(seed, **card):
        torch.manual_seed(seed)
        agent = agents.build("return_conditioned", 5, 2, {"hidden": (4,)})
        return store.add(agent, point_spec, Card(seed=seed, created=f"2026-01-0{seed}", **card))

    return enter


# -- checking ----------------------------------------------------------------------------------------------------------


def test_a_whole_store_is_counted(store, add, tmp_path):
    store.sign(add(1), signing.generate(tmp_path / "key.pem"))
    add(2)
    check = check_store(store)
    assert (check.policies, check.signed, check.head) == (2, 1, store.history.last()["hash"])


def test_a_policy_that_is_gone_is_missed(store, add, tmp_path):
    add(1)
    store.path(add(2)).rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="expected it in the store, found it only in the history"):
        check_store(store)


def test_a_report_that_was_changed_is_found(store, add):
    first = add(1)
    store.add_report(first, b'{"accepted": false}')
    check_store(store)
    (store.path(first) / bundle.REPORT).write_bytes(b'{"accepted": true}')
    with pytest.raises(StoreError, match="report.json: expected a report that the history knows"):
        check_store(store)


# -- pruning -----------------------------------------------------------------------------------------------------------


def test_pruning_keeps_the_newest_and_what_drives_with_its_ancestors(store, add):
    first, lone = add(1), add(2)
    child = add(3, parent=first)
    others = [add(4), add(5)]
    store.activate(child)
    assert prune(store, 1, dry_run=True) == [lone, others[0]] and len(store.ids()) == 5
    assert prune(store, 1, reason="room") == [lone, others[0]]
    assert store.ids() == [first, child, others[1]]
    assert [(e["event"], e["policy_id"], e["reason"]) for e in store.history.entries()[-2:]] == [
        ("pruned", lone, "room"), ("pruned", others[0], "room"),
    ]  # fmt: skip
    assert check_store(store).policies == 3


def test_a_rejected_policy_stays_rejected_when_it_comes_back(store, add, tmp_path):
    first = add(1)
    store.reject(first, "swerves")
    export(store, first, tmp_path / "copy")
    assert prune(store, 0) == [first]
    assert store.add_bundle(tmp_path / "copy") == first
    with pytest.raises(StoreError, match="rejected: swerves"):
        store.activate(first)


def test_the_active_policy_cannot_be_removed(store, add):
    store.activate(add(1))
    with pytest.raises(StoreError, match="expected neither the active nor the previous one"):
        store.remove([store.active()])


# -- exporting ---------------------------------------------------------------------------------------------------------


def test_an_exported_policy_is_a_bundle_with_signature_and_report(store, add, tmp_path):
    first = store.sign(add(1), signing.generate(tmp_path / "key.pem"))
    store.add_report(first, b"{}")
    assert export(store, first, tmp_path / "out" / "copy") == first
    bundle.verify(tmp_path / "out" / "copy")
    assert bundle.signatures(tmp_path / "out" / "copy") and (tmp_path / "out" / "copy" / bundle.REPORT).is_file()
    other = PolicyStore(tmp_path / "other")
    assert other.add_bundle(tmp_path / "out" / "copy") == first
    assert not (other.path(first) / bundle.REPORT).exists(), "nothing vouches for a report from elsewhere"


def test_nothing_is_overwritten_by_an_export(store, add, tmp_path):
    first = add(1)
    export(store, first, tmp_path / "copy")
    with pytest.raises(StoreError, match="copy: expected a new directory to export to"):
        export(store, first, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "store"]
