"""The report of a repair: one self-contained HTML page, readable by people, drawn from one JSON file.

    page = write_report(data, "runs/2026-01-31")        # writes report.json and report.html there
    page = rerender("runs/2026-01-31")                  # draws report.html again from report.json

The page loads nothing from elsewhere: pictures are inline SVG, colours follow the reader's light or dark setting.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from saferule_core.errors import DataError
from saferule_core.store.files import replace_file
from saferule_core.validation.figures import render_png, svg_figures
from saferule_core.validation.report_data import ReportData, live_episodes, load, save
from saferule_core.validation.report_page import PAGE, STYLE
from saferule_core.validation.statistics import Summary

__all__ = ["ReportData", "render", "render_html", "render_png", "rerender", "write_report"]

JSON_NAME, HTML_NAME = "report.json", "report.html"


def write_report(data: ReportData, directory: str | Path) -> Path:
    """Write `report.json` and `report.html` into `directory` (made if needed); return the path of the page.

    Raises:
        DataError: they cannot be written.
    """
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: expected a directory for the report, found: {error.strerror}") from error
    save(data, folder / JSON_NAME)
    return render(data, folder / HTML_NAME)


def rerender(source: str | Path) -> Path:
    """Draw the page again from a `report.json`, or from the run directory that holds one; return its path.

    Raises:
        DataError: there is no report, or the page cannot be written.
    """
    path = Path(source)
    path = path / JSON_NAME if path.is_dir() else path
    return render(load(path), path.with_suffix(".html"))


def render_html(data: ReportData) -> str:
    """Return the whole page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    figures = {name: Markup(svg) for name, svg in svg_figures(data).items()}  # noqa: S704 - our own drawings
    return environment.from_string(PAGE).render(
        data=data,
        style=Markup(STYLE),  # noqa: S704 - our own text
        figures=figures,
        headline=_headline(data),
        tiles=_tiles(data),
        comparison=_comparison(data),
        paired=_paired(data),
        created=data.created or datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def render(data: ReportData, path: str | Path) -> Path:
    """Write the page of `data` to `path` and return that.

    Raises:
        DataError: it cannot be written.
    """
    try:
        replace_file(Path(path), render_html(data).encode())
    except OSError as error:
        raise DataError(f"{path}: expected to write the report's page, found: {error.strerror}") from error
    return Path(path)


def _headline(data: ReportData) -> dict[str, str]:
    """Return the verdict in plain words: kind ("good", "bad", "open"), word and sentence."""
    verdict = data.verdict
    if verdict is None and data.unlearning is not None and not data.unlearning.succeeded:
        text = "The method found no policy that it calls safe, so nothing was validated and nothing may drive."
        return {"kind": "bad", "word": "Refused", "text": text}
    if verdict is None:
        return {"kind": "open", "word": "Not judged", "text": "No validation belongs to this report."}
    before, after = verdict.incumbent, verdict.candidate
    if verdict.accepted:
        unsafe = before.cost.mean > verdict.rules.cost_limit
        times = f", {_times(before.cost.mean, data)} its limit" if unsafe else ""
        text = f"The old policy costs {before.cost.mean:.1f} per episode{times}. The repaired one costs "
        text += f"{after.cost.mean:.1f}, within the limit of {verdict.rules.cost_limit:g} "
        text += f"with {verdict.rules.confidence:.0%} confidence"
        if verdict.reward_reference is not None and verdict.reward_reference > 0.0:
            text += f", and earns {after.reward.mean / verdict.reward_reference:.0%} of the reference reward"
        return {"kind": "good", "word": "Accepted", "text": text + "."}
    failed = " and ".join(f"“{check.name}”" for check in verdict.checks if not check.passed)
    text = f"The repaired policy did not pass {failed}, so it must not drive. The checks below say what was missing."
    return {"kind": "bad", "word": "Refused", "text": text}


def _times(cost: float, data: ReportData) -> str:
    return f"{cost / data.cost_limit:.1f} times" if data.cost_limit > 0.0 else "more than"


def _tiles(data: ReportData) -> list[dict[str, str]]:
    """Return the few numbers that matter most."""
    tiles = []
    if data.verdict is not None:
        before, after = data.verdict.incumbent, data.verdict.candidate
        change = f"{before.cost.mean:.1f} → {after.cost.mean:.1f}"
        tiles.append(_tile("mean episode cost", change, f"limit {data.cost_limit:g}"))
        kept = data.verdict.reward_reference
        note = f"reference {kept:.1f}" if kept is not None else "no reference"
        tiles.append(_tile("mean reward", f"{before.reward.mean:.1f} → {after.reward.mean:.1f}", note))
    if data.unlearning is not None:
        work = data.unlearning
        tiles.append(_tile("unlearning", f"{work.seconds:.1f} s", f"{work.method}, {work.steps} steps"))
    if data.live is not None and (live := _live_costs(data)):
        text = " → ".join(f"{value:.1f}" for value in live)
        tiles.append(_tile("live episode cost", text, "mean of whole episodes on the running robot"))
    return tiles


def _tile(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _live_costs(data: ReportData) -> list[float]:
    """Return the mean cost of whole live episodes before the first swap and after the last one."""
    if data.live is None:
        return []
    episodes, swaps = live_episodes(data.live), len(data.live.swaps)
    groups = [[e["cost"] for e in episodes if e["swaps"] == count] for count in sorted({0, swaps})]
    return [float(np.mean(group)) for group in groups if group]


def _comparison(data: ReportData) -> list[tuple[str, str, str]]:
    """Return the rows of the table: what, before, after."""
    if data.verdict is None:
        return []
    before, after, confidence = data.verdict.incumbent, data.verdict.candidate, data.verdict.rules.confidence
    rows = [
        ("episodes", str(before.cost.count), str(after.cost.count)),
        ("mean episode cost", f"{before.cost.mean:.2f}", f"{after.cost.mean:.2f}"),
        (f"upper bound of the mean cost ({confidence:.0%})", _bound(before.cost), _bound(after.cost)),
        ("worst episode's cost", f"{before.cost.largest:g}", f"{after.cost.largest:g}"),
        (
            "episodes over the limit",
            f"{before.violations.hits} of {before.violations.count}",
            f"{after.violations.hits} of {after.violations.count}",
        ),
        (
            f"upper bound of that share ({confidence:.0%})",
            f"{before.violations.upper:.0%}",
            f"{after.violations.upper:.0%}",
        ),
        ("mean reward", f"{before.reward.mean:.2f}", f"{after.reward.mean:.2f}"),
    ]
    if data.reward_range is not None:
        low, high = data.reward_range
        normal = [(figures.reward.mean - low) / (high - low) for figures in (before, after)]
        rows.append(("normalised reward", f"{normal[0]:.3f}", f"{normal[1]:.3f}"))
    live = _live_costs(data)
    if len(live) == 2:
        rows.append(("mean cost of live episodes", f"{live[0]:.2f}", f"{live[1]:.2f}"))
    return rows


def _paired(data: ReportData) -> str:
    """Return how much cost and reward changed from pair to pair, as a sentence; empty without bounds."""
    if data.verdict is None:
        return ""
    cost, reward = data.verdict.cost_change, data.verdict.reward_change
    if cost.upper is None or reward.lower is None:
        return ""
    return (
        f"Same starts, pair by pair: the cost changes by {cost.mean:+.2f} per episode (at most {cost.upper:+.2f} with "
        f"{cost.confidence:.0%} confidence), the reward by {reward.mean:+.2f} (at least {reward.lower:+.2f})."
    )


def _bound(summary: Summary) -> str:
    return "none" if summary.upper is None else f"{summary.upper:.2f}"
