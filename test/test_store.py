"""The policy store: names, links, history, crashes and concurrent use."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saferule_core import agents
from saferule_core.errors import StoreError
from saferule_core.store import BagOrigin, Card, Origin, PolicyStore, bundle, files, folder
from saferule_core.store import store as store_module


def make_agent(seed=0):
    torch.manual_seed(seed)
    return agents.build("return_conditioned", 5, 2, {"hidden": (4,)})


@pytest.fixture
def store(tmp_path):
    return PolicyStore(tmp_path / "store")


@pytest.fixture
def add(store, point_spec):
    """Adds the policy of a seed and returns its id."""

    def enter(seed, **card):
        return store.add(make_agent(seed), point_spec, Card(seed=seed, created=f"2026-01-0{seed}", **card))

    return enter


def test_an_empty_store_has_no_active_policy(store):
    assert (store.active(), store.previous(), store.list()) == (None, None, [])
    with pytest.raises(StoreError, match="active: expected a policy, found none"):
        store.path("active")
    with pytest.raises(StoreError, match="active: expected a policy, found none"):
        store.rollback()


def test_policies_are_named_by_content_and_checked(store, add, point_spec):
    policy_id = add(1)
    assert store.path(policy_id).name == policy_id == bundle.content_id(store.path(policy_id))
    assert store.active() is None
    assert bundle.load_policy(store.path(policy_id), point_spec).policy_id == policy_id
    assert add(1) == policy_id and len(store.list()) == 1


def test_activation_moves_the_old_policy_to_previous_and_rollback_swaps_back(store, add):
    first, second = add(1), add(2)
    store.activate(first)
    store.activate(second, reason="passed validation")
    assert (store.active(), store.previous()) == (second, first)
    assert store.rollback(reason="violated") == first
    assert (store.active(), store.previous()) == (first, second)
    assert [entry["event"] for entry in store.history.entries()] == [
        "added", "added", "activated", "activated", "rolled back",
    ]  # fmt: skip
    assert [entry["reason"] for entry in store.history.entries()[3:]] == ["passed validation", "violated"]
    assert store.verify() == 2


def test_activating_the_active_policy_keeps_the_way_back(store, add):
    first, second = add(1), add(2)
    store.activate(first)
    store.activate(second)
    store.activate(second)
    assert store.previous() == first


def test_there_is_no_way_back_from_the_first_policy(store, add):
    store.activate(add(1))
    with pytest.raises(StoreError, match="previous: expected a policy, found none"):
        store.rollback()


def test_a_disk_that_is_full_at_an_activation_is_said_and_nothing_moves(store, add, monkeypatch):
    first, second = add(1), add(2)
    store.activate(first)

    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("saferule_core.store.folder.replace_link", full)
    with pytest.raises(StoreError, match="found: No space left on device"):
        store.activate(second)
    assert store.active() == first


def test_names_are_prefixes_or_links(store, add):
    first = add(1)
    store.activate(first[:8])
    assert store.resolve(first[:6]) == store.resolve("active") == first
    for name, message in [
        (first[:5], "6 to 64 hex digits"),
        ("../../etc", "6 to 64 hex digits"),
        ("0" * 64 if first[0] != "0" else "1" * 64, "found none"),
    ]:
        with pytest.raises(StoreError, match=message):
            store.resolve(name)


def test_an_ambiguous_prefix_is_refused(store):
    for ending in "ab":
        (store.root / "policies" / ("0123456" + ending * 57)).mkdir()
    with pytest.raises(StoreError, match="expected exactly one that begins so, found 2"):
        store.resolve("0123456")
    assert store.resolve("0123456a") == "0123456" + "a" * 57


def test_lineage_follows_parents(store, add):
    first = add(1)
    second = add(2, parent=first)
    third = add(3, parent=second)
    assert store.lineage(third) == [third, second, first]
    assert store.lineage(add(4, parent="f" * 64))[1:] == []
    assert [entry.policy_id for entry in store.list()][:3] == [first, second, third]


def test_a_changed_policy_is_never_activated(store, add):
    first, second = add(1), add(2)
    store.activate(first)
    weights = store.path(second) / bundle.WEIGHTS
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match="the bundle was changed"):
        store.activate(second)
    assert store.active() == first
    with pytest.raises(StoreError, match="the bundle was changed"):
        store.verify()


def test_bundles_from_elsewhere_are_copied_and_keep_their_id(store, tmp_path, point_spec):
    outside = bundle.save(tmp_path / "outside", make_agent(7), point_spec, Card(seed=7))
    assert store.add_bundle(tmp_path / "outside") == outside
    assert store.verify() == 1


def test_a_report_comes_later_and_leaves_the_content_alone(store, add):
    first = add(1)
    store.add_report(first[:10], b"{}")
    store.add_report(first, b'{"accepted": true}')
    assert json.loads((store.path(first) / bundle.REPORT).read_bytes()) == {"accepted": True}
    assert store.verify() == 1


# -- history -----------------------------------------------------------------------------------------------------------


def history_lines(store):
    return store.history.path.read_bytes().splitlines(keepends=True)


@pytest.fixture
def busy_store(store, add):
    first, second = add(1), add(2)
    store.activate(first)
    store.activate(second)
    store.rollback()
    return store


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_change_to_the_history_is_found(busy_store, data):
    lines = history_lines(busy_store)
    path = busy_store.history.path
    number = data.draw(st.integers(0, len(lines) - 1))
    kind = data.draw(st.sampled_from(["edit", "drop", "repeat", "swap"]))
    changed = list(lines)
    if kind == "edit":
        changed[number] = lines[number].replace(b'"event": "', b'"event": "x')
    elif kind == "drop" and number < len(lines) - 1:
        del changed[number]
    elif kind == "repeat":
        changed.insert(number, lines[number])
    else:
        changed[number], changed[number - 1] = lines[number - 1], lines[number]
    try:
        path.write_bytes(b"".join(changed))
        if changed == lines:
            busy_store.verify_history()
        else:
            with pytest.raises(StoreError, match="line"):
                busy_store.verify_history()
    finally:
        path.write_bytes(b"".join(lines))


def test_the_newest_hash_shows_a_history_that_was_cut_off(busy_store):
    head = busy_store.verify_history()
    busy_store.history.path.write_bytes(b"".join(history_lines(busy_store)[:-1]))
    assert busy_store.verify_history() != head


@given(cut=st.integers(1, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
def test_a_line_that_a_crash_left_half_written_is_cut_off_and_told(busy_store, cut):
    before = history_lines(busy_store)
    torn = before[-1][:cut].rstrip(b"\n")
    with open(busy_store.history.path, "ab") as file:
        file.write(torn)
    busy_store.verify_history()
    busy_store.rollback()
    entries = busy_store.history.entries()
    assert len(entries) == len(before) + 1 and entries[-1]["torn_bytes"] == len(torn)
    busy_store.verify_history()


# -- crashes -----------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for a power cut: nothing in the code catches it."""


def crash_after(monkeypatch, steps):
    """Let the store die before its n-th durable step (file, rename, link, history line)."""
    left = [steps]

    def wrap(function):
        def step(*args, **kwargs):
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return function(*args, **kwargs)

        return step

    monkeypatch.setattr(bundle, "write_durably", wrap(files.write_durably))
    monkeypatch.setattr(folder, "replace_link", wrap(files.replace_link))
    monkeypatch.setattr(folder.History, "append", wrap(folder.History.append))
    monkeypatch.setattr(store_module.os, "rename", wrap(os.rename))
    # A dead process does not clean up after itself.
    monkeypatch.setattr(store_module.shutil, "rmtree", lambda *args, **kwargs: None)


@pytest.mark.parametrize("steps", range(8))
def test_a_crash_while_adding_leaves_the_store_usable(store, add, point_spec, steps):
    first = add(1)
    store.activate(first)
    with pytest.MonkeyPatch.context() as monkeypatch:
        crash_after(monkeypatch, steps)
        with contextlib.suppress(Crash):
            add(2)
    again = PolicyStore(store.root)
    assert bundle.load_policy(again.path("active"), point_spec).policy_id == first
    second = add(2)
    again.activate(second)
    assert again.verify() == 2 and not list(again.root.glob("policies/.*"))


@pytest.mark.parametrize("action", ["activate", "rollback"])
@pytest.mark.parametrize("steps", range(4))
def test_a_crash_while_switching_leaves_one_of_both_policies_active_and_the_way_back(
    store, add, point_spec, action, steps
):
    first, second, third = add(1), add(2), add(3)
    store.activate(first)
    store.activate(second)
    with pytest.MonkeyPatch.context() as monkeypatch:
        crash_after(monkeypatch, steps)
        with contextlib.suppress(Crash):
            store.activate(third) if action == "activate" else store.rollback()
    again = PolicyStore(store.root)
    new = third if action == "activate" else first
    active = again.active()
    assert active in (second, new)
    bundle.load_policy(again.root / "active", point_spec)
    add(4)  # any change tidies up
    way_back = {second: first, new: second}[active]
    assert (again.active(), again.previous()) == (active, way_back)
    last = again.history.entries()[-1]
    assert (last["active"], last["previous"]) == (active, way_back)
    assert again.verify() == 4


def test_links_that_somebody_moved_by_hand_are_written_down(store, add):
    first, second = add(1), add(2)
    store.activate(first)
    files.replace_link(store.root / "active", f"policies/{second}")
    add(3)
    assert [entry["event"] for entry in store.history.entries()][-2:] == ["found", "added"]
    assert store.history.entries()[-1]["active"] == second


def test_a_link_out_of_the_store_is_refused(store, add, tmp_path):
    store.activate(add(1))
    files.replace_link(store.root / "active", str(tmp_path))
    with pytest.raises(StoreError, match="active: expected a link to a policy"):
        store.active()


# -- many users --------------------------------------------------------------------------------------------------------


def test_threads_do_not_lose_each_others_changes(store, add):
    ids = [add(1), add(2)]
    store.activate(ids[0])

    def switch(own):
        for _ in range(5):
            own.activate(ids[0])
            own.activate(ids[1])

    threads = [threading.Thread(target=switch, args=(PolicyStore(store.root),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {store.active(), store.previous()} == set(ids)
    store.verify()


def test_processes_wait_for_each_other_and_say_so_when_it_takes_too_long(store, tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
         "print('held', flush=True); sys.stdin.read()", str(tmp_path / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match="found it locked"), files.locked(tmp_path / "lock", timeout=0.1):
        pytest.fail("the lock was given twice")
    holder.kill()
    holder.wait()
    with files.locked(tmp_path / "lock", timeout=5.0):
        pass


def test_a_store_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="expected a writable policy store"):
        PolicyStore(tmp_path / "file" / "store")


def test_a_store_that_is_only_read_is_not_made(tmp_path):
    with pytest.raises(StoreError, match="expected a policy store, found no such directory"):
        PolicyStore(tmp_path / "typo", create=False)
    assert not (tmp_path / "typo").exists()


def test_cards_keep_what_they_were_given(store, point_spec):
    card = Card(seed=1, method="safe_rule", parent="a" * 64, details={"safe_return": 12.5, "stages": [1, 2]})
    kept = store.card(store.add(make_agent(), point_spec, card))
    assert replace(card, created=kept.created) == replace(
        kept, algorithm="", hyperparameters={}, obs_dim=0, action_dim=0, tensors={}, spec_name="", spec_hash="",
        code_version="",
    )  # fmt: skip


# -- what the history says ---------------------------------------------------------------------------------------------

BAG = BagOrigin("day_3", "b" * 64, 5, "e" * 64)


@pytest.fixture
def repaired(store, add):
    """A store whose active policy was repaired from the previous one."""
    old = add(1, origin=Origin("anna", used=(BAG,)))
    store.activate(old)
    new = add(2, parent=old, method="safe_rule", data={"forget": "d" * 64}, origin=Origin("bert", forgotten=(BAG,)))
    store.activate(new, reason="passed validation", asked_by="bert")
    return old, new


def test_the_history_says_who_asked_and_what_was_forgotten_how(store, repaired):
    old, new = repaired
    added = store.history.entries()[2]
    assert added["policy_id"] == new and added["parents"] == [old] and added["asked_by"] == "bert"
    assert added["forgotten"] == [{"name": "day_3", "sha256": "b" * 64, "episodes": 5, "episodes_sha256": "e" * 64}]
    assert (added["method"], added["seed"], added["data"]) == ("safe_rule", 2, {"forget": "d" * 64})
    assert added["configuration"]["hyperparameters"]["hidden"] == [4] and added["code_version"]
    assert store.history.entries()[3]["asked_by"] == "bert"
    assert "@" in store.history.entries()[1]["asked_by"]


@pytest.mark.parametrize("way", ["activate", "rollback"])
def test_what_was_repaired_does_not_drive_again_unless_forced(store, repaired, way):
    old, new = repaired
    with pytest.raises(StoreError, match="says nothing against, found superseded: .*; poisoned: it learned from day_3"):
        store.activate(old) if way == "activate" else store.rollback()
    assert (store.active(), store.previous()) == (new, old)
    with pytest.raises(StoreError, match="superseded"):
        store.path_to_drive(old)
    store.activate(old, force=True) if way == "activate" else store.rollback(force=True)
    assert store.active() == old and "superseded" in store.history.last()["forced"][0]
    assert store.path_to_drive("active") == store.path(old)
    store.activate(new)
    with pytest.raises(StoreError, match="superseded"):
        store.activate(old)


def test_a_repair_that_breaks_its_limit_is_rejected_and_its_incumbent_drives_again(store, repaired):
    old, new = repaired
    assert store.rollback("broke its limit", reject=True) == old
    assert store.path_to_drive("active") == store.path(old)
    for change in (lambda: store.activate(new), store.rollback):
        with pytest.raises(StoreError, match="rejected: broke its limit"):
            change()
    assert [entry["event"] for entry in store.history.entries()[-2:]] == ["rejected", "rolled back"]
    assert store.rollback(force=True) == new


def test_a_link_that_was_moved_to_a_bad_policy_by_hand_does_not_let_it_drive(store, repaired):
    old, _ = repaired
    files.replace_link(store.root / "active", f"policies/{old}")
    with pytest.raises(StoreError, match="poisoned"):
        store.path_to_drive("active")


def test_a_policy_that_is_active_and_rejected_needs_force_to_stay(store, add):
    store.activate(add(1))
    store.reject("active", "seen to swerve", asked_by="anna")
    with pytest.raises(StoreError, match="rejected: seen to swerve"):
        store.path_to_drive("active")
    store.activate("active", force=True)
    assert store.path_to_drive("active") == store.path("active")


def test_a_damaged_history_lets_nothing_new_drive(busy_store, add):
    third = add(3)
    lines = history_lines(busy_store)
    busy_store.history.path.write_bytes(b"".join([lines[0].replace(b'"seed": 1', b'"seed": 7'), *lines[1:]]))
    with pytest.raises(StoreError, match="line 1: hash"):
        busy_store.activate(third)
    with pytest.raises(StoreError, match="line 1: hash"):
        busy_store.path_to_drive("active")


def test_a_noted_hash_shows_that_lines_were_cut_off(busy_store, add):
    head = busy_store.verify_history()
    add(3)
    assert busy_store.verify_history(head) != head
    busy_store.history.path.write_bytes(b"".join(history_lines(busy_store)[:-2]))
    with pytest.raises(StoreError, match="expected a line with the hash"):
        busy_store.verify_history(head)


def test_a_policy_that_a_crash_left_out_of_the_history_is_written_down(store, add):
    store.activate(add(1))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(folder.History, "append", lambda *args, **kwargs: (_ for _ in ()).throw(Crash))
        with pytest.raises(Crash):
            add(2)
    store.reject("active")
    added = [entry["policy_id"] for entry in store.history.entries() if entry["event"] == "added"]
    assert set(added) == set(store.ids()) and len(added) == 2


def test_numbers_that_json_cannot_hold_do_not_break_the_chain(store, add):
    store.record("judged", add(1), accepted=True, message="", cost=float("nan"))
    assert store.history.last()["cost"] is None
    store.verify_history()


def test_who_reads_while_a_report_comes_sees_a_whole_bundle(store, add):
    """The new file is prepared outside the bundle: a reader refuses files that it does not know."""
    policy_id, seen = add(1), []
    replace = os.replace

    def look(source, target):
        seen.append(bundle.content_id(store.path(policy_id)))
        replace(source, target)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(files.os, "replace", look)
        store.add_report(policy_id, b"{}")
    assert seen == [policy_id]
