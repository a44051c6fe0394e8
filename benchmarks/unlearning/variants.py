"""The rows of a result: a method with options, and what it may know about costs.

    variant = parse_variant("finetune:logged")
    variant = parse_variant("paper_fixed@learning_rate=0.001,forget_weight=0.3")

A name is a registered method or one of `OPTIONS`, after an @ come options of the method, and after a colon what the
labels are worth:

    (nothing)   costs are recomputed through the robot description
    learned     no robot description: costs come from a model that the method fits to the retained labels
    logged      labels are taken as logged

`clean` is the agent trained on the data without poison, `poisoned` the one that all methods start from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saferule_core.errors import UnlearningError
from saferule_core.unlearning import METHODS

LABELS = {"description": {}, "learned": {}, "logged": {"repair_labels": False}}
"""Options that each kind of labels asks of a method."""

UNTOUCHED = ("clean", "poisoned")
REFERENCES = ("retrain", "retrain_fast")
"""They run in every cell, first: their policies and times are what the others are compared with."""

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "retrain_fast": ("retrain", {"fast": True}),
    "safe_rule_scratch": ("safe_rule", {"warm_start": False}),
}
"""Rows that are a method with options of its own."""


@dataclass(frozen=True)
class Variant:
    """A row. method: None for the untouched policies. described: the method gets the robot description."""

    name: str
    method: str | None
    options: Mapping[str, Any]
    described: bool


def parse_variant(name: str) -> Variant:
    """Return the row called `name`.

    Raises:
        UnlearningError: no such method, no such labels, or options that cannot be read.
    """
    row, colon, labels = name.partition(":")
    base, at, wanted = row.partition("@")
    labels = labels if colon else "description"
    if labels not in LABELS or (base in UNTOUCHED and colon):
        raise UnlearningError(f"method {name!r}: expected labels learned or logged, found {labels!r}")
    if base in UNTOUCHED and not at:
        return Variant(name, None, {}, True)
    method, options = OPTIONS.get(base, (base, {}))
    if method not in METHODS:
        known = ", ".join(sorted({*METHODS, *OPTIONS, *UNTOUCHED}))
        raise UnlearningError(f"method: expected one of {known}, found {base!r}")
    chosen = _options(name, wanted) if at else {}
    return Variant(name, method, {**options, **chosen, **LABELS[labels]}, labels == "description")


def _options(name: str, text: str) -> dict[str, Any]:
    try:
        return {key: json.loads(value) for key, value in (pair.split("=") for pair in text.split(","))}
    except ValueError as error:
        raise UnlearningError(f"method {name!r}: expected @option=number,..., found {text!r}") from error
