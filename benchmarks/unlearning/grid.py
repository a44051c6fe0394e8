"""What is run: a cell is one poisoned agent in one state of knowledge; a preset is a set of groups of cells.

    for cell, methods in preset.plan(): ...
    cell.name                            # "car_run/return_conditioned/trajectory_15%/recall_0.5/seed_30"
    cell.key                             # hash of everything that a result depends on, besides the code

Names are open: a task is a file in config/, agents, attacks and methods are what saferule_core knows by that name when
the cell is run; `check` says which names it does not know.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.unlearning.knowledge import parse_knowledge
from benchmarks.unlearning.variants import parse_variant
from saferule_core import agents, attacks
from saferule_core.errors import DataError

CONFIG = Path(__file__).parents[2] / "config"


@dataclass(frozen=True)
class Cell:
    """One poisoned agent in one state of knowledge, from one set of data.

    task: name of a robot description in config/. cost_limit: per episode, None for the description's own.
    attack, rate, attack_options: see `saferule_core.attacks`. knowledge: see `knowledge.py`, for example "recall_0.5".
    seed: of data, attack, training and unlearning. episodes: to collect. train_steps: None for the agent's own number.
    evaluation_episodes: that judge each policy. deep: measure membership, relearning and further training as well.
    """

    task: str
    agent: str
    attack: str
    rate: float
    knowledge: str
    seed: int
    cost_limit: float | None = None
    episodes: int = 500
    train_steps: int | None = None
    evaluation_episodes: int = 20
    deep: bool = False
    attack_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def case(self) -> str:
        """Name of what all seeds and states of knowledge have in common."""
        limit = "" if self.cost_limit is None else f"_limit_{self.cost_limit:g}"
        return f"{self.task}{limit}/{self.agent}/{self.attack}_{100 * self.rate:g}%"

    @property
    def name(self) -> str:
        """Name for people."""
        return f"{self.case}/{self.knowledge}/seed_{self.seed}"

    @property
    def key(self) -> str:
        """Hash of all fields, by which a finished cell is known."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def spec_path(self) -> Path:
        """The robot description."""
        return CONFIG / f"{self.task}.yaml"


Plan = list[tuple[Cell, tuple[str, ...]]]


def cell_from(values: Mapping[str, Any]) -> Cell:
    """Return the cell that `dataclasses.asdict` gave `values` for.

    Raises:
        DataError: a field is missing or has another type.
    """
    try:
        return msgspec.convert(values, Cell)
    except msgspec.ValidationError as error:
        raise DataError(f"benchmark: expected the fields of a cell, found: {error}") from error


@dataclass(frozen=True)
class Task:
    """A robot description with the data to collect for it; see `Cell`."""

    name: str
    episodes: int = 500
    cost_limits: tuple[float | None, ...] = (None,)


@dataclass(frozen=True)
class Attack:
    """An attack with its options and poison rates."""

    name: str = "trajectory"
    rates: tuple[float, ...] = (0.15,)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """All combinations of its parts. methods: rows of the result (see `variants.py`)."""

    tasks: tuple[Task, ...]
    agents: tuple[str, ...]
    methods: tuple[str, ...]
    attacks: tuple[Attack, ...] = (Attack(),)
    knowledge: tuple[str, ...] = ("exact",)
    deep: bool = False


@dataclass(frozen=True)
class Preset:
    """Groups of cells, data seeds, and what is spent on each cell. results: folder of the lines; page: the report."""

    name: str
    purpose: str
    groups: tuple[Group, ...]
    seeds: tuple[int, ...]
    results: Path
    page: Path
    train_steps: int | None = None
    evaluation_episodes: int = 20

    def plan(self) -> Plan:
        """Return every cell with its methods, in an order in which neighbours share little: seeds vary first.

        What several groups ask for is one cell, as deep as the first of them asks.
        """
        plan: dict[str, tuple[Cell, tuple[str, ...]]] = {}
        for group in self.groups:
            attacks = [(attack, rate) for attack in group.attacks for rate in attack.rates]
            tasks = [(task, limit) for task in group.tasks for limit in task.cost_limits]
            combinations = itertools.product(group.knowledge, attacks, group.agents, tasks, self.seeds)
            for knowledge, (attack, rate), agent, (task, limit), seed in combinations:
                cell = Cell(
                    task.name, agent, attack.name, rate, knowledge, seed, limit, task.episodes,
                    self.train_steps, self.evaluation_episodes, group.deep, attack.options,
                )  # fmt: skip
                same = dataclasses.replace(cell, deep=False).key
                first, others = plan.get(same, (cell, ()))
                plan[same] = first, tuple(dict.fromkeys((*others, *group.methods)))
        return list(plan.values())


def narrowed(plan: Plan, wanted: Mapping[str, Sequence[Any] | None]) -> Plan:
    """Return the part of `plan` whose fields are among `wanted` (field or "methods" -> values, None for all)."""
    cells = [
        (cell, tuple(name for name in methods if wanted.get("methods") is None or name in wanted["methods"]))
        for cell, methods in plan
        if all(values is None or getattr(cell, name) in values for name, values in wanted.items() if name != "methods")
    ]
    return [(cell, methods) for cell, methods in cells if methods]


def check(plan: Plan) -> None:
    """Raise DataError, or the error of the part in question, if a name in the plan is not known here."""
    for task in sorted({cell.task for cell, _ in plan}):
        if not (CONFIG / f"{task}.yaml").is_file():
            known = ", ".join(sorted(path.stem for path in CONFIG.glob("*.yaml")))
            raise DataError(f"task: expected a robot description in {CONFIG} ({known}), found {task!r}")
    for algorithm in sorted({cell.agent for cell, _ in plan}):
        agents.agent_class(algorithm)
    for attack in sorted({cell.attack for cell, _ in plan}):
        attacks.check_attack(attack)
    for knowledge in sorted({cell.knowledge for cell, _ in plan}):
        parse_knowledge(knowledge)
    for name in sorted({name for _, methods in plan for name in methods}):
        parse_variant(name)
