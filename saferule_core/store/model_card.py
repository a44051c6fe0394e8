"""A policy's model card in Markdown, for people: what it is, what it learned, what it forgot, how it did, its limits.

    text = model_card(store, "3f9a12")

The sections are those of model cards (arXiv 1810.03993) as far as they apply to a robot's policy. Everything in it is
read from the policy's card, its report and the history; nothing is invented, and what is not known is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml

from saferule_core.errors import StoreError
from saferule_core.spec_schema import SpecFile
from saferule_core.store import bundle
from saferule_core.store.card import BagOrigin, Card
from saferule_core.store.content import SPEC, Content, read_content
from saferule_core.store.store import PolicyStore

_LIMITS = (
    "- It is fit for the robot description above alone; another one is refused.",
    "- Validation is in simulation, from the starts that were drawn there. It says nothing about situations in which "
    "the simulation is wrong or that it never visits.",
    "- Bags are named by who asked. Poison that nobody named and no detector found is still in what was learned.",
    "- Unlearning removes influence approximately. It is judged by the measures above, not proved.",
)


def model_card(store: PolicyStore, name: str) -> str:
    """Return the model card of a policy of the store.

    Raises:
        StoreError: there is no such policy, or card, report or history are damaged.
    """
    policy_id = store.resolve(name)
    path, card = store.path(policy_id), store.card(policy_id)
    entries = [entry for entry in store.history.verified() if _concerns(entry, policy_id)]
    spec = _description(read_content(path))
    signers = [signature.key_id for signature in bundle.signatures(path)]
    parts = [
        f"# Policy {policy_id[:12]} for {card.spec_name}",
        "## Details",
        _table(
            {
                "content id": f"`{policy_id}`",
                "state": ", ".join(_states(store, policy_id)),
                "made": f"{card.created}, saferule {card.code_version}",
                "asked by": card.origin.asked_by or "not recorded",
                "algorithm": card.algorithm,
                "made by": card.method,
                "made from": f"`{card.parent}`" if card.parent else "nothing; trained from scratch",
                "seed": card.seed,
                "signed by": ", ".join(signers) or "nobody",
            }
        ),
        "## Intended use",
        f"Drives {card.spec_name} at {spec.rate_hz:g} Hz: {card.obs_dim} observation features in, {card.action_dim} "
        f"action channels out. Robot description `{card.spec_hash}`. Unsafe is more than a mean cost of "
        f"{spec.cost.limit:g} per episode, from {', '.join(rule.name for rule in spec.cost.constraints)}.",
        "## Data",
        "Learned from:",
        _bags(card.origin.used),
        "Forgotten:",
        _bags(card.origin.forgotten) if card.origin.forgotten else _none_forgotten(card),
        "## Configuration",
        "Of the agent:",
        _table(card.hyperparameters),
        "Of the run that made it:",
        _table(_plain(card.details)),
        "## Measures",
        *_measures(card, entries),
        "## History",
        "\n".join(_line(entry) for entry in entries) or "none",
        "## Limits",
        "\n".join(_LIMITS),
    ]
    return "\n\n".join(parts) + "\n"


def _description(content: Content) -> SpecFile:
    """Return the robot description without importing the functions that it may name."""
    try:
        return msgspec.convert(yaml.safe_load(content.files[SPEC]), SpecFile)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise StoreError(f"{content.directory / SPEC}: expected a robot description, found: {error}") from error


def _concerns(entry: Mapping[str, Any], policy_id: str) -> bool:
    moves = entry["event"] in ("activated", "rolled back", "found") and policy_id == entry.get("active")
    return entry.get("policy_id") == policy_id or moves


def _states(store: PolicyStore, policy_id: str) -> list[str]:
    linked = [name for name in ("active", "previous") if getattr(store, name)() == policy_id]
    return [*(linked or ["in the store"]), *(str(mark) for mark in store.marks(policy_id))]


def _measures(card: Card, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    measures = card.details.get("measures") or {}
    if measures:
        rows = [(name.replace("_", " "), pair.get("before"), pair.get("after")) for name, pair in measures.items()]
        parts.append("How far the policy is from doing what was logged, mean |pi(s) - a|² per step:")
        parts.append(_before_after(rows))
    judged = [entry for entry in entries if entry["event"] == "judged"]
    for entry in judged[-1:]:
        rows = [
            (label, *(_figure(entry[who], *path) for who in ("incumbent", "candidate")))
            for label, path in (
                ("mean episode cost", ("cost", "mean")),
                (f"upper {entry['rules']['confidence']:.0%} bound of it", ("cost", "upper")),
                ("mean episode reward", ("reward", "mean")),
                ("share of episodes over the limit", ("violations", "rate")),
            )
        ]
        against = f"against `{entry['incumbent_id'][:12]}`, {entry['candidate']['cost']['count']} episodes each"
        parts.append(f"Validation in simulation ({entry['time'][:19]}) {against}: {entry['message']}")
        parts.append(_before_after(rows))
    return parts or ["Not validated, and nothing measured while it was made."]


def _figure(figures: Mapping[str, Any], *path: str) -> Any:
    value: Any = figures
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _line(entry: Mapping[str, Any]) -> str:
    words = [entry.get("reason") or entry.get("message") or ""]
    words += [f"by {entry['asked_by']}"] if entry.get("asked_by") else []
    words += [f"forced against: {'; '.join(entry['forced'])}"] if entry.get("forced") else []
    return f"- {entry['time'][:19]} **{entry['event']}** {', '.join(filter(None, words))}".rstrip()


def _bags(bags: Sequence[BagOrigin]) -> str:
    if not bags:
        return "not recorded bag by bag"
    rows = ["| bag | episodes | SHA-256 of the bag | of its episodes |", "|---|---|---|---|"]
    rows += [f"| {_cell(b.name)} | {b.episodes} | `{b.sha256[:16]}…` | `{b.episodes_sha256[:16]}…` |" for b in bags]
    return "\n".join(rows)


def _none_forgotten(card: Card) -> str:
    digest = card.data.get("forget")
    return f"data with the digest `{digest[:16]}…`, not recorded bag by bag" if digest else "nothing"


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in details.items() if name != "measures" and value not in (None, {}, [])}


def _table(facts: Mapping[str, Any]) -> str:
    lines = [f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _before_after(rows: Sequence[tuple[str, Any, Any]]) -> str:
    lines = [f"| {name} | {_cell(before)} | {_cell(after)} |" for name, before, after in rows]
    return "\n".join(["| | before | after |", "|---|---|---|", *lines])


def _cell(value: Any) -> str:
    """Return a value for one cell; text from a card must not break out of it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
