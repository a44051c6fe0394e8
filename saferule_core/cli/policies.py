"""See and change which policy of a store drives.

    saferule policies list --store store
    saferule policies activate 3f9a12 --store store --reason "tested by hand"
    saferule policies rollback --store store
    saferule policies verify --store store

A running robot is not told: use the node's services ~/swap_policy and ~/rollback for that.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from saferule_core.cli import options as common
from saferule_core.cli.display import Display

if TYPE_CHECKING:
    from saferule_core.store import PolicyStore, StoreEntry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of each action."""
    actions = parser.add_subparsers(title="actions", metavar="action", dest="action", required=True)
    for name, summary in (
        ("list", "all policies, oldest first"),
        ("verify", "check every bundle, the links and the history"),
        ("activate", "let a policy drive"),
        ("rollback", "let the previous policy drive again"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        if name == "activate":
            action.add_argument("policy", metavar="ID", help="six or more digits of a policy's id")
        common.add_store(action)
        if name in ("activate", "rollback"):
            action.add_argument("--reason", default="", metavar="TEXT", help="to remember why")
        common.add_common(action)
        action.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Run the action."""
    from saferule_core.store import PolicyStore

    store = PolicyStore(options.store, create=False)
    facts, text = {"list": _list, "verify": _verify, "activate": _activate, "rollback": _rollback}[options.action](
        store, options
    )
    display.result(facts, text)
    return 0


def _list(store: PolicyStore, _options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    entries = store.list()
    lines = [_line(entry) for entry in entries] or ["no policies yet"]
    policies = [
        {"policy_id": e.policy_id, "parent": e.card.parent, "algorithm": e.card.algorithm, "method": e.card.method,
         "created": e.card.created, "active": e.active, "previous": e.previous}
        for e in entries
    ]  # fmt: skip
    return {"policies": policies}, "\n".join(lines)


def _line(entry: StoreEntry) -> str:
    card = entry.card
    mark = "active" if entry.active else "previous" if entry.previous else ""
    parent = f"from {card.parent[:12]}" if card.parent else ""
    return f"{entry.policy_id[:12]}  {mark:8}  {card.created}  {card.algorithm:20}  {card.method:10}  {parent}".rstrip()


def _verify(store: PolicyStore, _options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    count, head = store.verify(), store.verify_history()
    text = f"{count} policies and the history are whole; its newest hash is {head}"
    return {"policies": count, "history": head}, text


def _activate(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    policy_id = store.activate(options.policy, reason=options.reason or "activated by saferule policies")
    return {"active_id": policy_id, "previous_id": store.previous()}, f"policy {policy_id[:12]} is active"


def _rollback(store: PolicyStore, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    policy_id = store.rollback(reason=options.reason or "rolled back by saferule policies")
    return {"active_id": policy_id, "previous_id": store.previous()}, f"policy {policy_id[:12]} is active again"
