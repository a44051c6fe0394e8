"""From a request to a candidate in the store: read, unlearn, and say on the policy's card where it comes from.

    candidate = make_candidate(request, spec, store)
    candidate.policy_id, candidate.result.message
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec
import numpy as np

from saferule_core.agents import Agent
from saferule_core.checkpoints import NOWHERE, Checkpoints
from saferule_core.data.ranges import ranges_of
from saferule_core.data.transitions import Transitions
from saferule_core.errors import SpecError, StoreError
from saferule_core.progress import Progress, silent, within
from saferule_core.repair_data import Description, read_data
from saferule_core.spec import RobotSpec
from saferule_core.store import Card, Origin, PolicyStore, bundle
from saferule_core.store.origin import asker
from saferule_core.unlearning import UnlearningProblem, UnlearningResult, unlearn
from saferule_core.unlearning.request import RepairRequest, check_request
from saferule_core.validation.gate import safe_mean_return

_LOSSES_KEPT = 1000


@dataclass(frozen=True)
class Candidate:
    """What unlearning made.

    policy_id: in the store; None if the method says that it failed. incumbent_id: the policy it was made from.
    losses: one entry per progress report. safe_return: mean return of the retained data's safe episodes.
    about: where both sets came from, with facts for people, and what detectors suspected.
    """

    policy_id: str | None
    incumbent_id: str
    result: UnlearningResult
    losses: tuple[dict[str, Any], ...]
    safe_return: float | None
    about: Description


def make_candidate(
    request: RepairRequest,
    spec: RobotSpec,
    store: PolicyStore,
    *,
    progress: Progress = silent,
    keep: Checkpoints = NOWHERE,
) -> Candidate:
    """Read the bags, unlearn, and put the candidate into the store. Raises as `repair`."""
    data = keep.data()
    if data is None:
        incumbent_id = check_request(request, spec, store, validate=False)
    else:
        incumbent_id = store.resolve(request.policy)
    limit = request.rules(spec).cost_limit
    agent = bundle.load_agent(store.path(incumbent_id), spec)
    if data is None:
        data = read_data(request, spec, agent, within(progress, 0.0, 0.2))
        keep.keep_data(data)
    retain, forget, about = data.retain, data.forget, data.about
    origin = Origin(asker(request.asked_by), about.used, about.forgotten)
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
                "bags": about.bags,
                **({"episodes": about.episodes} if about.episodes else {}),
            },
            origin=origin,
            ranges=ranges_of(retain),
            created=keep.created,  # unlearned again after a crash, the same policy gets the same id
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
    candidate = Candidate(policy_id, incumbent_id, result, _thinned(losses), safe_return, about)
    keep.keep_candidate(_facts(candidate))
    return candidate


def _facts(candidate: Candidate) -> dict[str, Any]:
    """Return what a checkpoint has of a candidate: all but its weights, which are in the store."""
    facts = {field.name: getattr(candidate, field.name) for field in fields(candidate)}
    result = {field.name: getattr(candidate.result, field.name) for field in fields(UnlearningResult)}
    del result["agent"]
    return {**facts, "result": result}


def kept_candidate(keep: Checkpoints, store: PolicyStore) -> Candidate | None:
    """Return the candidate of a checkpoint, if it is still in the store."""
    facts = keep.candidate()
    if facts is None:
        return None
    try:
        agent = bundle.load_agent(store.path(facts["policy_id"] or facts["incumbent_id"]))
        return Candidate(
            facts["policy_id"], facts["incumbent_id"], UnlearningResult(agent, **facts["result"]),
            tuple(facts["losses"]), facts["safe_return"], msgspec.convert(facts["about"], Description),
        )  # fmt: skip
    except (StoreError, KeyError, TypeError, msgspec.ValidationError):
        return None


def distance(agent: Agent, data: Transitions) -> float:
    """Return the mean of |pi(s) - a|^2 over the steps of `data`: how far the policy is from doing what was logged."""
    return float(np.mean(agent.action_distance(data)))


def relabelling(spec: RobotSpec, data: Transitions) -> Callable[[Transitions], Transitions] | None:
    """Return `spec.relabel` where costs can be computed from observations alone, else None.

    Bags are read with recomputed costs either way; this is for states that an audit imagines.
    """
    try:
        spec.relabel(data.select_episodes([0]))
    except SpecError:
        return None
    return spec.relabel


def _as_phase(phase: str, progress: Progress) -> Progress:
    """Report under one phase; the inner one goes into the message."""

    def renamed(inner: str, fraction: float, message: str = "", **losses: float) -> None:
        progress(phase, fraction, message if inner == phase else f"{inner}: {message}".rstrip(": "), **losses)

    return renamed


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
