"""Which episodes to suspect, and the file that names them.

    chosen = choose(found, case.trusted, false_alarm_rate=0.05, max_share=0.3)
    chosen.episodes, chosen.left_out, chosen.note            # most suspicious first
    save(SuspectsFile(...), "suspects.json");  load("suspects.json")

A suspect is proposed, never used by itself: a request to unlearn has to name the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from saferule_core.detection.ensemble import Detection
from saferule_core.errors import DataError, DetectionError
from saferule_core.store.files import replace_file

FORMAT = 1
THRESHOLD = 2.0
"""Without trusted episodes: the least combined score of a suspect, as of one detector at 7 spreads."""


@dataclass(frozen=True, eq=False)
class Choice:
    """episodes: suspects, most suspicious first. left_out: as suspicious, but beyond the share. note: for people."""

    episodes: np.ndarray
    left_out: int
    note: str


def choose(found: Detection, trusted: np.ndarray, false_alarm_rate: float, max_share: float) -> Choice:
    """Return the episodes to suspect: at most a share `max_share` of those that are not trusted.

    With trusted episodes these are the ones of p <= `false_alarm_rate`, else the ones that stick out of all.

    Raises:
        DetectionError: a rate is out of range.
    """
    for name, value in (("false alarm rate", false_alarm_rate), ("max share", max_share)):
        if not 0.0 < value <= 1.0:
            raise DetectionError(f"{name}: expected a number above 0, at most 1, found {value:g}")
    scores = found.ensemble.scores
    others = np.setdiff1d(np.arange(len(scores)), trusted)
    if not len(trusted):
        suspected = others[scores[others] > THRESHOLD]
        note = f"not calibrated: no episode is trusted, so those of suspicion above {THRESHOLD:g} are named"
    else:
        suspected = others[found.p_values[others] <= false_alarm_rate]
        note = f"calibrated on {len(trusted)} trusted episodes: up to {false_alarm_rate:.1%} of honest ones are named"
        needed = math.ceil(1.0 / false_alarm_rate) - 1
        if len(trusted) < needed:
            note = f"{len(trusted)} trusted episodes are too few to name any at a rate of {false_alarm_rate:.1%}: "
            note += f"expected at least {needed}; trust more, or allow more false alarms"
    ranked = suspected[np.argsort(-scores[suspected], kind="stable")]
    allowed = math.floor(max_share * len(others) + 1e-9)
    return Choice(ranked[:allowed], max(0, len(ranked) - allowed), note)


@dataclass(frozen=True)
class SuspectEpisode:
    """bag: its path; episode: name in the bag; digest: of its observations and actions, so that a mix-up is noticed."""

    bag: str
    episode: str
    steps: int
    score: float
    p_value: float | None
    reason: str
    digest: str


@dataclass(frozen=True)
class SuspectsFile:
    """What `saferule inspect --suspects` writes: the suspects, and how they were found."""

    robot: str
    spec_hash: str
    created: str
    version: str
    bags: tuple[str, ...]
    trusted_bags: tuple[str, ...]
    policy: str | None
    seed: int
    false_alarm_rate: float
    max_share: float
    detectors: tuple[str, ...]
    skipped: dict[str, str]
    note: str
    left_out: int
    suspects: tuple[SuspectEpisode, ...]
    format: int = FORMAT


def save(suspects: SuspectsFile, path: str | Path) -> None:
    """Write the file, in one step. Raises DataError if that fails."""
    try:
        replace_file(Path(path), msgspec.json.format(msgspec.json.encode(suspects), indent=2) + b"\n")
    except OSError as error:
        raise DataError(f"{path}: expected to write suspects, found: {error.strerror}") from error


def load(path: str | Path) -> SuspectsFile:
    """Read what `save` wrote. Raises DataError if it is missing, something else, or of another version."""
    try:
        suspects = msgspec.json.decode(Path(path).read_bytes(), type=SuspectsFile)
    except OSError as error:
        raise DataError(f"{path}: expected a file of saferule inspect --suspects, found: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: expected a file of saferule inspect --suspects, found: {error}") from error
    if suspects.format != FORMAT:
        raise DataError(f"{path}: format: expected {FORMAT}, found {suspects.format}; another version wrote it")
    return suspects
