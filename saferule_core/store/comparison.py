"""How two policies differ: where they come from, their weights, and what they do.

    found = compare(store.path("previous"), store.path("active"))
    found.facts["method"], found.weights["actor"].relative, found.largest_action_change
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from saferule_core.agents import Agent
from saferule_core.store import bundle
from saferule_core.store.probes import make_probes

_NOT_COMPARED = ("tensors", "format")


@dataclass(frozen=True)
class WeightChange:
    """A module's tensors.

    unlike: how many only one policy has, or in another shape. changed: how many of the others differ.
    relative: |b - a| / |a| over those that both have.
    """

    unlike: int
    changed: int
    relative: float


@dataclass(frozen=True)
class Comparison:
    """Policy `b` against policy `a`.

    facts: dotted name of a card's field -> (in a, in b), where they differ; None where it is missing.
    weights: by module. mean_action_change, largest_action_change: |b(s) - a(s)| over channels and probe observations of
    `a`, actions in [-1, 1]; None where the two are made for robots of other sizes.
    """

    a: str
    b: str
    facts: dict[str, tuple[Any, Any]]
    weights: dict[str, WeightChange]
    mean_action_change: float | None
    largest_action_change: float | None


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Compare two bundles.

    Raises:
        StoreError: one of them is missing, damaged, or not signed as it has to be.
    """
    first, second = bundle.load_agent(a), bundle.load_agent(b)
    mine, others = (_flat(msgspec.to_builtins(bundle.read_card(path))) for path in (a, b))
    facts = {
        name: (mine.get(name), others.get(name))
        for name in sorted(mine.keys() | others.keys())
        if mine.get(name) != others.get(name)
    }
    mean = largest = None
    if (first.obs_dim, first.action_dim) == (second.obs_dim, second.action_dim):
        observations = make_probes(first)["observations"]
        change = np.abs(second.probe(observations) - first.probe(observations))
        mean, largest = float(change.mean()), float(change.max())
    return Comparison(bundle.content_id(a), bundle.content_id(b), facts, _weights(first, second), mean, largest)


def _weights(a: Agent, b: Agent) -> dict[str, WeightChange]:
    found = {}
    for name in sorted(a.modules().keys() | b.modules().keys()):
        mine, others = (agent.modules()[name].state_dict() if agent.has(name) else {} for agent in (a, b))
        alike = [key for key in mine.keys() & others.keys() if mine[key].shape == others[key].shape]
        deltas = [(others[key] - mine[key]).double() for key in alike]
        size = sum(float(mine[key].double().square().sum()) for key in alike) ** 0.5
        moved = sum(float(delta.square().sum()) for delta in deltas) ** 0.5
        changed = sum(bool(torch.any(delta != 0)) for delta in deltas)
        unlike = len(mine.keys() | others.keys()) - len(alike)
        found[name] = WeightChange(unlike, changed, moved / size if size else 0.0)
    return found


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        if not prefix and name in _NOT_COMPARED:
            continue
        if isinstance(entry, dict) and entry:
            flat.update(_flat(entry, f"{prefix}{name}."))
        else:
            flat[prefix + name] = entry
    return flat
