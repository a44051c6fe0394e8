"""What the pictures of a report show: each function draws onto matplotlib axes, in colours that have a meaning.

    draw_paths(axes, data.incumbent, data.picture, LIGHT, LIGHT.before, common_frame(data))
    draw_live(axes, data.live, data.cost_limit, LIGHT, "cost")

`figures` decides about sizes and files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from saferule_core.validation.report_data import (
    LiveSeries,
    PictureSection,
    PolicySection,
    ReportData,
    UnlearningSection,
    known,
    live_episodes,
)

LARGEST_SERIES = 3000
"""Longer live series are thinned to about this many points before they are drawn."""

Frame = tuple[float, float, float, float]


@dataclass(frozen=True)
class Colours:
    """What each colour means."""

    ink: str
    muted: str
    grid: str
    before: str
    after: str
    limit: str


LIGHT = Colours(ink="#1c2430", muted="#5b6675", grid="#e1e5ea", before="#c2410c", after="#0f766e", limit="#b91c1c")


def common_frame(data: ReportData) -> Frame | None:
    """Return x_min, x_max, y_min, y_max [m] that hold all paths and boundaries; None if there are no paths."""
    points = [
        point
        for policy in (data.incumbent, data.candidate)
        if policy is not None
        for episode in policy.episodes
        for point in episode.path
    ]
    if not points:
        return None
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    xs += [line.x for line in data.picture.boundaries if line.x is not None]
    ys += [line.y for line in data.picture.boundaries if line.y is not None]
    margin_x, margin_y = (0.05 * max(max(values) - min(values), 1.0) for values in (xs, ys))
    return min(xs) - margin_x, max(xs) + margin_x, min(ys) - margin_y, max(ys) + margin_y


def draw_paths(
    axes: Axes, policy: PolicySection, picture: PictureSection, colours: Colours, colour: str, frame: Frame | None
) -> None:
    """Draw all paths of a policy over the safety boundary."""
    _dress(axes, colours)
    for circle in picture.circles:
        angle = np.linspace(0.0, 2.0 * math.pi, 200)
        x, y = circle.x + circle.radius * np.cos(angle), circle.y + circle.radius * np.sin(angle)
        axes.plot(x, y, color=colours.muted, linewidth=1.0, dashes=(4, 3))
    for episode in policy.episodes:
        if episode.path:
            x, y = zip(*episode.path, strict=True)
            axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.55)
    for line in picture.boundaries:
        draw = axes.axvline if line.x is not None else axes.axhline
        draw(line.x if line.x is not None else line.y, color=colours.limit, linewidth=1.6)
    if frame is not None:
        x_min, x_max, y_min, y_max = frame
        _shade_outside(axes, [line.x for line in picture.boundaries], (x_min, x_max), axes.axvspan, colours)
        _shade_outside(axes, [line.y for line in picture.boundaries], (y_min, y_max), axes.axhspan, colours)
        axes.set_xlim(x_min, x_max)
        axes.set_ylim(y_min, y_max)
        if 1.0 / 3.0 < (x_max - x_min) / (y_max - y_min) < 3.0:
            axes.set_aspect("equal")
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")


def draw_live(axes: Axes, live: LiveSeries, limit: float, colours: Colours, what: str) -> None:
    """Draw cost or reward of the running robot, added up per episode, coloured by which policy drove."""
    _dress(axes, colours)
    times, values = np.array(known(live.time)), np.nan_to_num(np.array(known(getattr(live, what))))
    episodes = np.array(live.episode)
    starts = np.flatnonzero(np.r_[True, episodes[1:] != episodes[:-1]])
    total = np.cumsum(values)
    running = total - np.repeat(np.r_[0.0, total[starts[1:] - 1]], np.diff(np.r_[starts, len(values)]))
    swapped = np.searchsorted(np.sort([mark.time for mark in live.swaps]), times, side="right")
    stride = max(1, len(times) // LARGEST_SERIES)
    ends = np.r_[starts[1:] - 1, len(values) - 1]
    kept = np.unique(np.r_[np.arange(0, len(times), stride), starts, ends])
    for part in np.unique(swapped):
        rows = kept[swapped[kept] == part]
        line = np.insert(running[rows], np.flatnonzero(np.diff(episodes[rows])) + 1, np.nan)
        clock = np.insert(times[rows], np.flatnonzero(np.diff(episodes[rows])) + 1, np.nan)
        axes.plot(clock, line, color=colours.before if part == 0 else colours.after)
    for episode in live_episodes(live):
        colour = colours.before if episode["swaps"] == 0 else colours.after
        axes.plot(episode["end"], episode[what], "o", color=colour, markersize=4)
    for mark in live.swaps:
        axes.axvline(mark.time, color=colours.ink, linewidth=1.2, linestyle="--")
        place = {"xycoords": ("data", "axes fraction"), "va": "top"}
        axes.annotate(f" {mark.label}", (mark.time, 0.99), color=colours.ink, **place)
    if what == "cost":
        _limit_line(axes, limit, colours)
    axes.margins(x=0.01, y=0.06)
    axes.set_xlabel("time [s]")
    axes.set_ylabel(f"{what} in the episode")


def draw_pairs(
    axes: Axes, incumbent: PolicySection, candidate: PolicySection, limit: float | None, colours: Colours, what: str
) -> None:
    """Draw "cost" or "reward" of each validation episode before and after; pairs with the same start are joined."""
    _dress(axes, colours)
    after_by_seed = {episode.seed: getattr(episode, what) for episode in candidate.episodes}
    spread = np.random.default_rng(0)
    for episode in incumbent.episodes:
        if episode.seed in after_by_seed:
            left, right = spread.uniform(-0.07, 0.07, 2)
            values = (getattr(episode, what), after_by_seed[episode.seed])
            axes.plot((left, 1 + right), values, color=colours.muted, linewidth=0.7, alpha=0.45, zorder=1)
            axes.plot(left, values[0], "o", color=colours.before, markersize=5, alpha=0.8)
            axes.plot(1 + right, values[1], "o", color=colours.after, markersize=5, alpha=0.8)
    for position, policy, colour in ((0, incumbent, colours.before), (1, candidate, colours.after)):
        mean = float(np.mean([getattr(episode, what) for episode in policy.episodes]))
        axes.plot((position - 0.2, position + 0.2), (mean, mean), color=colour, linewidth=2.6, solid_capstyle="butt")
        label = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontweight": "bold"}
        axes.annotate(f"{mean:.3g}", (position + 0.2, mean), color=colour, **label)
    if limit is not None:
        _limit_line(axes, limit, colours)
    axes.set_xlim(-0.45, 1.6)
    axes.set_xticks((0, 1), ("before", "after"))
    axes.set_ylabel(f"{what} per episode")


def draw_losses(axes: Axes, unlearning: UnlearningSection, colours: Colours) -> None:
    """Draw the losses over the work done."""
    _dress(axes, colours)
    lines = {name: _series(unlearning.losses, name) for name in loss_names(unlearning)}
    for index, (name, (x, y)) in enumerate(lines.items()):
        colour = (colours.after, colours.before, colours.ink, colours.muted)[index % 4]
        axes.plot(x, y, ("-", "--", "-.", ":")[(index // 4) % 4], color=colour, label=name.replace("_", " "))
    values = [value for _, y in lines.values() for value in y]
    if min(values) > 0.0 and max(values) > 50.0 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.set_xlabel("work done [%]")
    axes.set_ylabel("loss")
    axes.legend(labelcolor=colours.ink)


def draw_multiplier(axes: Axes, unlearning: UnlearningSection, colours: Colours) -> None:
    """Draw the Lagrange multiplier over the work done."""
    _dress(axes, colours)
    axes.plot(*_series(unlearning.losses, "multiplier"), color=colours.after, drawstyle="steps-post")
    axes.set_xlabel("work done [%]")
    axes.set_ylabel("multiplier")
    axes.set_ylim(bottom=0.0)


def draw_audit(axes: Axes, unlearning: UnlearningSection, limit: float, colours: Colours) -> None:
    """Draw the cost and reward that the method modelled after each stage."""
    _dress(axes, colours)
    stages = audited_stages(unlearning)
    x = range(1, len(stages) + 1)
    cost = axes.plot(x, [entry["modelled_cost"] for entry in stages], "o-", color=colours.before, label="cost")
    _limit_line(axes, limit, colours)
    axes.set_xlabel("stage")
    axes.set_ylabel("modelled cost")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0.0, 1.2 * max(limit, *(entry["modelled_cost"] for entry in stages)) or 1.0)
    twin = _dress(axes.twinx(), colours)
    twin.grid(False)
    twin.spines["right"].set_visible(True)
    rewards = [entry.get("modelled_reward", math.nan) for entry in stages]
    reward = twin.plot(x, rewards, "s--", color=colours.after, label="reward")
    twin.set_ylabel("modelled reward")
    twin.legend(handles=[*cost, *reward], labelcolor=colours.ink, loc="center right")


def loss_names(unlearning: UnlearningSection) -> list[str]:
    """Return the names of the losses that were reported."""
    found = {name for entry in unlearning.losses for name, value in entry.items() if isinstance(value, (int, float))}
    return sorted(found - {"fraction", "multiplier"})


def audited_stages(unlearning: UnlearningSection) -> list[dict[str, Any]]:
    """Return the stages after which the method modelled the policy's cost."""
    return [entry for entry in unlearning.history if entry.get("modelled_cost") is not None]


def _dress(axes: Axes, colours: Colours) -> Axes:
    """Give axes their quiet look."""
    axes.set_facecolor("none")
    axes.grid(True, color=colours.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_color(colours.muted)
        spine.set_linewidth(0.8)
        spine.set_visible(name in ("left", "bottom"))
    axes.tick_params(colors=colours.muted, labelcolor=colours.ink, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(colours.ink)
        label.set_fontsize(9.5)
    return axes


def _limit_line(axes: Axes, limit: float, colours: Colours) -> None:
    axes.axhline(limit, color=colours.limit, linewidth=1.2)
    place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
    axes.annotate(f"limit {limit:g}", (1.0, limit), color=colours.limit, **place)


def _shade_outside(
    axes: Axes, lines: Sequence[float | None], frame: tuple[float, float], span: Callable[..., object], colours: Colours
) -> None:
    """Tint what lies beyond a pair of boundaries on both sides of the origin."""
    positions = [line for line in lines if line is not None]
    if any(line < 0.0 for line in positions) and any(line > 0.0 for line in positions):
        span(frame[0], min(positions), color=colours.limit, alpha=0.08, linewidth=0)
        span(max(positions), frame[1], color=colours.limit, alpha=0.08, linewidth=0)


def _series(entries: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Return work done [%] and values of one loss."""
    pairs = [(100.0 * entry["fraction"], entry[name]) for entry in entries if entry.get(name) is not None]
    return [x for x, _ in pairs], [y for _, y in pairs]
