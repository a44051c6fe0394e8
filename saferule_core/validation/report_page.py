"""The page of a report: its style sheet and its Jinja2 template. `report` fills it in.

Kept as Python text rather than as data files, so that every way of installing the package carries it.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f6f7f9; --card: #ffffff; --ink: #1c2430; --muted: #5b6675; --grid: #e1e5ea;
  --before: #c2410c; --after: #0f766e; --limit: #b91c1c; --good: #15803d; --bad: #b91c1c; --open: #5b6675;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161c; --card: #1a2029; --ink: #e6eaf0; --muted: #9aa5b4; --grid: #2d3541;
    --before: #fb923c; --after: #2dd4bf; --limit: #f87171; --good: #4ade80; --bad: #f87171; --open: #9aa5b4;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 1.25rem 1rem 3rem; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 0.25rem 0 0.1rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 0.6rem; }
p { margin: 0.4rem 0; }
.quiet { color: var(--muted); font-size: 0.9rem; }
.card { background: var(--card); border: 1px solid var(--grid); border-radius: 0.6rem; padding: 0.9rem 1rem; }
.verdict { border-left: 0.4rem solid var(--open); margin-top: 1rem; }
.verdict.good { border-left-color: var(--good); }
.verdict.bad { border-left-color: var(--bad); }
.verdict b { font-size: 1.15rem; }
.verdict.good b, .passed { color: var(--good); }
.verdict.bad b, .failed { color: var(--bad); }
.tiles, .figures { display: grid; gap: 0.75rem; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); margin-top: 0.75rem; }
.tile .value { font-size: 1.2rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.figures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
figure { margin: 0; }
figure.wide { margin-bottom: 0.75rem; }
figure.wide > div { overflow-x: auto; }
figure.wide svg { min-width: 38rem; }
figcaption { font-weight: 600; font-size: 0.95rem; margin-bottom: 0.25rem; }
svg { width: 100%; height: auto; display: block; }
svg text { font-family: inherit !important; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.75rem 0.35rem 0; }
tr > * { border-bottom: 1px solid var(--grid); }
tr:last-child > * { border-bottom: 0; }
thead th { color: var(--muted); font-weight: 600; font-size: 0.88rem; }
tbody th { font-weight: 400; }
td.result { white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
.before { color: var(--before); }
.after { color: var(--after); }
details { margin-top: 0.6rem; }
summary { cursor: pointer; font-weight: 600; }
.facts td {
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 0.85rem; overflow-wrap: anywhere;
}
.facts th { white-space: nowrap; width: 1%; font-size: 0.9rem; }
@media (max-width: 34rem) {
  .checks thead { display: none; }
  .checks tr, .checks td { display: block; padding-right: 0; border: 0; }
  .checks tr { border-bottom: 1px solid var(--grid); padding: 0.5rem 0; }
  .checks td { padding: 0.1rem 0; }
  .checks td[data-label]::before { content: attr(data-label) ": "; color: var(--muted); }
}
@media print { body { background: none; } .card { break-inside: avoid; } details > * { display: block; } }
"""

PAGE = """\
{% macro picture(name, caption, wide=False) %}
{% if name in figures %}
<figure class="card{{ ' wide' if wide }}">
<figcaption>{{ caption }}</figcaption>
<div role="img" aria-label="{{ caption }}">{{ figures[name] }}</div>
</figure>
{% endif %}
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ headline.word }}: {{ data.title }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header>
<h1>{{ data.title }}</h1>
<p class="quiet">robot {{ data.robot }} · cost limit {{ "%g" % data.cost_limit }} per episode · {{ created }}</p>
</header>

<div class="card verdict {{ headline.kind }}">
<b>{{ headline.word }}</b>
<p>{{ headline.text }}</p>
</div>
{% if tiles %}
<div class="tiles">
{% for tile in tiles %}
<div class="card tile">
<div class="quiet">{{ tile.name }}</div>
<div class="value">{{ tile.value }}</div>
<div class="quiet">{{ tile.note }}</div>
</div>
{% endfor %}
</div>
{% endif %}

{% if "live-cost" in figures %}
<h2>On the running robot</h2>
{{ picture("live-cost", "Cost in the running episode; dots end episodes, the dashed line is the swap", wide=True) }}
{{ picture("live-reward", "Reward in the running episode", wide=True) }}
{% endif %}

{% if comparison %}
<h2>Before and after, in validation</h2>
<div class="card scroll">
<table>
<thead><tr><th></th><th class="number before">before</th><th class="number after">after</th></tr></thead>
<tbody>
{% for name, before, after in comparison %}
<tr><th>{{ name }}</th><td class="number">{{ before }}</td><td class="number">{{ after }}</td></tr>
{% endfor %}
</tbody>
</table>
{% if paired %}
<p class="quiet">{{ paired }}</p>
{% endif %}
</div>
{% endif %}

{% if "paths-before" in figures or "paths-after" in figures %}
<h2>Paths driven in validation</h2>
<div class="figures">
{{ picture("paths-before", "Before: paths and the safety boundary") }}
{{ picture("paths-after", "After: same starts, repaired policy") }}
</div>
{% endif %}

{% if "pairs-cost" in figures %}
<h2>Episode by episode</h2>
<p class="quiet">Each dot is one episode; lines join episodes with the same start, bars are means.</p>
<div class="figures">
{{ picture("pairs-cost", "Cost per episode") }}
{{ picture("pairs-reward", "Reward per episode") }}
</div>
{% endif %}

{% if data.verdict %}
<h2>The checks</h2>
<div class="card scroll">
<table class="checks">
<thead><tr><th>check</th><th>result</th><th>expected</th><th>found</th></tr></thead>
<tbody>
{% for check in data.verdict.checks %}
<tr>
<td><strong>{{ check.name }}</strong></td>
{% set kind, word = ("passed", "✓ passed") if check.passed else ("failed", "✗ not passed") %}
<td class="result {{ kind }}">{{ word }}</td>
<td data-label="expected">{{ check.expected }}</td>
<td data-label="found">{{ check.found }}</td>
</tr>
{% endfor %}
</tbody>
</table>
{% for note in data.verdict.notes %}
<p class="quiet">{{ note }}</p>
{% endfor %}
</div>
{% endif %}

{% if data.unlearning %}
<h2>Unlearning</h2>
{% set work = data.unlearning %}
<p>{{ work.method }}: {{ work.message or ("succeeded" if work.succeeded else "failed") }}.
{{ work.steps }} gradient steps in {{ "%.1f" % work.seconds }} s; critics: {{ work.critics }}.</p>
<div class="figures">
{{ picture("losses", "Losses") }}
{{ picture("multiplier", "Lagrange multiplier") }}
{{ picture("audit", "Audit after each stage") }}
</div>
{% if data.unlearning.diagnostics %}
<details class="card">
<summary>Diagnostics</summary>
<div class="scroll">
<table class="facts">
{% for name, value in data.unlearning.diagnostics.items() %}
<tr><th>{{ name | replace("_", " ") }}</th><td>{{ value }}</td></tr>
{% endfor %}
</table>
</div>
</details>
{% endif %}
{% endif %}

{% if data.facts %}
<h2>Where this comes from</h2>
{% for group, facts in data.facts.items() %}
<details class="card"{{ " open" if loop.first }}>
<summary>{{ group }}</summary>
<div class="scroll">
<table class="facts">
{% for name, value in facts.items() %}
<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</table>
</div>
</details>
{% endfor %}
{% endif %}
</main>
</body>
</html>
"""
