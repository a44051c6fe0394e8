"""`saferule policies`, `keys` and `verify-claim`: what they show, what they change, and what they refuse."""

import json

import pytest
import torch

from saferule_core import agents
from saferule_core.cli import main
from saferule_core.cli.policies import ACTIONS
from saferule_core.store import BagOrigin, Card, Origin, PolicyStore, signing

BAD = BagOrigin("day_3", "b" * 64, 5, "e" * 64)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Commands run in a folder of their own, without keys of this machine."""
    monkeypatch.chdir(tmp_path)
    for name in (signing.SIGNING_KEY, signing.TRUSTED_KEYS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path, point_spec):
    """A repaired policy drives; it was made from the previous one."""
    store, ids = PolicyStore(tmp_path / "store"), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        agent = agents.build("return_conditioned", 5, 2, {"hidden": (4,)})
        origin = Origin("anna", forgotten=(BAD,)) if ids else Origin("bert", used=(BAD,))
        card = Card(seed=seed, created=f"2026-01-0{seed}", parent=ids[-1] if ids else None, origin=origin)
        ids.append(store.add(agent, point_spec, card))
        store.activate(ids[-1])
    return store


@pytest.fixture
def run(capsys):
    """Runs a command; returns exit status and what it printed."""

    def command(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return command


@pytest.fixture
def result(run):
    """Runs a command with --progress json; returns its result."""

    def command(*words):
        code, printed = run(*words, "--progress", "json")
        event = json.loads(printed.splitlines()[-1])
        assert code == 0 and event.pop("event") == "result", printed
        return event

    return command


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_help(action, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["policies", action, "--help"])
    assert ended.value.code == 0 and ACTIONS[action][0].split(";")[0] in " ".join(capsys.readouterr().out.split())


def test_list_shows_what_speaks_against_a_policy(store, run, result):
    listed = result("policies", "list", "--store", "store")["policies"]
    assert [(entry["active"], entry["marks"]) for entry in listed] == [(False, ["superseded", "poisoned"]), (True, [])]
    assert "superseded, poisoned" in run("policies", "list", "--store", "store")[1]


def test_show_tells_origin_and_history(store, run, result):
    shown = result("policies", "show", "active", "--store", "store")
    assert shown["lineage"] == [store.active(), store.previous()] and shown["marks"] == []
    assert shown["origin"]["origin"]["asked_by"] == "anna" and shown["history"][0]["event"] == "added"
    assert "forgot        day_3 (5 episodes, bbbbbbbbbbbb)" in run("policies", "show", "active", "--store", "store")[1]


def test_show_card_is_the_model_card(store, run):
    printed = run("policies", "show", "active", "--card", "--store", "store")[1]
    assert printed.startswith(f"# Policy {store.active()[:12]}")


def test_diff_tells_how_policies_differ(store, result, run):
    found = result("policies", "diff", "previous", "active", "--store", "store")
    assert found["facts"]["seed"] == [1, 2] and found["largest_action_change"] > 0.0
    assert "seed: 1 -> 2" in run("policies", "diff", "previous", "active", "--store", "store")[1]


def test_a_downgrade_needs_force(store, run):
    old = store.previous()
    for words in (("activate", old), ("rollback",)):
        code, printed = run("policies", *words, "--store", "store")
        assert code == 2 and "poisoned: it learned from day_3" in printed and "--force" in printed
    assert run("policies", "activate", old, "--force", "--asked-by", "cora", "--store", "store")[0] == 0
    assert store.active() == old and store.history.last()["asked_by"] == "cora" and store.history.last()["forced"]


def test_rollback_can_reject(store, run):
    new = store.active()
    assert run("policies", "rollback", "--reject", "--reason", "swerves", "--store", "store")[0] == 0
    assert [mark.kind for mark in store.marks(new)] == ["rejected"]
    code, printed = run("policies", "activate", new, "--store", "store")
    assert code == 2 and "rejected: swerves" in printed


def test_reject_marks_and_says_that_it_still_drives(store, run):
    assert "still active: roll back" in run("policies", "reject", "active", "--reason", "x", "--store", "store")[1]


def test_verify_takes_a_noted_hash(store, result, run):
    noted = result("policies", "verify", "--store", "store")
    assert (noted["policies"], noted["signed"]) == (2, 0)
    assert result("policies", "verify", "--head", noted["history"], "--store", "store") == noted
    code, printed = run("policies", "verify", "--head", "f" * 64, "--store", "store")
    assert code == 2 and "lines were cut off or replaced" in printed


def test_export_import_and_prune(store, result):
    result("policies", "export", "active", "--out", "copy", "--store", "store")
    assert result("policies", "import", "copy", "--store", "other")["policy_id"] == store.active()
    kept = store.ids()
    assert result("policies", "prune", "--keep", 0, "--dry-run", "--store", "other")["pruned"] == [store.active()]
    assert result("policies", "prune", "--keep", 0, "--store", "other")["pruned"] == [store.active()]
    assert PolicyStore("other").ids() == [] and store.ids() == kept


def test_keys_switch_verification_on(store, result, run):
    made = result("keys", "generate", "key.pem")
    assert result("keys", "show", "key.pem", "key.pub.pem")["keys"] == dict.fromkeys(
        ("key.pem", "key.pub.pem"), made["key_id"]
    )
    assert sorted(result("keys", "trust", "key.pub.pem", "--store", "store")["not_accepted"]) == sorted(store.ids())
    code, printed = run("policies", "show", "active", "--store", "store")
    assert code == 2 and "expected a signature by a key of" in printed
    code, printed = run("policies", "sign", "all", "--store", "store")
    assert code == 2 and "expected a private key to sign with, found none" in printed
    result("policies", "sign", "all", "--key", "key.pem", "--store", "store")
    assert result("policies", "verify", "--store", "store")["signed"] == 2


def test_a_claim_goes_from_the_store_to_an_auditor(store, result, run):
    result("keys", "generate", "key.pem")
    result("policies", "attest", "active", "--key", "key.pem", "--out", "claim.json", "--store", "store")
    result("policies", "export", "active", "--out", "copy", "--store", "store")
    result("policies", "export", "previous", "--out", "older", "--store", "store")
    words = ("verify-claim", "claim.json", "--key", "key.pub.pem")
    checked = result(*words, "--bundle", "copy")
    assert checked["sound"] and checked["policy_id"] == store.active() and checked["forgotten"][0]["name"] == "day_3"
    assert "forgot day_3: 5 episodes" in run(*words)[1]
    code, printed = run(*words, "--bundle", "older")
    assert code == 2 and "older: expected policy" in printed
    (store.root / "day_1").write_bytes(b"a log")
    code, printed = run(*words, "--bag", store.root / "day_1")
    assert code == 2 and "expected a bag that the claim says was forgotten" in printed
    result("keys", "generate", "other.pem")
    assert run("verify-claim", "claim.json", "--key", "other.pub.pem")[0] == 2
