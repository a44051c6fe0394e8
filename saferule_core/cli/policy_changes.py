"""The actions of `saferule policies` that change a store or write something out of it. Each returns facts and text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saferule_core.errors import StoreError

if TYPE_CHECKING:
    from saferule_core.store import PolicyStore, signing


def activate(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Let a policy drive."""
    reason = options.reason or "activated by saferule policies"
    policy_id = store.activate(options.policy, reason, force=options.force, asked_by=options.asked_by)
    return {"active_id": policy_id, "previous_id": store.previous()}, f"policy {policy_id[:12]} is active"


def rollback(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Let the previous policy drive again."""
    policy_id = store.rollback(
        options.reason or "rolled back by saferule policies",
        reject=options.reject, force=options.force, asked_by=options.asked_by,
    )  # fmt: skip
    return {"active_id": policy_id, "previous_id": store.previous()}, f"policy {policy_id[:12]} is active again"


def reject(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Mark a policy."""
    policy_id = store.reject(options.policy, options.reason, options.asked_by)
    active = policy_id == store.active()
    text = f"policy {policy_id[:12]} is rejected" + (", and still active: roll back" if active else "")
    return {"rejected_id": policy_id, "active": active}, text


def prune(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Delete old policies."""
    from saferule_core.store import upkeep

    gone = upkeep.prune(
        store, options.keep, dry_run=options.dry_run, reason=options.reason, asked_by=options.asked_by
    )
    names = ", ".join(policy_id[:12] for policy_id in gone) or "nothing"
    return {"pruned": gone, "dry_run": options.dry_run}, f"{'would delete' if options.dry_run else 'deleted'}: {names}"


def export(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Copy a policy out of the store."""
    from saferule_core.store import upkeep

    policy_id = upkeep.export(store, options.policy, options.out)
    return {"policy_id": policy_id, "path": options.out}, f"policy {policy_id[:12]} in {options.out}"


def import_bundle(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Copy a policy into the store."""
    policy_id = store.add_bundle(options.bundle)
    return {"policy_id": policy_id}, f"policy {policy_id[:12]} is in the store; activate it to let it drive"


def adopt(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Put a policy of another tool into the store, with the description that it is for."""
    from saferule_core.agents.onnx_policy import from_file
    from saferule_core.data.bags import read_bags
    from saferule_core.data.ranges import ranges_of
    from saferule_core.spec import load_spec
    from saferule_core.store import Card, Origin
    from saferule_core.store.origin import asker, bag_origins

    spec = load_spec(options.spec)
    agent = from_file(options.model, spec.obs_dim, spec.action_dim)
    contents = read_bags(options.bags, spec) if options.bags else None
    origin = Origin(asker(), () if contents is None else bag_origins(contents))
    ranges = None if contents is None else ranges_of(contents.transitions)
    card = Card(seed=0, method="imported", details={"file": Path(options.model).name}, origin=origin, ranges=ranges)
    policy_id = store.add(agent, spec, card)
    text = f"policy {policy_id[:12]} is in the store; activate it to let it drive. Unlearning cannot update it"
    return {"policy_id": policy_id}, text


def sign(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Sign policies."""
    from saferule_core.store import signing

    key = _key(options)
    names = store.ids() if options.policies == ["all"] else options.policies
    signed = [store.sign(name, key) for name in names]
    key_id = signing.key_id(signing.public_bytes(key))
    return {"signed": signed, "key_id": key_id}, f"key {key_id} vouches for {', '.join(name[:12] for name in signed)}"


def attest(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write a signed claim that data was forgotten."""
    from saferule_core.store.attestation import attest as make_claim
    from saferule_core.store.attestation import write_claim

    made = make_claim(store, options.policy, _key(options))
    write_claim(made, options.out)
    claim, key_id = made.claim, made.signatures[0].key_id
    facts = {"policy_id": claim.policy_id, "claim_path": options.out, "key_id": key_id}
    return facts, (
        f"{options.out}: policy {claim.policy_id[:12]} forgot {len(claim.forgotten)} bags, signed by key {key_id}; "
        f"check it with: saferule verify-claim {options.out} --key PUBLIC_KEY"
    )


def _key(options: argparse.Namespace) -> signing.Ed25519PrivateKey:
    from saferule_core.store import signing

    key = signing.load_private(options.key) if options.key else signing.configured_key()
    if key is None:
        raise StoreError(
            f"--key: expected a private key to sign with, found none; name one, also in {signing.SIGNING_KEY}, or make "
            "one with `saferule keys generate`"
        )
    return key
