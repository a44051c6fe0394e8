"""The HTML page of an inspection: bags with their topics, episodes with labels, suspicion, reasons and small paths.

    write_inspection(found, spec, "inspection.html")

Self-contained like the report of a repair, and in the same style.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from saferule_core.errors import DataError
from saferule_core.inspection import Inspection
from saferule_core.spec import RobotSpec
from saferule_core.store.files import replace_file
from saferule_core.validation.report_page import STYLE

POINTS = 60
WIDTH, HEIGHT = 96.0, 72.0
_MORE_STYLE = """
svg.path { width: 6rem; height: 4.5rem; }
tr.suspect > td:first-child { border-left: 0.25rem solid var(--bad); padding-left: 0.5rem; }
"""

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>Inspection of {{ robot }} logs</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header>
<h1>Inspection of {{ found.bags | length }} bags of {{ robot }}</h1>
<p class="quiet">{{ found.suspects.created }} · saferule {{ found.suspects.version }} ·
seed {{ found.suspects.seed }}</p>
</header>
<div class="card verdict {{ 'bad' if found.suspects.suspects else 'open' }}">
<b>{{ found.suspects.suspects | length }} of {{ episodes }} episodes are suspected</b>
<p>{{ found.note }}.{% if found.left_out %} {{ found.left_out }} more would be, beyond the share of
{{ "%g" % found.suspects.max_share }} that may be named.{% endif %} Suspects are proposed to be looked at; nothing is
forgotten because of this page.</p>
</div>
{% if pathless is not none %}
<p class="quiet">{{ pathless }}</p>
{% endif %}
{% for bag in found.bags %}
<h2>{{ bag.path }}{{ " (trusted)" if bag.trusted }}</h2>
<p class="quiet">{{ bag.episodes | length }} episodes, {{ bag.steps }} steps of {{ bag.commands }} commands</p>
{% for label in bag.labels %}
<p{{ ' class="failed"' | safe if label.differing }}>{{ label }}</p>
{% endfor %}
{% for note in bag.notes %}
<p class="quiet">{{ note }}</p>
{% endfor %}
<details class="card">
<summary>{{ bag.topics | length }} topics</summary>
<div class="scroll"><table>
<thead><tr><th>topic</th><th>type</th><th class="number">messages</th><th class="number">rate [Hz]</th>
<th class="number">longest gap [s]</th></tr></thead>
<tbody>
{% for topic in bag.topics %}
<tr><td>{{ topic.name }}</td><td>{{ topic.type }}</td><td class="number">{{ topic.messages }}</td>
<td class="number">{{ "%.4g" % topic.rate_hz }}</td><td class="number">{{ "%.3g" % topic.longest_gap_s }}</td></tr>
{% endfor %}
</tbody></table></div>
</details>
<div class="card scroll"><table>
<thead><tr><th>episode</th>{% if pathless is none %}<th>path</th>{% endif %}<th class="number">steps</th>
<th class="number">reward</th><th class="number">reward differs [steps]</th>
<th class="number">cost logged</th><th class="number">recomputed</th>
<th class="number">suspicion</th><th class="number">p</th><th>why</th></tr></thead>
<tbody>
{% for episode in bag.episodes %}
<tr{{ ' class="suspect"' | safe if episode.suspect }}>
<td>{{ episode.name }}</td>{% if pathless is none %}<td>{{ paths[episode.index] }}</td>{% endif %}
<td class="number">{{ episode.steps }}</td><td class="number">{{ "%.1f" % episode.reward }}</td>
<td class="number">{{ number(episode.reward_differs, "%d") }}</td>
<td class="number">{{ number(episode.logged_cost, "%g") }}</td>
<td class="number">{{ number(episode.cost, "%g") }}</td>
<td class="number{{ ' failed' if episode.suspect }}">{{ "%.3g" % episode.score }}</td>
<td class="number">{{ number(episode.p_value, "%.3f") }}</td><td>{{ episode.reason }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
<h2>Detectors</h2>
<p>{{ found.suspects.detectors | join(", ") }}</p>
{% for name, why in found.skipped.items() %}
<p class="quiet">{{ name }} was left out: {{ why }}</p>
{% endfor %}
</main>
</body>
</html>
"""


def write_inspection(found: Inspection, spec: RobotSpec, path: str | Path) -> None:
    """Write the page. Raises DataError if that fails."""
    pathless = _pathless(spec)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_PAGE).render(
        found=found,
        robot=spec.name,
        episodes=sum(len(bag.episodes) for bag in found.bags),
        style=Markup(STYLE + _MORE_STYLE),  # noqa: S704 - our own text
        paths=None if pathless is not None else _paths(found, spec),
        pathless=pathless,
        number=lambda value, form: "" if value is None else form % value,
    )
    try:
        replace_file(Path(path), page.encode())
    except OSError as error:
        raise DataError(f"{path}: expected to write the inspection's page, found: {error.strerror}") from error


def _pathless(spec: RobotSpec) -> str | None:
    """Return why there can be no drawings of paths; None where there can."""
    missing = [name for name in ("x", "y") if name not in spec.feature_names]
    if not missing:
        return None
    gone = " and no ".join(missing)
    return f"No pictures of paths: they need observed features named x and y, and there is no {gone}."


def _paths(found: Inspection, spec: RobotSpec) -> list[Markup]:
    """Return a small drawing of each episode's path [m] over the boundaries, of the features x and y."""
    data = found.transitions
    physical = spec.physical(data.next_observations)
    x, y = physical["x"], physical["y"]
    lines = spec.picture.boundaries
    frame = [
        np.concatenate([values, [wall for wall in walls if wall is not None]])
        for values, walls in ((x, [line.x for line in lines]), (y, [line.y for line in lines]))
    ]
    low, high = (np.array([each(values) for values in frame]) for each in (np.min, np.max))
    scale = np.array([WIDTH, HEIGHT]) / np.maximum(high - low, 1e-9)

    def place(points: np.ndarray) -> np.ndarray:
        placed = (points - low) * scale
        placed[:, 1] = HEIGHT - placed[:, 1]
        return placed

    walls = "".join(_wall(line.x, line.y, low, scale) for line in lines)
    suspected = {episode.index for bag in found.bags for episode in bag.episodes if episode.suspect}
    return [
        _drawing(place(np.stack([x[part], y[part]], axis=1)), walls, index in suspected)
        for index, part in enumerate(data.episodes())
    ]


def _drawing(points: np.ndarray, walls: str, suspected: bool) -> Markup:
    stride = 1 + len(points) // POINTS
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points[::stride])
    colour = "before" if suspected else "after"
    return Markup(  # noqa: S704 - numbers only
        f'<svg class="path" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="path">{walls}'
        f'<polyline points="{text}" fill="none" stroke="var(--{colour})" stroke-width="1.5"/></svg>'
    )


def _wall(x: float | None, y: float | None, low: np.ndarray, scale: np.ndarray) -> str:
    """Return a boundary at x or at y [m] as a line across the drawing."""
    if x is not None:
        at = (x - low[0]) * scale[0]
        return f'<path d="M{at:.1f} 0V{HEIGHT:g}" stroke="var(--limit)"/>'
    at = HEIGHT - (y - low[1]) * scale[1]
    return f'<path d="M0 {at:.1f}H{WIDTH:g}" stroke="var(--limit)"/>'
