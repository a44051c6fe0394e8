"""The whole loop as a library call: bags in, a validated policy in the store and a report out. No ROS, no robot.

    spec, store = load_spec("config/ball_circle.yaml"), PolicyStore("store")
    request = RepairRequest(forget=("logs/day_3",), retain=("logs/day_1", "logs/day_2"))
    outcome = repair(request, spec, store, out="runs/1")
    if outcome.accepted:
        store.activate(outcome.candidate.policy_id, reason="passed validation")

With `keep=Checkpoints("repairs/1")` every phase leaves its result on disk, and `resume` goes on from there after the
process has died. The command line and the ROS server run this; neither has a loop of its own. Costs are recomputed from
the sensors when bags are read, a candidate is never activated here, and one whose own method calls it a failure is
neither stored nor validated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

import saferule_core
from saferule_core.candidate import Candidate, kept_candidate, make_candidate
from saferule_core.checkpoints import NOWHERE, Checkpoints
from saferule_core.data.reading import ReadOptions
from saferule_core.progress import Progress, silent, within
from saferule_core.repair_report import repair_report, write_repair_report
from saferule_core.sim.rollout import EpisodeRecord, run_drives
from saferule_core.spec import RobotSpec
from saferule_core.store import PolicyStore, bundle
from saferule_core.store.origin import asker
from saferule_core.unlearning.request import RepairRequest, check_request
from saferule_core.validation.gate import GateRules, Verdict, judge


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
    keep: Checkpoints = NOWHERE,
) -> RepairOutcome:
    """Unlearn, store, validate and report.

    Args:
        out: directory for report.json and report.html; None for no report.
        workers: simulated robots that validate at the same time. nice: how much to lower their priority, 0 to 19.
        progress: gets the phases "loading", "detecting" (if asked for), "unlearning", "validating", "storing"; may
            raise `Cancelled`.
        keep: where the results of the phases are kept.

    Raises:
        SaferuleError: the request makes no sense (see `check_request`), or a step failed; the message says why.
        Cancelled: `progress` asked for a stop.
    """
    request = keep.begin(request, spec, check_request(request, spec, store))
    return _carry_on(request, spec, store, out, workers, nice, progress, keep)


def resume(
    spec: RobotSpec,
    store: PolicyStore,
    keep: Checkpoints,
    *,
    out: str | Path | None = None,
    workers: int = 1,
    nice: int = 0,
    reading: ReadOptions | None = None,
    progress: Progress = silent,
) -> RepairOutcome:
    """Go on with a repair that broke off, from what `keep` has of it. Arguments and errors as `repair`.

    reading: how bags are read from now on, if they have to be read again; None as before.

    Raises:
        DataError: there is nothing to go on with; see `Checkpoints.resume`.
    """
    request = keep.resume(spec)
    if reading is not None:
        request = replace(request, reading=reading)
    return _carry_on(request, spec, store, out, workers, nice, progress, keep)


def _carry_on(
    request: RepairRequest,
    spec: RobotSpec,
    store: PolicyStore,
    out: str | Path | None,
    workers: int,
    nice: int,
    progress: Progress,
    keep: Checkpoints,
) -> RepairOutcome:
    """Take every phase that `keep` has no result of."""
    progress = keep.watching(progress)
    candidate = kept_candidate(keep, store)
    if candidate is None:
        candidate = make_candidate(request, spec, store, progress=within(progress, 0.0, 0.5), keep=keep)
    validation = None
    if candidate.policy_id is not None:
        validation = validate(
            spec, store, candidate.policy_id, candidate.incumbent_id, request.rules(spec), request.seed,
            safe_return=candidate.safe_return, workers=workers, nice=nice, progress=within(progress, 0.5, 0.97),
            asked_by=request.asked_by, keep=keep,
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
    keep: Checkpoints = NOWHERE,
) -> Validation:
    """Drive two policies of the store from the same starts on simulated robots, judge, and write it into the history.

    Args:
        safe_return: yardstick of reward where the incumbent is unsafe; None takes the one on the candidate's card.
        keep: where episodes and verdict are kept; what is there already is not driven again.

    Raises:
        StoreError: a policy is missing, damaged or for another robot.
        SimulationError: no simulated robot, or a worker failed.
        Cancelled: `progress` asked for a stop.
    """
    began, seeds = time.perf_counter(), validation_seeds(seed, rules.episodes)
    if safe_return is None:
        safe_return = store.card(candidate).details.get("safe_return")
    for name in (candidate, incumbent):
        bundle.verify(store.path(name), spec)
    driven = {who: keep.records(who) for who in ("incumbent", "candidate")}
    paths = {"incumbent": store.path(incumbent), "candidate": store.path(candidate)}
    missing = [(who, each) for who in paths for each in seeds if each not in driven[who]]

    def kept(index: int, record: EpisodeRecord) -> None:
        who, _ = missing[index]
        driven[who][record.seed] = record
        keep.keep_record(who, record)

    if missing:
        drives = [(paths[who], each) for who, each in missing]
        run_drives(spec, drives, workers=workers, nice=nice, progress=progress, keep=kept)
    records = [[episodes[each] for each in seeds] for episodes in driven.values()]
    if (judged := keep.verdict()) is not None:
        return Validation(judged[0], tuple(records[0]), tuple(records[1]), seeds, judged[1])
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
    seconds = time.perf_counter() - began
    keep.keep_verdict(verdict, seconds)
    return Validation(verdict, tuple(records[0]), tuple(records[1]), seeds, seconds)


def validation_seeds(seed: int, episodes: int) -> tuple[int, ...]:
    """Return the reset seeds of a validation; other than those of the episodes that are collected with `seed`."""
    drawn = np.random.SeedSequence([seed, 0x5AFE]).generate_state(2 * episodes + 16)
    return tuple(int(value) for value in dict.fromkeys(drawn.tolist()))[:episodes]
