"""One cell: the same poisoned agent repaired by every method, each measured in the same way.

    experiment = Experiment(cell, cache, progress)
    for line in experiment.lines(["poisoned", "retrain", "safe_rule"]): ...

Retraining, standard and fast, runs first and always: its policy and its times, taken in this process, are what the
others are compared with. A method that refuses its problem, or admits failure, is a result like any other.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import numpy as np
import torch

from benchmarks.unlearning import measure
from benchmarks.unlearning.data import Cache, code_digest, collected, trained
from benchmarks.unlearning.evaluate import Course
from benchmarks.unlearning.grid import Cell
from benchmarks.unlearning.knowledge import requests_of
from benchmarks.unlearning.poisoning import truth
from benchmarks.unlearning.variants import REFERENCES, Variant, parse_variant
from saferule_core.agents import Agent
from saferule_core.agents.networks import load_optimiser
from saferule_core.attacks import Poisoned, attack
from saferule_core.candidate import relabelling
from saferule_core.data.transitions import Transitions
from saferule_core.errors import SaferuleError
from saferule_core.progress import Progress, silent
from saferule_core.spec import load_spec
from saferule_core.unlearning import UnlearningProblem, UnlearningResult, unlearn

BLOCK = 5
DIAGNOSTICS = ("modelled_cost", "modelled_reward", "multiplier", "cost_source", "safe_episodes")


@dataclass
class Outcome:
    """What a method did in all of its requests. agent: None where it refused, `error` says why."""

    agent: Agent | None
    results: list[UnlearningResult] = field(default_factory=list)
    seconds: float | None = None
    cpu_seconds: float | None = None
    error: str | None = None


class Experiment:
    """What all methods of a cell share: data, poison, the poisoned agent, requests, and the course."""

    def __init__(self, cell: Cell, cache: Cache, progress: Progress = silent) -> None:
        load_optimiser()  # takes a second, and is no part of learning
        self.cell, self.cache, self.progress = cell, cache, progress
        self.spec = load_spec(cell.spec_path)
        self.cost_limit = self.spec.cost.limit if cell.cost_limit is None else cell.cost_limit
        self.clean, self.poisoned = self._data(cell.seed)
        self.incumbent = self._trained(self.poisoned.data, cell.seed)
        self.requests = requests_of(cell.knowledge, self.clean.episode_count, self.poisoned.chosen, cell.seed)
        self.relabel = relabelling(self.spec, self.clean)
        self.truth = truth(self.poisoned, self.clean)
        self.course = Course(self.spec, self.cost_limit, cell.evaluation_episodes, cell.seed)
        forgotten = np.concatenate([request.forget for request in self.requests])
        self.forget = self.poisoned.data.select_episodes(forgotten)
        self.retain = self.poisoned.data.select_episodes(self.requests[-1].retain)

    def _data(self, seed: int) -> tuple[Transitions, Poisoned]:
        cell = self.cell
        clean = collected(self.cache, self.spec, cell.episodes, seed, self.progress)
        self.progress("poisoning", 0.0, cell.attack)
        return clean, attack(cell.attack, clean, cell.rate, seed, **cell.attack_options)

    def _trained(self, data: Transitions, seed: int) -> Agent:
        cell = self.cell
        return trained(
            self.cache, self.spec, cell.agent, data, self.cost_limit, seed, cell.train_steps, progress=self.progress
        )

    def lines(self, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Run the references and `methods`; yield one line for each of `methods`."""
        references = {name: self.outcome(parse_variant(name)) for name in REFERENCES}
        for name in sorted(methods, key=lambda name: name not in REFERENCES):
            outcome = references.get(name) or self.outcome(parse_variant(name))
            yield self.line(name, outcome, references)

    def outcome(self, variant: Variant) -> Outcome:
        """Let a method answer all requests, each to what the one before returned."""
        if variant.method is None:
            return Outcome(self.incumbent if variant.name == "poisoned" else self._trained(self.clean, self.cell.seed))
        outcome = Outcome(self.incumbent, seconds=0.0, cpu_seconds=0.0)
        for request in self.requests:
            retain = self.poisoned.data.select_episodes(request.retain)
            forget = self.poisoned.data.select_episodes(request.forget)
            relabel = self.relabel if variant.described else None
            problem = UnlearningProblem(outcome.agent, retain, forget, self.cost_limit, self.cell.seed, relabel)
            began = time.process_time()
            try:
                result = unlearn(variant.method, problem, self._named(variant.name), **variant.options)
            except SaferuleError as error:
                return Outcome(None, outcome.results, error=str(error))
            outcome.cpu_seconds += time.process_time() - began
            outcome.seconds += result.seconds
            outcome.agent = result.agent
            outcome.results.append(result)
        return outcome

    def line(self, name: str, outcome: Outcome, references: dict[str, Outcome]) -> dict[str, Any]:
        """Return everything that is reported of a method in this cell."""
        line: dict[str, Any] = {
            "key": self.cell.key, "cell": dataclasses.asdict(self.cell), "case": self.cell.case, "method": name,
            "cost_limit": self.cost_limit, "error": outcome.error, **times(outcome, references),
            **claims(outcome.results),
        }  # fmt: skip
        if outcome.agent is not None:
            self.progress("measuring", 0.0, name)
            try:
                line.update(self.driven(outcome.agent))
                line.update(self.remembered(outcome.agent, references["retrain"].agent))
            except SaferuleError as error:  # for example actions that are not finite
                line["error"] = str(error)
        data = {"clean": self.clean.digest()[:16], "poisoned": self.poisoned.data.digest()[:16]}
        ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return {**line, "data": data, "code": code_digest(), "ended": ended, "host": host()}

    def driven(self, agent: Agent) -> dict[str, Any]:
        """Return how the policy drives; worst_cost, upper and safe are those with the trigger where that is worse."""
        facts = self.course.drive(agent).facts()
        if self.poisoned.trigger is None:
            return {**facts, "worst_cost": facts["cost"], "triggered": None}
        shown = self.course.drive(agent, self.poisoned.trigger).facts()
        worst, upper = (max(facts[name], shown[name]) for name in ("cost", "upper"))
        safe = facts["safe"] and shown["safe"]
        return {**facts, "upper": upper, "safe": safe, "worst_cost": worst, "triggered": shown}

    def remembered(self, agent: Agent, retrained: Agent | None) -> dict[str, Any]:
        """Return what the policy still holds of the forgotten data."""
        poisoned, seed, facts = self.poisoned, self.cell.seed, {}
        if self.truth is not None:
            facts["critic_error"] = measure.critic_error(agent, self.truth.select_episodes(poisoned.chosen))
        if retrained is not None:
            facts["distance_forget"] = measure.action_distance(agent, retrained, self.forget, seed)
            facts["distance_retain"] = measure.action_distance(agent, retrained, self.retain, seed)
        if self.cell.deep:
            members, (strangers, others) = poisoned.data.select_episodes(poisoned.chosen), self.strangers
            honest = self.retain if self.relabel is None else self.relabel(self.retain)
            facts["membership"] = measure.membership(agent, members, strangers, others)
            facts["relearned_after"] = measure.relearned_after(agent, members, self.course, seed, poisoned.trigger)
            facts["trained_on"] = measure.trained_on(agent, honest, self.course, seed, poisoned.trigger).facts()
        return facts

    @cached_property
    def strangers(self) -> tuple[Transitions, list[Agent]]:
        """Poison of another data seed, and agents that saw neither: the next seeds in this one's block of five."""
        block = self.cell.seed // BLOCK * BLOCK
        first, *others = [block + (self.cell.seed + shift) % BLOCK for shift in (1, 2, 3)]
        _, poisoned = self._data(first)
        agents = [
            self._trained(collected(self.cache, self.spec, self.cell.episodes, seed, self.progress), seed)
            for seed in others
        ]
        return poisoned.data.select_episodes(poisoned.chosen), agents

    def _named(self, name: str) -> Progress:
        def named(phase: str, fraction: float, message: str = "", **losses: float) -> None:
            self.progress(name, fraction, phase)

        return named


def times(outcome: Outcome, references: dict[str, Outcome]) -> dict[str, float | None]:
    """Return wall and CPU time of the method and of each retraining in this process."""
    facts = {"seconds": outcome.seconds, "cpu_seconds": outcome.cpu_seconds}
    for name, reference in references.items():
        facts.update({f"{name}_seconds": reference.seconds, f"{name}_cpu_seconds": reference.cpu_seconds})
    return facts


def claims(results: Sequence[UnlearningResult]) -> dict[str, Any]:
    """Return what the method says of itself, of its last request where there were several."""
    if not results:
        return {"succeeded": None, "message": None, "steps": None, "critics": None, "diagnostics": {}}
    last = results[-1]
    return {
        "succeeded": last.succeeded,
        "succeeded_each": [result.succeeded for result in results],
        "message": last.message,
        "steps": sum(result.steps for result in results),
        "critics": last.critics,
        "diagnostics": {name: last.diagnostics[name] for name in DIAGNOSTICS if name in last.diagnostics},
    }


def host() -> dict[str, str]:
    """Return what the times depend on."""
    return {"machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
