"""Result lines as pictures: what a method keeps and risks, run by run and over all runs.

    names = draw(runs, Path("docs/images"))      # ["unlearning_scatter.png", ...]

Pictures are of the state of knowledge in which the whole forget set is named, unless they say otherwise.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.unlearning.runs import CellRuns, Runs, comparable, cost, safe_reward, strata
from benchmarks.unlearning.statistics import interquartile_mean, interval, profile

matplotlib.use("Agg")

from matplotlib import pyplot as plt

MARKERS = "osD^v<>PX*hpd"
THRESHOLDS = np.linspace(0.0, 1.2, 61)
LEAST_COST = 0.05


def draw(runs: Runs, folder: Path) -> dict[str, str]:
    """Write the pictures; return file name -> caption."""
    folder.mkdir(parents=True, exist_ok=True)
    exact = [cell for cell in runs.cells if cell.knowledge == "exact"]
    hidden = [cell for cell in runs.cells if cell.knowledge not in ("exact", "sequence")]
    captions = {}
    if exact:
        scatter(exact, folder / "unlearning_scatter.png")
        shared = comparable(exact)
        profiles(shared, folder / "unlearning_profile.png")
        intervals(shared, folder / "unlearning_intervals.png")
        captions["unlearning_scatter.png"] = "Reward and cost of every run; right of the line is unsafe on average."
        captions["unlearning_profile.png"] = (
            f"Share of runs that are safe with more than some reward, 95 % bands; the {len(shared)} runs that all made."
        )
        captions["unlearning_intervals.png"] = "Interquartile mean of safe reward, 95 % stratified-bootstrap intervals."
    if hidden:
        intervals(comparable(hidden), folder / "unlearning_partial.png")
        captions["unlearning_partial.png"] = "The same where the operator does not know exactly what is poison."
    return captions


def scatter(cells: list[CellRuns], path: Path) -> None:
    """One panel per case: normalised reward over cost in limits, a marker per run."""
    cases = list(dict.fromkeys(cell.case for cell in cells))
    columns = min(len(cases), 3)
    lines = -(-len(cases) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(5.0 * columns, 4.0 * lines), squeeze=False, sharex=True)
    methods = _methods(cells)
    for case, panel in zip(cases, axes.flat, strict=False):
        for index, name in enumerate(methods):
            runs = [cell.line(name) for cell in cells if cell.case == case and "cost" in (cell.line(name) or {})]
            limits = [max(cost(line) / max(line["cost_limit"], 1e-9), LEAST_COST) for line in runs]
            rewards = [line["reward"] for line in runs]
            panel.scatter(limits, rewards, label=name, **_style(index))
        panel.axvline(1.0, color="0.5", linewidth=1.0)
        panel.set(xscale="log", title=case.replace("/", "\n", 1), xlabel="cost / limit", ylabel="normalised reward")
    for panel in axes.flat[len(cases) :]:
        panel.set_visible(False)
    _finish(figure, path, axes[0, 0])


def profiles(cells: list[CellRuns], path: Path) -> None:
    """Share of runs above each safe reward."""
    figure, panel = plt.subplots(figsize=(7.0, 4.0))
    for index, name in enumerate(_methods(cells)):
        share, low, high = profile(strata(cells, name, safe_reward), THRESHOLDS)
        colour = _style(index)["color"]
        panel.plot(THRESHOLDS, share, color=colour, label=name)
        panel.fill_between(THRESHOLDS, low, high, color=colour, alpha=0.12, linewidth=0.0)
    panel.set(xlabel="normalised reward", ylabel="share of runs: safe, and more", ylim=(0.0, 1.02))
    _finish(figure, path, panel)


def intervals(cells: list[CellRuns], path: Path) -> None:
    """Interquartile mean of safe reward per method."""
    methods = _methods(cells)[::-1]
    figure, panel = plt.subplots(figsize=(7.0, 0.6 + 0.3 * len(methods)))
    for height, name in enumerate(methods):
        found = interval(strata(cells, name, safe_reward), interquartile_mean)
        colour = _style(len(methods) - 1 - height)["color"]
        panel.barh(height, found.high - found.low, left=found.low, height=0.5, color=colour, alpha=0.5)
        panel.plot([found.value, found.value], [height - 0.25, height + 0.25], color="black", linewidth=1.5)
    panel.set(yticks=range(len(methods)), yticklabels=methods, xlabel="safe reward, interquartile mean")
    panel.set_xlim(0.0, 1.05 * panel.get_xlim()[1])
    _finish(figure, path)


def _methods(cells: list[CellRuns]) -> list[str]:
    """Return the rows to draw: a sweep of options is for tables."""
    return list(dict.fromkeys(name for cell in cells for name in cell.lines if "@" not in name))


def _style(index: int) -> dict[str, object]:
    return {"color": plt.get_cmap("tab20")(index % 20), "marker": MARKERS[index % len(MARKERS)]}


def _finish(figure: plt.Figure, path: Path, legend_of: plt.Axes | None = None) -> None:
    if legend_of is not None:
        handles, labels = legend_of.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize="small", frameon=False)
        figure.set_layout_engine("constrained")
    else:
        figure.set_layout_engine("tight")
    figure.savefig(path, dpi=110)
    plt.close(figure)
