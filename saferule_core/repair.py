"""The whole loop as a library call: bags in, a validated policy in the store and a report out. No ROS, no robot.

    spec, store = load_spec("config/ball_circle.yaml"), PolicyStore("store")
    request = RepairRequest(forget=("logs/day_3",), retain=("logs/day_1", "logs/day_2"))
    outcome = repair(request, spec, store, out="runs/1")
    if outcome.accepted:
        store.activate(outcome.candidate.policy_id, reason="passed validation")

The command line and the ROS server run this; neither has a loop of its own. Costs are recomputed from the sensors when
bags are read, a candidate is never activated here, and one whose own method calls it a failure is neither stored nor
validated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import saferule_core
from saferule_core.agents import Agent
from saferule_core.data.bags import read_bags
from saferule_core.data.ranges import ranges_of
from saferule_core.data.transitions import Transitions
from saferule_core.errors import SpecError
from saferule_core.progress import Progress, silent, within
from saferule_core.repair_report import repair_report, write_repair_report
from saferule_core.sim.rollout import EpisodeRecord, run_episodes
from saferule_core.spec import RobotSpec
from saferule_core.store import Card, Origin, PolicyStore, bundle
from saferule_core.store.origin import asker, bag_origins
from saferule_core.unlearning import UnlearningProblem, UnlearningResult, unlearn
from saferule_core.unlearning.request import RepairRequest, check_request
from saferule_core.validation.gate import GateRules, Verdict, judge, safe_mean_return

_LOSSES_KEPT = 1000


@dataclass(frozen=True)
class Candidate:
    """What unlearning made.

    policy_id: in the store; None if the method says that it failed. incumbent_id: the policy it was made from.
    losses: one entry per progress report. safe_return: mean return of the retained data's safe episodes.
    data: facts about the data for people (digests, counts).
    """

    policy_id: str | None
    incumbent_id: str
    result: UnlearningResult
    losses: tuple[dict[str, Any], ...]
    safe_return: float | None
    data: dict[str, str]


@dataclass(frozen=True)
class Validation:
    """How incumbent and candidate drove, from the same starts, and what the gate says."""

    verdict: Verdict
    incumbent: tuple[EpisodeRecord, ...]
    candidate: tuple[EpisodeRecord, ...]
    seeds: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class RepairOutcome:
    """A finished repair; `validation` is None if the method itself failed. report: path of the page, if asked for."""

    accepted: bool
    message: str
    candidate: Candidate
    validation: Validation | None
    cost_limit: float
    report: Path | None = None


def repair(
    request: RepairRequest,
    spec: RobotSpec,
    store: PolicyStore,
    *,
    out: str | Path | None = None,
    workers: int = 1,
    nice: int = 0,
    progress: Progress = silent,
) -> RepairOutcome:
    """Unlearn, store, validate and report.

    Args:
        out: directory for report.json and report.html; None for no report.
        workers: simulated robots that validate at the same time. nice: how much to lower their priority, 0 to 19.
        progress: gets the phases "loading", "unlearning", "validating", "storing"; may raise `Cancelled`.

    Raises:
        SaferuleError: the request makes no sense (see `check_request`), or a step failed; the message says why.
        Cancelled: `progress` asked for a stop.
    """
    check_request(request, spec, store)
    candidate = make_candidate(request, spec, store, progress=within(progress, 0.0, 0.5))
    validation = None
    if candidate.policy_id is not None:
        validation = validate(
            spec, store, candidate.policy_id, candidate.incumbent_id, request.rules(spec), request.seed,
            safe_return=candidate.safe_return, workers=workers, nice=nice, progress=within(progress, 0.5, 0.97),
            asked_by=request.asked_by,
        )  # fmt: skip
        accepted, message = validation.verdict.accepted, validation.verdict.message
    else:
        accepted, message = False, f"Refused: {request.method} did not find a safe policy: {candidate.result.message}"
    page = None
    if out is not None:
        progress("storing", 0.98, "writing the report")
        data = repair_report(request, spec, candidate, validation)
        page = write_repair_report(data, out, store, candidate.policy_id)
    progress("storing", 1.0, "done")
    return RepairOutcome(accepted, message, candidate, validation, request.rules(spec).cost_limit, page)


def make_candidate(
    request: RepairRequest, spec: RobotSpec, store: PolicyStore, *, progress: Progress = silent
) -> Candidate:
    """Read the bags, unlearn, and put the candidate into the store. Raises as `repair`."""
    incumbent_id = check_request(request, spec, store, validate=False)
    limit = request.rules(spec).cost_limit
    agent = bundle.load_agent(store.path(incumbent_id), spec)
    retained = read_bags(request.retain, spec, progress=within(progress, 0.0, 0.15), options=request.reading)
    forgotten = read_bags(request.forget, spec, progress=within(progress, 0.15, 0.2), options=request.reading)
    retain, forget = retained.transitions, forgotten.transitions
    origin = Origin(asker(request.asked_by), bag_origins(retained), bag_origins(forgotten))
    losses: list[dict[str, Any]] = []
    problem = UnlearningProblem(agent, retain, forget, limit, request.seed, relabelling(spec, retain))
    watched = _recorded(losses, _as_phase("unlearning", within(progress, 0.2, 1.0)))
    result = unlearn(request.method, problem, watched, **request.options)
    safe_return = safe_mean_return(retain.episode_returns, retain.episode_costs, limit)
    measures = {
        f"{name}_action_distance": {"before": distance(agent, data), "after": distance(result.agent, data)}
        for name, data in (("forget", forget), ("retain", retain))
    }
    policy_id = None
    if result.succeeded:
        card = Card(
            seed=request.seed,
            data={"retain": retain.digest(), "forget": forget.digest()},
            parent=incumbent_id,
            method=request.method,
            details={
                "cost_limit": limit,
                "safe_return": safe_return,
                "message": result.message,
                "steps": result.steps,
                "critics": result.critics,
                "options": dict(request.options),
                "measures": measures,
                "bags": {"retain": retained.card(), "forget": forgotten.card()},
            },
            origin=origin,
            ranges=ranges_of(retain),
        )
        policy_id = store.add(result.agent, spec, card)
    else:
        store.record(
            "unlearning failed",
            parents=[incumbent_id],
            asked_by=origin.asked_by,
            method=request.method,
            seed=request.seed,
            configuration=dict(request.options),
            message=result.message,
            **{name: msgspec.to_builtins(getattr(origin, name)) for name in ("used", "forgotten")},
        )
    facts = {**_facts("retain", request.retain, retain), **_facts("forget", request.forget, forget)}
    return Candidate(policy_id, incumbent_id, result, _thinned(losses), safe_return, facts)


def validate(
    spec: RobotSpec,
    store: PolicyStore,
    candidate: str,
    incumbent: str,
    rules: GateRules,
    seed: int,
    *,
    safe_return: float | None = None,
    workers: int = 1,
    nice: int = 0,
    progress: Progress = silent,
    asked_by: str = "",
) -> Validation:
    """Drive two policies of the store from the same starts on simulated robots, judge, and write it into the history.

    Args:
        safe_return: yardstick of reward where the incumbent is unsafe; None takes the one on the candidate's card.

    Raises:
        StoreError: a policy is missing, damaged or for another robot.
        SimulationError: no simulated robot, or a worker failed.
        Cancelled: `progress` asked for a stop.
    """
    began, seeds, records = time.perf_counter(), validation_seeds(seed, rules.episodes), []
    if safe_return is None:
        safe_return = store.card(candidate).details.get("safe_return")
    for name in (candidate, incumbent):
        bundle.verify(store.path(name), spec)
    for name, start, who in ((incumbent, 0.0, "incumbent"), (candidate, 0.5, "candidate")):
        share = _naming(who, within(progress, start, start + 0.5))
        records.append(run_episodes(spec, store.path(name), seeds, workers=workers, nice=nice, progress=share))
    verdict = judge(records[0], records[1], rules, safe_return)
    store.record(
        "judged",
        store.resolve(candidate),
        accepted=verdict.accepted,
        message=verdict.message,
        incumbent_id=store.resolve(incumbent),
        seed=seed,
        rules=msgspec.to_builtins(rules),
        asked_by=asker(asked_by),
        code_version=saferule_core.__version__,
        **{name: msgspec.to_builtins(getattr(verdict, name)) for name in ("incumbent", "candidate")},
    )
    return Validation(verdict, tuple(records[0]), tuple(records[1]), seeds, time.perf_counter() - began)


def distance(agent: Agent, data: Transitions) -> float:
    """Return the mean of |pi(s) - a|^2 over the steps of `data`: how far the policy is from doing what was logged."""
    return float(np.mean(agent.action_distance(data)))


def validation_seeds(seed: int, episodes: int) -> tuple[int, ...]:
    """Return the reset seeds of a validation; other than those of the episodes that are collected with `seed`."""
    drawn = np.random.SeedSequence([seed, 0x5AFE]).generate_state(2 * episodes + 16)
    return tuple(int(value) for value in dict.fromkeys(drawn.tolist()))[:episodes]


def relabelling(spec: RobotSpec, data: Transitions) -> Callable[[Transitions], Transitions] | None:
    """Return `spec.relabel` where costs can be computed from observations alone, else None.

    Bags are read with recomputed costs either way; this is for states that an audit imagines.
    """
    try:
        spec.relabel(data.select_episodes([0]))
    except SpecError:
        return None
    return spec.relabel


def _facts(name: str, bags: Sequence[str], data: Transitions) -> dict[str, str]:
    costs = data.episode_costs
    return {
        f"{name} set": data.digest(),
        f"{name} bags": ", ".join(Path(path).name for path in bags),
        f"{name} episodes": f"{data.episode_count} ({len(data)} steps), mean recomputed cost {costs.mean():.1f}",
    }


def _as_phase(phase: str, progress: Progress) -> Progress:
    """Report under one phase; the inner one goes into the message."""

    def renamed(inner: str, fraction: float, message: str = "", **losses: float) -> None:
        progress(phase, fraction, message if inner == phase else f"{inner}: {message}".rstrip(": "), **losses)

    return renamed


def _naming(who: str, progress: Progress) -> Progress:
    def named(phase: str, fraction: float, message: str = "", **losses: float) -> None:
        progress(phase, fraction, f"{who}: {message}", **losses)

    return named


def _recorded(losses: list[dict[str, Any]], progress: Progress) -> Progress:
    """Keep every loss that is reported in `losses`."""

    def recording(phase: str, fraction: float, message: str = "", **values: float) -> None:
        if values:
            losses.append({"phase": phase, "fraction": fraction, **values})
        progress(phase, fraction, message, **values)

    return recording


def _thinned(losses: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    stride = 1 + len(losses) // _LOSSES_KEPT
    return tuple(dict(entry) for entry in losses[::stride])
