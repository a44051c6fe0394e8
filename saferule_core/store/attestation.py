"""Making a claim that data was forgotten, from a policy of a store; `claim` says what is in it and checks it.

    signed = attest(store, "active", load_private("signing_key.pem"))
    write_claim(signed, "claim.json")
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from saferule_core.errors import StoreError
from saferule_core.store import signing
from saferule_core.store.claim import Claim, Driven, SignedClaim, check_evidence, claim_digest, measures_of
from saferule_core.store.content import CARD, REPORT, read_content, sum_lines
from saferule_core.store.files import replace_file
from saferule_core.store.store import PolicyStore


def attest(store: PolicyStore, name: str, key: signing.Ed25519PrivateKey) -> SignedClaim:
    """Gather the evidence that a policy of the store forgot data, and sign it.

    Raises:
        StoreError: there is no such policy, it forgot nothing that is recorded bag by bag, or something is damaged.
    """
    content, entries = read_content(store.path(name)), store.history.verified()
    policy_id, card = content.content_id, content.card
    if not card.origin.forgotten or card.parent is None:
        raise StoreError(
            f"{content.directory / CARD}: origin.forgotten: expected the bags that were forgotten, found none; "
            "there is nothing to claim"
        )
    own = tuple(entry for entry in entries if entry.get("policy_id") == policy_id)
    judged = [entry for entry in own if entry["event"] == "judged"]
    report, report_sha256 = _report(content.directory / REPORT, own)
    before, after = _driven(report, "incumbent"), _driven(report, "candidate")
    claim = Claim(
        policy_id=policy_id,
        parent_id=card.parent,
        method=card.method,
        asked_by=card.origin.asked_by,
        made=card.created,
        robot=card.spec_name,
        spec_hash=card.spec_hash,
        code_version=card.code_version,
        seed=card.seed,
        forgotten=card.origin.forgotten,
        used=card.origin.used,
        accepted=judged[-1]["accepted"] if judged else None,
        message=judged[-1]["message"] if judged else "",
        measures=measures_of(card.details, before, after),
        sums=sum_lines(content.files).decode(),
        card=content.files[CARD].decode(),
        before=before,
        after=after,
        report_sha256=report_sha256,
        history=own,
        head=entries[-1]["hash"],
        claimed=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    check_evidence(claim, name)
    return SignedClaim(claim, (signing.sign(key, signing.CLAIM, claim_digest(claim)),))


def write_claim(signed: SignedClaim, path: str | Path) -> None:
    """Write a claim as JSON, in one step. Raises StoreError if it cannot be written."""
    try:
        replace_file(Path(path), msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n")
    except OSError as error:
        raise StoreError(f"{path}: expected to write a claim, found: {error.strerror}") from error


def _report(path: Path, own: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], str]:
    """Return the report beside a policy and its hash; an empty one where there is none that the history knows."""
    known = {entry["report_sha256"] for entry in own if entry["event"] == "reported"}
    if not known or not path.is_file():
        return {}, ""
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 not in known:
        raise StoreError(f"{path}: expected a report that the history knows, found one with the SHA-256 {sha256[:12]}")
    return json.loads(data), sha256


def _driven(report: Mapping[str, Any], who: str) -> Driven | None:
    section = report.get(who)
    if not section or not section["episodes"]:
        return None
    episodes = section["episodes"]
    return Driven(
        section["policy_id"],
        tuple(episode["seed"] for episode in episodes),
        tuple(float(episode["cost"]) for episode in episodes),
        tuple(float(episode["reward"]) for episode in episodes),
    )
