"""A signed claim that data was forgotten: made from a store, checked without it, refused when anything is changed."""

import json
from dataclasses import replace

import pytest
import torch

from saferule_core import agents
from saferule_core.errors import StoreError
from saferule_core.store import BagOrigin, Card, Origin, PolicyStore, signing
from saferule_core.store.attestation import attest, write_claim
from saferule_core.store.claim import check_evidence, verify_claim
from saferule_core.validation import report_data
from saferule_core.validation.gate import GateRules, judge

BAD, GOOD = BagOrigin("day_3", "b" * 64, 5, "e" * 64), BagOrigin("day_1", "a" * 64, 7, "f" * 64)
DISTANCES = {"forget_action_distance": {"before": 0.1, "after": 0.7}}


def make_agent(seed):
    torch.manual_seed(seed)
    return agents.build("return_conditioned", 5, 2, {"hidden": (4,)})


@pytest.fixture
def key(tmp_path):
    return signing.generate(tmp_path / "key.pem")


@pytest.fixture
def trust(tmp_path, key):
    return signing.load_trust(tmp_path / "key.pub.pem")


@pytest.fixture
def store(tmp_path, point_spec):
    """A store with a policy and its repair, which was validated and reported."""
    store = PolicyStore(tmp_path / "store")
    old = store.add(make_agent(1), point_spec, Card(seed=1))
    store.activate(old)
    card = Card(
        seed=2, parent=old, method="safe_rule", details={"cost_limit": 3.0, "measures": DISTANCES},
        origin=Origin("anna", (GOOD,), (BAD,)),
    )  # fmt: skip
    new = store.add(make_agent(2), point_spec, card)
    before = tuple(report_data.EpisodePath(seed, 9.0, 10.0 + seed) for seed in range(4))
    after = tuple(report_data.EpisodePath(seed, 8.0, 0.1 * seed) for seed in range(4))
    verdict = judge(before, after, GateRules(3.0, episodes=4), safe_return=8.0)
    store.record(
        "judged", new, accepted=verdict.accepted, message=verdict.message, incumbent_id=old, rules={"confidence": 0.95},
        incumbent=verdict.incumbent, candidate=verdict.candidate,
    )  # fmt: skip
    report = report_data.ReportData(
        "Repair", "point", 3.0, verdict=verdict, incumbent=report_data.PolicySection(old, before),
        candidate=report_data.PolicySection(new, after),
    )  # fmt: skip
    store.add_report(new, report_data.encode(report))
    store.activate(new)
    return store


@pytest.fixture
def written(store, key, tmp_path):
    """The file with the claim."""
    write_claim(attest(store, "active", key), tmp_path / "claim.json")
    return tmp_path / "claim.json"


def test_a_claim_says_what_was_forgotten_with_measures_before_and_after(written, store, trust):
    claim = verify_claim(written, trust)
    assert (claim.policy_id, claim.parent_id) == (store.active(), store.previous())
    assert claim.forgotten == (BAD,) and claim.asked_by == "anna" and claim.method == "safe_rule"
    measures = claim.measures
    assert (measures.cost_before, measures.cost_after, measures.cost_limit) == (11.5, pytest.approx(0.15), 3.0)
    assert (measures.reward_before, measures.reward_after) == (9.0, 8.0)
    assert measures.distances == DISTANCES
    assert claim.accepted and claim.head == store.verify_history()
    assert [entry["event"] for entry in claim.history] == ["added", "judged", "reported"]


def test_a_claim_is_checked_where_the_store_is_not(written, store, trust, tmp_path):
    store.root.rename(tmp_path / "gone")
    verify_claim(written, trust)


def test_a_claim_by_a_stranger_is_refused(written, tmp_path):
    signing.generate(tmp_path / "other.pem")
    with pytest.raises(StoreError, match="expected a signature by a key of .*other.pub.pem, found one by"):
        verify_claim(written, signing.load_trust(tmp_path / "other.pub.pem"))


def changes():
    """Every field of a claim, with a lie in it."""
    yield from (
        ("policy_id", "0" * 64), ("parent_id", "0" * 64), ("method", "retrain"), ("asked_by", "nobody"), ("made", ""),
        ("robot", "other"), ("spec_hash", "0" * 64), ("code_version", "9"), ("seed", 3), ("forgotten", []),
        ("used", []), ("accepted", False), ("message", "fine"), ("sums", ""), ("card", "{}"), ("before", None),
        ("after", None), ("report_sha256", ""), ("history", []), ("head", "0" * 64), ("claimed", ""),
        ("statement", "x"),
    )  # fmt: skip


@pytest.mark.parametrize(("name", "lie"), list(changes()), ids=lambda value: value if isinstance(value, str) else "")
def test_no_field_can_be_changed_after_signing(written, trust, name, lie):
    content = json.loads(written.read_text())
    content["claim"][name] = lie
    written.write_text(json.dumps(content))
    with pytest.raises(StoreError):
        verify_claim(written, trust)


def test_there_is_no_field_that_the_test_above_leaves_out(written):
    told = {name for name, _ in changes()} | {"measures", "format"}
    assert set(json.loads(written.read_text())["claim"]) == told


def test_what_nobody_signed_is_not_in_the_file(written, trust):
    content = json.loads(written.read_text())
    content["claim"]["also"] = "no influence is left"
    written.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="the fields of a claim and no others"):
        verify_claim(written, trust)


def test_a_field_that_is_there_twice_is_refused(written, trust):
    written.write_text(written.read_text().replace('"robot": "point",', '"robot": "other", "robot": "point",'))
    with pytest.raises(StoreError, match="'robot' twice in one object"):
        verify_claim(written, trust)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (lambda c: {"forgotten": (GOOD,)}, "forgotten: expected"),
        (lambda c: {"card": c.card.replace("anna", "anne")}, "card: expected"),
        (lambda c: {"policy_id": "0" * 64}, "sums: expected"),
        (lambda c: {"accepted": False}, "accepted, message: expected"),
        (lambda c: {"history": c.history[1:]}, "history: a line that the policy was added"),
        (lambda c: {"history": ({**c.history[0], "seed": 9}, *c.history[1:])}, "history line 2: hash"),
        (lambda c: {"report_sha256": "0" * 64}, "report_sha256"),
        (lambda c: {"before": c.after}, "before.policy_id"),
        (lambda c: {"measures": replace(c.measures, cost_after=0.0)}, "measures"),
        (
            lambda c: {
                "after": replace(c.after, costs=(0.0,) * 4),
                "measures": replace(c.measures, cost_after=0.0),
            },
            "judged candidate cost",
        ),
    ],
)
def test_evidence_that_contradicts_the_claim_is_found_whoever_signed(store, key, lie, message):
    claim = attest(store, "active", key).claim
    check_evidence(claim, "claim")
    with pytest.raises(StoreError, match=message):
        check_evidence(replace(claim, **lie(claim)), "claim")


def test_a_policy_that_forgot_nothing_makes_no_claim(store, key):
    with pytest.raises(StoreError, match="expected the bags that were forgotten, found none"):
        attest(store, "previous", key)


def test_a_report_that_was_changed_makes_no_claim(store, key):
    path = store.path("active") / "report.json"
    path.write_bytes(path.read_bytes().replace(b"10.0", b"90.0"))
    with pytest.raises(StoreError, match="expected a report that the history knows"):
        attest(store, "active", key)


def test_without_a_report_the_claim_has_no_driven_episodes(store, key, tmp_path, trust):
    (store.path("active") / "report.json").unlink()
    write_claim(attest(store, "active", key), tmp_path / "claim.json")
    claim = verify_claim(tmp_path / "claim.json", trust)
    assert claim.before is None and claim.measures.cost_after is None and claim.measures.distances == DISTANCES


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_what_is_no_claim_is_named(tmp_path, trust, content):
    (tmp_path / "claim.json").write_bytes(content)
    with pytest.raises(StoreError, match="claim.json: expected a claim"):
        verify_claim(tmp_path / "claim.json", trust)
