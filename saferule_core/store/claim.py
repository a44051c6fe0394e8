"""A claim that data was forgotten: one signed JSON file with its evidence, checked without the robot or its store.

    claim = verify_claim("claim.json", load_trust("auditor/robot.pub.pem"))
    claim.policy_id, claim.forgotten, claim.measures

`attestation.attest` makes one from a store.

The evidence: the policy's card, whole, and the hashes of its other files, from which its id follows; the lines of the
store's history about it, each with its own hash; the episodes that were driven in validation, before and after.
Checking means: a trusted key signed the file; the card belongs to the id; the history's lines are unchanged and say
what the card says; the means that are claimed are those of the episodes. It is evidence of what was done and measured,
by whoever holds the key, not a proof that no influence is left.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from saferule_core.errors import StoreError
from saferule_core.store import signing
from saferule_core.store.card import BagOrigin, decode_card
from saferule_core.store.content import CARD
from saferule_core.store.history import entry_hash

FORMAT = 1
STATEMENT = (
    "The policy was made from its parent by the named method to remove the influence of the forgotten bags. "
    "Distances and validation were measured by whoever signed; they are evidence of the effect, not a proof that no "
    "influence is left."
)


@dataclass(frozen=True)
class Driven:
    """Episodes of one policy in validation: costs and rewards per episode, in the order of the seeds."""

    policy_id: str
    seeds: tuple[int, ...]
    costs: tuple[float, ...]
    rewards: tuple[float, ...]


@dataclass(frozen=True)
class Measures:
    """Before (the parent) and after. cost, reward: mean per episode; None where nothing was driven.

    distances: "forget_action_distance", "retain_action_distance" -> {"before", "after"}, mean |pi(s) - a|^2 per step.
    """

    cost_limit: float | None = None
    cost_before: float | None = None
    cost_after: float | None = None
    reward_before: float | None = None
    reward_after: float | None = None
    distances: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What is signed.

    forgotten, used: the bags. accepted, message: the gate's verdict, None and empty where nothing was validated.
    sums: the bundle's SHA256SUMS. card: its card.json. before, after: the driven episodes. report_sha256: of the report
    that they come from. history: lines of the store's history about the policy; head: the newest hash of all.
    """

    policy_id: str
    parent_id: str
    method: str
    asked_by: str
    made: str
    robot: str
    spec_hash: str
    code_version: str
    seed: int
    forgotten: tuple[BagOrigin, ...]
    used: tuple[BagOrigin, ...]
    accepted: bool | None
    message: str
    measures: Measures
    sums: str
    card: str
    before: Driven | None
    after: Driven | None
    report_sha256: str
    history: tuple[dict[str, Any], ...]
    head: str
    claimed: str
    statement: str = STATEMENT
    format: int = FORMAT


@dataclass(frozen=True)
class SignedClaim:
    """The file: a claim and who vouches for it."""

    claim: Claim
    signatures: tuple[signing.Signature, ...]


def verify_claim(path: str | Path, trust: signing.Trust) -> Claim:
    """Read a claim, check signature and evidence, and return it.

    Raises:
        StoreError: it is no claim, not signed by a key of `trust`, or its evidence contradicts it.
    """
    try:
        data = Path(path).read_bytes()
        signed = msgspec.json.decode(data, type=SignedClaim)
        written = json.loads(data, object_pairs_hook=_distinct)
    except OSError as error:
        raise StoreError(f"{path}: expected a claim, found: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreError(f"{path}: expected a claim, found: {error}") from error
    claim = signed.claim
    if written != _plain(signed):
        raise StoreError(f"{path}: expected the fields of a claim and no others, as nobody would have signed these")
    if claim.format != FORMAT:
        raise StoreError(f"{path}: format: expected {FORMAT}, found {claim.format}; it was written by another version")
    trust.check(signing.CLAIM, claim_digest(claim), signed.signatures, path)
    check_evidence(claim, path)
    return claim


def check_evidence(claim: Claim, source: str | Path) -> None:
    """Check that what is claimed follows from the evidence beside it.

    Raises:
        StoreError: it does not; the message names the first field.
    """
    _expect(hashlib.sha256(claim.sums.encode()).hexdigest(), claim.policy_id, "sums", source)
    sums = dict(reversed(line.split("  ", 1)) for line in claim.sums.splitlines() if "  " in line)
    _expect(hashlib.sha256(claim.card.encode()).hexdigest(), sums.get(CARD), "card", source)
    card = decode_card(claim.card.encode(), Path(f"{source}: card"))
    for name, wanted in (
        ("parent_id", card.parent), ("method", card.method), ("asked_by", card.origin.asked_by), ("made", card.created),
        ("robot", card.spec_name), ("spec_hash", card.spec_hash), ("code_version", card.code_version),
        ("seed", card.seed), ("forgotten", card.origin.forgotten), ("used", card.origin.used),
    ):  # fmt: skip
        _expect(getattr(claim, name), wanted, name, source)
    for name, policy_id in (("before", claim.parent_id), ("after", claim.policy_id)):
        driven = getattr(claim, name)
        if driven is not None:
            _expect(driven.policy_id, policy_id, f"{name}.policy_id", source)
    _check_history(claim, source)
    _expect(claim.measures, measures_of(card.details, claim.before, claim.after), "measures", source)


def _check_history(claim: Claim, source: str | Path) -> None:
    for entry in claim.history:
        _expect(entry.get("hash"), entry_hash(entry), f"history line {entry.get('index')}: hash", source)
        _expect(entry.get("policy_id"), claim.policy_id, f"history line {entry.get('index')}: policy_id", source)
    added = [entry for entry in claim.history if entry.get("event") == "added"]
    _expect(bool(added), True, "history: a line that the policy was added", source)
    _expect(added[0].get("forgotten"), _plain(claim.forgotten), "history: forgotten", source)
    judged = [entry for entry in claim.history if entry.get("event") == "judged"]
    verdict = (judged[-1].get("accepted"), judged[-1].get("message")) if judged else (None, "")
    _expect((claim.accepted, claim.message), verdict, "accepted, message", source)
    reports = {entry.get("report_sha256") for entry in claim.history if entry.get("event") == "reported"}
    if claim.report_sha256:
        _expect(claim.report_sha256 in reports, True, "report_sha256: one that the history knows", source)
    elif claim.before is not None or claim.after is not None:
        raise StoreError(f"{source}: report_sha256: expected the hash of the report with the episodes, found none")
    if judged and claim.before is not None and claim.after is not None:
        for who, driven in (("incumbent", claim.before), ("candidate", claim.after)):
            for figure, values in (("cost", driven.costs), ("reward", driven.rewards)):
                told = judged[-1][who][figure]["mean"]
                close = math.isclose(told, _mean(values), rel_tol=1e-9, abs_tol=1e-9)
                _expect(close, True, f"history: judged {who} {figure}: the mean of the episodes", source)


def _expect(found: object, wanted: object, name: str, source: str | Path) -> None:
    if found != wanted:
        raise StoreError(f"{source}: {name}: expected {_short(wanted)}, found {_short(found)}; the claim is not sound")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def measures_of(details: Mapping[str, Any], before: Driven | None, after: Driven | None) -> Measures:
    """Return the measures that follow from a card's details and the driven episodes."""
    return Measures(
        cost_limit=details.get("cost_limit"),
        cost_before=_mean(before.costs) if before else None,
        cost_after=_mean(after.costs) if after else None,
        reward_before=_mean(before.rewards) if before else None,
        reward_after=_mean(after.rewards) if after else None,
        distances=dict(details.get("measures") or {}),
    )


def _mean(values: tuple[float, ...]) -> float:
    return math.fsum(values) / len(values)


def claim_digest(claim: Claim) -> str:
    """Return the SHA-256 of a claim's canonical JSON: keys sorted, no spaces, every known field."""
    canonical = json.dumps(_plain(claim), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> Any:
    """Return dataclasses and tuples as the dictionaries and lists that JSON has."""
    return json.loads(msgspec.json.encode(value))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{repeated[0]!r} twice in one object")
    return dict(pairs)
