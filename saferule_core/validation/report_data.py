"""Everything a report shows, as plain data: what `report.json` holds and `report.html` is drawn from.

    data = ReportData(title="Repair of ball_circle", robot="ball_circle", cost_limit=10.0, verdict=verdict)
    save(data, "run/report.json")
    data = load("run/report.json")

Every section but the first fields is optional: a report of a repair without a running robot has no live series, one
of a training run has no verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from saferule_core.errors import DataError
from saferule_core.store.files import replace_file
from saferule_core.validation.gate import Verdict

FORMAT = 1
Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class SwapMark:
    """A moment [s] at which another policy took over, and what to write there."""

    time: float
    label: str


@dataclass(frozen=True)
class LiveSeries:
    """What the running robot reported, one value per control tick.

    time [s]; episode: number of the running episode; cost, reward: of this tick (reward may be empty).
    x, y [m]: position of the robot (may be empty). swaps: when another policy took over.
    """

    time: Numbers
    episode: tuple[int, ...]
    cost: Numbers
    reward: Numbers = ()
    x: Numbers = ()
    y: Numbers = ()
    swaps: tuple[SwapMark, ...] = ()

    def __post_init__(self) -> None:
        for name in ("episode", "cost", "reward", "x", "y"):
            count = len(getattr(self, name))
            if count != len(self.time) and not (count == 0 and name in ("reward", "x", "y")):
                raise DataError(f"report: live.{name}: expected {len(self.time)} values as in time, found {count}")


@dataclass(frozen=True)
class EpisodePath:
    """One validation episode: its totals and the positions it went through [m], (T, 2)."""

    seed: int
    reward: float
    cost: float
    path: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class PolicySection:
    """One policy and how it drove in validation."""

    policy_id: str
    episodes: tuple[EpisodePath, ...] = ()


@dataclass(frozen=True)
class UnlearningSection:
    """How the candidate was made.

    losses: one entry per progress report, {"fraction": 0.4, "<loss>": value, ...}.
    history: one entry per stage of the method, {"multiplier": ..., "modelled_cost": ..., ...}.
    """

    method: str
    succeeded: bool
    message: str
    steps: int
    seconds: float
    critics: str = "none"
    losses: tuple[dict[str, Any], ...] = ()
    history: tuple[dict[str, Any], ...] = ()
    diagnostics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BoundaryLine:
    """A line of the safety boundary at x or at y [m]."""

    x: float | None = None
    y: float | None = None


@dataclass(frozen=True)
class CircleLine:
    """A circle to draw under the paths [m]."""

    radius: float
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class PictureSection:
    """What to draw under the driven paths."""

    boundaries: tuple[BoundaryLine, ...] = ()
    circles: tuple[CircleLine, ...] = ()


@dataclass(frozen=True)
class ReportData:
    """A whole report.

    title, robot: what it is about. cost_limit: per episode. created: time in UTC, ISO 8601.
    reward_range: rewards that count as 0 and 1 when normalised. facts: group -> name -> text, shown as tables (hashes,
    seeds, versions, durations, counters of the running nodes).
    """

    title: str
    robot: str
    cost_limit: float
    created: str = ""
    verdict: Verdict | None = None
    incumbent: PolicySection | None = None
    candidate: PolicySection | None = None
    live: LiveSeries | None = None
    unlearning: UnlearningSection | None = None
    picture: PictureSection = PictureSection()
    reward_range: tuple[float, float] | None = None
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    format: int = FORMAT


def save(data: ReportData, path: str | Path) -> None:
    """Write `data` as JSON, in one step; numbers that are not finite become null.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        replace_file(Path(path), encode(data))
    except OSError as error:
        raise DataError(f"{path}: expected to write a report, found: {error.strerror}") from error


def encode(data: ReportData) -> bytes:
    """Return `data` as JSON."""
    return msgspec.json.encode(data, enc_hook=_plain) + b"\n"


def _plain(value: object) -> object:
    """Return a numpy number or array as plain Python."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise DataError(f"report: expected JSON-able data, found {type(value).__name__}")


def load(path: str | Path) -> ReportData:
    """Read what `save` wrote.

    Raises:
        DataError: the file is missing, no report, or of another version.
    """
    try:
        data = msgspec.json.decode(Path(path).read_bytes(), type=ReportData)
    except OSError as error:
        raise DataError(f"{path}: expected a report.json, found: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: expected a report.json, found: {error}") from error
    if data.format != FORMAT:
        raise DataError(f"{path}: format: expected {FORMAT}, found {data.format}; it was written by another version")
    return data


def known(values: Numbers) -> list[float]:
    """Return `values` with nan where a number is missing, for drawing."""
    return [math.nan if value is None else value for value in values]


def live_episodes(live: LiveSeries) -> list[dict[str, float]]:
    """Return the whole episodes of a live series: start, end [s], cost, reward, and whether it was before the swap.

    The first and the last episode are left out, as they may have been cut, and so are those in which a swap fell.
    """
    rows: dict[int, list[int]] = {}
    for row, episode in enumerate(live.episode):
        rows.setdefault(episode, []).append(row)
    times, costs, rewards = known(live.time), known(live.cost), known(live.reward)

    def total(values: list[float], ticks: list[int]) -> float:
        return math.fsum(values[row] for row in ticks if not math.isnan(values[row])) if values else math.nan

    found = []
    for ticks in list(rows.values())[1:-1]:
        start, end = times[ticks[0]], times[ticks[-1]]
        if any(start < mark.time <= end for mark in live.swaps):
            continue
        found.append(
            {
                "start": start,
                "end": end,
                "cost": total(costs, ticks),
                "reward": total(rewards, ticks),
                "swaps": float(sum(mark.time <= start for mark in live.swaps)),
            }
        )
    return found
