"""The pictures of a report as files: inline SVG that follows the page's light or dark colours, and one PNG.

    figures = svg_figures(data)                 # name -> SVG, only those that there is data for
    render_png(data, "docs/repair.png")

Matplotlib writes plain hex colours; in the SVG these are replaced by CSS variables of the same meaning.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saferule_core.errors import DataError
from saferule_core.validation import drawings
from saferule_core.validation.drawings import LIGHT, Colours
from saferule_core.validation.report_data import PolicySection, ReportData

_STAND_INS = Colours(ink="#010101", muted="#020202", grid="#030303", before="#040404", after="#050505", limit="#060606")
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "lines.linewidth": 1.4,
}
if "text.parse_math" in mpl.rcParams:  # from matplotlib 3.6 on: names with a dollar sign stay what they are
    _STYLE["text.parse_math"] = False
_SMALL, _SQUARE, _WIDE = (4.2, 3.1), (4.2, 3.9), (8.4, 2.8)


def svg_figures(data: ReportData) -> dict[str, str]:
    """Return the pictures that `data` has something for: name -> SVG element."""
    before, after, live, work = data.incumbent, data.candidate, data.live, data.unlearning
    colours, limit = _STAND_INS, data.cost_limit
    frame = drawings.common_frame(data)
    found: dict[str, str] = {}

    def add(name: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> None:
        found[name] = _svg(name, size, draw)

    if live is not None and len(live.time) > 1:
        add("live-cost", _WIDE, lambda axes: drawings.draw_live(axes, live, limit, colours, "cost"))
        if live.reward:
            add("live-reward", _WIDE, lambda axes: drawings.draw_live(axes, live, limit, colours, "reward"))
    for name, policy, colour in (("before", before, colours.before), ("after", after, colours.after)):
        if frame is not None and policy is not None and any(episode.path for episode in policy.episodes):
            add(f"paths-{name}", _SQUARE, partial(_paths, policy, data, colour, frame))
    if before is not None and after is not None and before.episodes and after.episodes:
        add("pairs-cost", _SMALL, lambda axes: drawings.draw_pairs(axes, before, after, limit, colours, "cost"))
        add("pairs-reward", _SMALL, lambda axes: drawings.draw_pairs(axes, before, after, None, colours, "reward"))
    if work is not None and drawings.loss_names(work):
        add("losses", _SMALL, lambda axes: drawings.draw_losses(axes, work, colours))
    if work is not None and any(entry.get("multiplier") is not None for entry in work.losses):
        add("multiplier", _SMALL, lambda axes: drawings.draw_multiplier(axes, work, colours))
    if work is not None and drawings.audited_stages(work):
        add("audit", _SMALL, lambda axes: drawings.draw_audit(axes, work, limit, colours))
    return found


def render_png(data: ReportData, path: str | Path, width: int = 1200) -> None:
    """Write one picture `width` pixels wide: paths before and after, and the cost over time below them.

    Raises:
        DataError: there is nothing to draw, or the file cannot be written.
    """
    named = (("before", data.incumbent), ("after", data.candidate))
    policies = [(kind, policy) for kind, policy in named if policy is not None and policy.episodes]
    live = data.live if data.live is not None and len(data.live.time) > 1 else None
    if not policies and live is None:
        raise DataError(f"{path}: expected validation episodes or a live series to draw, found neither")
    heights = [height for height, wanted in ((4.5, policies), (2.7, live)) if wanted]
    with mpl.rc_context(_STYLE):
        figure = Figure((10.0, sum(heights)), dpi=width / 10.0, layout="constrained", facecolor="white")
        rows = list(np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights)))
        frame = drawings.common_frame(data)
        for column, (kind, policy) in enumerate(policies, start=1):
            axes = rows[0].add_subplot(1, len(policies), column)
            drawings.draw_paths(axes, policy, data.picture, LIGHT, getattr(LIGHT, kind), frame)
            cost = float(np.mean([episode.cost for episode in policy.episodes]))
            axes.set_title(f"{kind}: mean episode cost {cost:.1f} (limit {data.cost_limit:g})", color=LIGHT.ink)
        if live is not None:
            axes = rows[-1].add_subplot()
            drawings.draw_live(axes, live, data.cost_limit, LIGHT, "cost")
            axes.set_title("on the running robot", color=LIGHT.ink)
        try:
            figure.savefig(path, format="png", metadata={"Software": None})
        except OSError as error:
            raise DataError(f"{path}: expected to write a picture, found: {error.strerror}") from error


def _paths(policy: PolicySection, data: ReportData, colour: str, frame: drawings.Frame, axes: Axes) -> None:
    drawings.draw_paths(axes, policy, data.picture, _STAND_INS, colour, frame)


def _svg(name: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> str:
    """Return a picture as an SVG element that can stand in a page beside others; equal data give equal text."""
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for field in fields(_STAND_INS):
        svg = svg.replace(getattr(_STAND_INS, field.name), f"var(--{field.name})")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # The page sets the size, and identifiers must not meet those of other pictures.
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
