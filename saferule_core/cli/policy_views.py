"""The actions of `saferule policies` that only look: list, show, diff, verify. Each returns facts and text."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saferule_core.store import PolicyStore, StoreEntry
    from saferule_core.store.standing import Mark


def list_policies(store: PolicyStore, _options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Return all policies, oldest first."""
    from saferule_core.store.standing import marks_of

    entries, marks = store.list(), marks_of(store.history.verified())
    lines = [_line(entry, marks.get(entry.policy_id, ())) for entry in entries] or ["no policies yet"]
    policies = [
        {"policy_id": e.policy_id, "parent": e.card.parent, "algorithm": e.card.algorithm, "method": e.card.method,
         "created": e.card.created, "active": e.active, "previous": e.previous,
         "marks": [mark.kind for mark in marks.get(e.policy_id, ())]}
        for e in entries
    ]  # fmt: skip
    return {"policies": policies}, "\n".join(lines)


def show(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Return one policy: its card and what is known of it, or its model card."""
    import msgspec

    from saferule_core.store import bundle
    from saferule_core.store.model_card import model_card

    policy_id, path = store.resolve(options.policy), store.path(options.policy)
    if options.card:
        text = model_card(store, policy_id)
        return {"policy_id": policy_id, "card": text}, text.rstrip()
    card = bundle.verify(path)
    marks, lineage = store.marks(policy_id), store.lineage(policy_id)
    signers = [signature.key_id for signature in bundle.signatures(path)]
    history = [entry for entry in store.history.verified() if entry.get("policy_id") == policy_id]
    facts = {
        "policy_id": policy_id,
        "active": policy_id == store.active(),
        "previous": policy_id == store.previous(),
        "marks": [{"kind": mark.kind, "why": mark.why} for mark in marks],
        "signed_by": signers,
        "lineage": lineage,
        "origin": {**msgspec.to_builtins(card), "tensors": len(card.tensors)},
        "history": history,
    }
    rows = {
        "policy": policy_id,
        "state": "active" if facts["active"] else "previous" if facts["previous"] else "in the store",
        "against it": "; ".join(str(mark) for mark in marks) or "nothing",
        "signed by": ", ".join(signers) or "nobody",
        "made": f"{card.created} by {card.method} ({card.algorithm}, seed {card.seed}, saferule {card.code_version})",
        "asked by": card.origin.asked_by or "not recorded",
        "robot": f"{card.spec_name} ({card.spec_hash[:12]})",
        "lineage": " <- ".join(name[:12] for name in lineage),
        "learned from": _bags(card.origin.used),
        "forgot": _bags(card.origin.forgotten),
        "history": ", ".join(f"{entry['event']} {entry['time'][:19]}" for entry in history),
    }
    return facts, "\n".join(f"{name:13} {value}" for name, value in rows.items())


def diff(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Return how two policies differ."""
    import msgspec

    from saferule_core.store.comparison import compare

    found = compare(store.path(options.policy), store.path(options.other))
    lines = [f"{found.b[:12]} against {found.a[:12]}", ""]
    lines += [f"{name}: {_short(mine)} -> {_short(others)}" for name, (mine, others) in found.facts.items()]
    lines.append("")
    for name, change in found.weights.items():
        unlike = f", {change.unlike} tensors without a counterpart" if change.unlike else ""
        lines.append(f"{name}: {change.changed} tensors changed, by {change.relative:.2%}{unlike}")
    if found.largest_action_change is not None:
        lines.append(
            f"actions on probes (-1 to 1): mean change {found.mean_action_change:.3f}, "
            f"largest {found.largest_action_change:.3f}"
        )
    return msgspec.to_builtins(found), "\n".join(lines)


def verify(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Check the whole store."""
    from saferule_core.store.checking import check_store

    check = check_store(store, options.head)
    text = (
        f"{check.policies} policies and the history are whole, {check.signed} of them signed; "
        f"its newest hash is {check.head}"
    )
    return {"policies": check.policies, "signed": check.signed, "history": check.head}, text


def _line(entry: StoreEntry, marks: tuple[Mark, ...]) -> str:
    card = entry.card
    link = "active" if entry.active else "previous" if entry.previous else ""
    parent = f"from {card.parent[:12]}" if card.parent else ""
    against = ", ".join(dict.fromkeys(mark.kind for mark in marks))
    made = f"{card.created}  {card.algorithm:20}  {card.method:10}"
    return f"{entry.policy_id[:12]}  {link:8}  {made}  {parent:17}  {against}".rstrip()


def _bags(bags: tuple) -> str:
    return ", ".join(f"{bag.name} ({bag.episodes} episodes, {bag.sha256[:12]})" for bag in bags) or "nothing recorded"


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
