"""Result lines in the shapes that tables and claims need.

    runs = Runs(results.lines())
    for cell in runs.cells: cell.line("safe_rule"), cell.line("retrain")      # same data, same process
    strata(runs.cells, "safe_rule", reward)                                   # setting -> one value per seed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.unlearning.grid import Plan
from benchmarks.unlearning.knowledge import parse_knowledge

Line = dict[str, Any]
Value = Callable[[Line], float | None]


@dataclass
class CellRuns:
    """All methods of one cell."""

    case: str
    knowledge: str
    task: str
    agent: str
    seed: int
    lines: dict[str, Line] = field(default_factory=dict)

    @property
    def kind(self) -> tuple[str, float]:
        """State of knowledge and its share."""
        return parse_knowledge(self.knowledge)

    def line(self, method: str) -> Line | None:
        """Return the line of a method, None if it was not run."""
        return self.lines.get(method)

    @property
    def name(self) -> str:
        """Name for people."""
        return f"{self.case}/{self.knowledge}/seed_{self.seed}"

    def safe(self, method: str) -> bool:
        """Say whether the method gave a policy as repaired that is safe; one that admits failure did not."""
        line = self.lines.get(method, {})
        return bool(line.get("safe")) and line["succeeded"] is not False


class Runs:
    """The cells of a plan that have results."""

    def __init__(self, lines: Iterable[Line], plan: Plan | None = None) -> None:
        wanted = None if plan is None else {cell.key: set(methods) for cell, methods in plan}
        cells: dict[str, CellRuns] = {}
        for line in lines:
            key, fields = line["key"], line["cell"]
            if wanted is not None and line["method"] not in wanted.get(key, ()):
                continue
            blank = CellRuns(line["case"], fields["knowledge"], fields["task"], fields["agent"], fields["seed"])
            cells.setdefault(key, blank).lines[line["method"]] = line
        order = {key: position for position, key in enumerate(wanted or cells)}
        self.cells = [cells[key] for key in sorted(cells, key=order.__getitem__)]

    def groups(self) -> dict[tuple[str, str], list[CellRuns]]:
        """Return (case, knowledge) -> its cells in order of their seeds."""
        groups: dict[tuple[str, str], list[CellRuns]] = {}
        for cell in sorted(self.cells, key=lambda cell: (cell.case, cell.seed)):
            groups.setdefault((cell.case, cell.knowledge), []).append(cell)
        return groups

    def methods(self) -> list[str]:
        """Return the names of all rows, in the order in which they first came."""
        return list(dict.fromkeys(name for cell in self.cells for name in cell.lines))

    def all_lines(self) -> list[Line]:
        """Return every line."""
        return [line for cell in self.cells for line in cell.lines.values()]


def comparable(cells: Sequence[CellRuns]) -> list[CellRuns]:
    """Return the cells in which every method ran that ran in any; all of them if there are none such."""
    names = {name for cell in cells for name in cell.lines}
    return [cell for cell in cells if names <= cell.lines.keys()] or list(cells)


def strata(cells: Sequence[CellRuns], method: str, value: Value) -> dict[str, list[float]]:
    """Return case and knowledge -> the method's values over its seeds; runs without a value are left out."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        line = cell.line(method)
        number = None if line is None else value(line)
        if number is not None:
            found.setdefault(f"{cell.case}/{cell.knowledge}", []).append(number)
    return found


def reward(line: Line) -> float | None:
    """Return the normalised reward, None where there is no policy."""
    return line.get("reward")


def safe_reward(line: Line) -> float:
    """Return the normalised reward of a safe run that is called repaired, 0 of any other: one score for both."""
    return max(line["reward"], 0.0) if line.get("safe") and line["succeeded"] is not False else 0.0


def cost(line: Line) -> float:
    """Return the mean cost, with the attack's trigger where that is worse; ten limits where there is no policy."""
    return line.get("worst_cost", 10.0 * line["cost_limit"])


def violations(line: Line) -> float:
    """Return the share of episodes that broke the limit, with the attack's trigger where that is worse."""
    return max(facts["violation_rate"] for facts in (line, line.get("triggered")) if facts)


def ratio(line: Line, reference: str, kind: str = "seconds") -> float | None:
    """Return how many times quicker than a retraining in the same process a run was."""
    mine, theirs = line.get(kind), line.get(f"{reference}_{kind}")
    return theirs / mine if mine and theirs else None
