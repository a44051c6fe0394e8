"""Result lines as Markdown tables: every seed shown, runs that failed too.

    text = driving_table(cells)          # reward, cost, safety and time, one row per method
    text = memory_table(cells)           # what the policies still hold of the forgotten data
    text = summary_table(runs)           # over all settings, with intervals
    text = overview(runs)                # the same in a few lines, for the README
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.unlearning.claims import OURS, Claim, fraction
from benchmarks.unlearning.measure import RELEARNING_STEPS
from benchmarks.unlearning.runs import (
    CellRuns,
    Line,
    Runs,
    comparable,
    cost,
    ratio,
    reward,
    safe_reward,
    strata,
    violations,
)
from benchmarks.unlearning.statistics import Interval, improvement, interquartile_mean, interval, mean

NONE, MISSING, GAVE_NOTHING = "-", ".", "x"

COMPARED = (
    "poisoned", "retrain", "retrain_fast", "finetune", "gradient_ascent", "random_reward", "trajdeleter", "paper",
    "paper_fixed", OURS,
)  # fmt: skip
"""What `overview` shows."""


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table without the columns that say nothing in any row."""
    nothing = set(f"{NONE}{MISSING}{GAVE_NOTHING} ")
    kept = [index for index in range(len(titles)) if any(set(row[index]) - nothing for row in rows)]
    lines = [[row[index] for index in kept] for row in (titles, *rows)]
    lines.insert(1, ["---"] * len(kept))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def claims_table(claims: Sequence[Claim]) -> str:
    """Return what was to be reached, and whether it was."""
    words = {True: "yes", False: "**no**", None: "not judged"}
    rows = [(claim.text, words[claim.reached], claim.figure, claim.over) for claim in claims]
    return markdown(("claim", "reached", "figure", "over which runs"), rows)


def driving_table(cells: Sequence[CellRuns]) -> str:
    """Return how the policies of one setting drive; cells: its seeds."""
    titles = (
        "method", "reward per seed", "IQM", "cost per seed", "highest bound", "violations", "safe", "says repaired",
        "its audit's cost", "s", "of retrain", "of fast", "steps",
    )  # fmt: skip
    rows = []
    for name in _methods(cells):
        lines = [cell.line(name) for cell in cells]
        ran = [line for line in lines if line is not None]
        drove = [line for line in ran if "cost" in line]
        rewards = [line["reward"] for line in drove]
        rows.append((
            name,
            _each(lines, lambda line: f"{line['reward']:.2f}"),
            f"{interquartile_mean(np.array(rewards)):.3f}" if rewards else NONE,
            _each(lines, _cost_words),
            _largest(drove, "upper"),
            f"{100 * np.mean([violations(line) for line in drove]):.0f} %" if drove else NONE,
            f"{sum(cell.safe(name) for cell in cells)} of {len(ran)}",
            _said(ran),
            _audited(ran),
            _median(line["seconds"] for line in ran),
            _share(ran, "retrain"),
            _share(ran, "retrain_fast"),
            _median((line["steps"] for line in ran), "{:.0f}"),
        ))  # fmt: skip
    return markdown(titles, rows)


def memory_table(cells: Sequence[CellRuns]) -> str:
    """Return what the policies of one setting still hold of the forgotten data."""
    titles = (
        "method", "distance: forget", "retain", "membership", "critic error", "critics", "relearned after, per seed",
        "cost after further training, per seed",
    )  # fmt: skip
    rows = []
    for name in _methods(cells):
        lines = [cell.line(name) for cell in cells]
        ran = [line for line in lines if line is not None]
        states = [line["critics"] for line in ran if line["critics"] is not None]
        rows.append((
            name,
            _median((line.get("distance_forget") for line in ran), "{:.3f}"),
            _median((line.get("distance_retain") for line in ran), "{:.3f}"),
            _median((line.get("membership") for line in ran), "{:.2f}"),
            _median((line.get("critic_error") for line in ran), "{:.2f}"),
            ", ".join(dict.fromkeys(states)) or NONE,
            _each(lines, _relearned, "membership"),
            _each(lines, lambda line: _cost_words(line["trained_on"]), "trained_on"),
        ))  # fmt: skip
    return markdown(titles, rows)


def summary_table(runs: Runs, knowledge: str) -> str:
    """Return every method over the runs of a state of knowledge that all made, with stratified-bootstrap intervals.

    The last column is the probability that a run of `safe_rule` has more safe reward than one of the method. Below the
    table stands which settings these are.
    """
    titles = (
        "method", "runs", "safe", "reward, mean", "reward, IQM", "safe reward, IQM", "cost, mean", "P(ours better)",
    )  # fmt: skip
    cells = comparable([cell for cell in runs.cells if cell.knowledge == knowledge])
    ours = strata(cells, OURS, safe_reward)
    rows = []
    for name in _methods(cells):
        rewards, scores = strata(cells, name, reward), strata(cells, name, safe_reward)
        ran = [cell.line(name) for cell in cells if cell.line(name) is not None]
        shared = name != OURS and bool(ours.keys() & scores.keys())
        rows.append((
            name,
            str(len(ran)),
            f"{100 * np.mean([cell.safe(name) for cell in cells if cell.line(name)]):.0f} %",
            _interval(interval(rewards, mean)) if rewards else NONE,
            _interval(interval(rewards, interquartile_mean)) if rewards else NONE,
            _interval(interval(scores, interquartile_mean)),
            _interval(interval(strata(cells, name, cost), mean), 1),
            _interval(improvement(ours, scores)) if shared else NONE,
        ))  # fmt: skip
    cases = ", ".join(dict.fromkeys(cell.case for cell in cells))
    return f"{markdown(titles, rows)}\n\nOver {len(cells)} runs of {cases}."


def overview(runs: Runs) -> str:
    """Return the methods beside each other, on the runs that all of them made, and which runs these are.

    Two states of knowledge: the forget set is the poison, or it misses part of it or names honest episodes.
    """
    titles = ("method", "safe", "reward", "cost", "time", "safe, poison known in part")
    cells = [cell for cell in runs.cells if cell.knowledge == "exact" and all(cell.line(name) for name in COMPARED)]
    part = [cell for cell in runs.cells if cell.kind[0] in ("recall", "precision")]
    rows = []
    for name in COMPARED:
        lines = [cell.lines[name] for cell in cells]
        rewards = [value for value in map(reward, lines) if value is not None]
        known = [cell.safe(name) for cell in part if cell.line(name)]
        rows.append((
            f"**{name}**" if name == OURS else name,
            f"{sum(cell.safe(name) for cell in cells)} of {len(lines)}",
            f"{interquartile_mean(np.array(rewards)):.2f}",
            f"{np.mean([cost(line) for line in lines]):.1f}",
            _share(lines, "retrain"),
            f"{sum(known)} of {len(known)}" if known else NONE,
        ))  # fmt: skip
    cases = dict.fromkeys(cell.case for cell in cells)
    return f"{markdown(titles, rows)}\n\nOver {len(cells)} runs of {len(cases)} settings: {', '.join(cases)}."


def failures_list(runs: Runs) -> str:
    """Return the runs that gave no policy, and those in which our method was unsafe, refused, or wrong about itself."""
    found = []
    for cell in runs.cells:
        for name, line in cell.lines.items():
            words = _failure(name, line)
            if words:
                found.append(f"- {cell.name}, {name}: {words}")
    return "\n".join(found) or "None."


def _failure(name: str, line: Line) -> str | None:
    if line["error"] is not None:
        return f"no result: {line['error']}"
    if not name.startswith(OURS) or (line["safe"] and line["succeeded"]):
        return None
    verdict = "safe" if line["safe"] else f"unsafe, cost {cost(line):.1f}"
    claim = "says repaired" if line["succeeded"] else "says failed"
    return f"{claim}, is {verdict}: {line['message']}"


def _methods(cells: Sequence[CellRuns]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name in cell.lines))


def _each(lines: Sequence[Line | None], words: Callable[[Line], str], needs: str = "cost") -> str:
    """Return a word per seed; a dot where the run is missing, a cross where it gave no policy."""
    return " ".join(
        MISSING if line is None else words(line) if needs in line else GAVE_NOTHING for line in lines
    )  # fmt: skip


def _cost_words(line: Line) -> str:
    """Return the mean cost, in bold where the policy is unsafe."""
    text = f"{line.get('worst_cost', line['cost']):.1f}"
    return text if line["safe"] else f"**{text}**"


def _relearned(line: Line) -> str:
    return f">{RELEARNING_STEPS[-1]}" if line["relearned_after"] is None else str(line["relearned_after"])


def _said(lines: Sequence[Line]) -> str:
    said = [line["succeeded"] for line in lines if line["succeeded"] is not None]
    return f"{sum(said)} of {len(said)}" if said else NONE


def _audited(lines: Sequence[Line]) -> str:
    """Return the cost per run that the method's own audit expects."""
    known = [line["diagnostics"].get("modelled_cost") for line in lines]
    if all(each is None for each in known):
        return NONE
    return " ".join(GAVE_NOTHING if each is None else f"{each:.1f}" for each in known)


def _share(lines: Sequence[Line], reference: str) -> str:
    ratios = [ratio(line, reference) for line in lines]
    known = [value for value in ratios if value is not None]
    return fraction(float(np.median(known))) if known else NONE


def _median(values: Iterable[Any], form: str = "{:.2f}") -> str:
    known = [value for value in values if value is not None]
    return form.format(float(np.median(known))) if known else NONE


def _largest(lines: Sequence[Line], name: str) -> str:
    known = [line[name] for line in lines if line[name] is not None]
    return f"{max(known):.1f}" if known else NONE


def _interval(found: Interval, digits: int = 2) -> str:
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
