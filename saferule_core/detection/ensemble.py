"""The ensemble: every detector that can work on a case, on one scale, with a calibrated false-alarm rate.

    found = detect(case)
    found.p_values <= 0.05                        # at most 5 % of honest episodes, if the trusted ones are typical
    found.ensemble.reasons[3], found.parts["cost_model"].scores, found.skipped
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from saferule_core.detection.base import DETECTORS, Case, Suspicion, detector, suspicion
from saferule_core.detection.calibration import combine
from saferule_core.detection.last_layer import agent_of
from saferule_core.errors import DetectionError
from saferule_core.progress import Progress, silent

MEMBERS = (
    "label_disagreement", "cost_model", "reward_model", "transition_gap", "action_gap", "value_outlier",
    "gradient_similarity", "spectral",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Detection:
    """What all detectors think.

    ensemble: combined scores with the reason of the detector that is most alarmed. p_values: (E,), NaN where no
    episode is trusted. parts: by detector. standardised: by detector, (E,), what the ensemble compares.
    skipped: detectors that could not work, and why.
    """

    ensemble: Suspicion
    p_values: np.ndarray
    parts: dict[str, Suspicion]
    standardised: dict[str, np.ndarray]
    skipped: dict[str, str]


def detect(case: Case, members: Sequence[str] = MEMBERS, progress: Progress = silent) -> Detection:
    """Run the detectors `members` and combine them; report as phase "detecting".

    Raises:
        DetectionError: no detector can work on the case, or one of them does not exist.
    """
    if unknown := sorted(set(members) - set(DETECTORS) | set(members) & {"ensemble"}):
        raise DetectionError(f"detectors: expected some of {', '.join(MEMBERS)}, found {unknown[0]!r}")
    if {"gradient_similarity", "spectral"} & set(members):
        progress("detecting", 0.0, "agent")
        case = replace(case, agent=agent_of(case))
    parts: dict[str, Suspicion] = {}
    skipped: dict[str, str] = {}
    for number, name in enumerate(members):
        progress("detecting", number / len(members), name)
        try:
            parts[name] = suspicion(name, case)
        except DetectionError as error:
            skipped[name] = str(error).removeprefix(f"{name}: ")
    if not parts:
        why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise DetectionError(f"detection: expected a detector that can work here, found none: {why}")
    combined, p_values, table = combine([part.scores for part in parts.values()], case.trusted)
    names = list(parts)
    reasons = tuple(
        f"{names[worst]}: {parts[names[worst]].reasons[episode]}" for episode, worst in enumerate(table.argmax(axis=1))
    )
    progress("detecting", 1.0, f"{len(parts)} detectors")
    standardised = dict(zip(names, table.T, strict=True))
    return Detection(Suspicion(combined, reasons), p_values, parts, standardised, skipped)


@detector("ensemble")
def ensemble(case: Case) -> Suspicion:
    """Return what `detect` makes of all detectors together."""
    return detect(case).ensemble
