"""From the outcome of a repair to the data of its report.

data = repair_report(request, spec, candidate, validation)
page = write_repair_report(data, "runs/1", store, candidate.policy_id)
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import saferule_core
from saferule_core.detection.suspects import SuspectEpisode
from saferule_core.sim.rollout import EpisodeRecord
from saferule_core.spec import RobotSpec
from saferule_core.store import PolicyStore
from saferule_core.unlearning.request import RepairRequest
from saferule_core.validation import report_data
from saferule_core.validation.report_data import (
    BoundaryLine,
    CircleLine,
    EpisodePath,
    PictureSection,
    PolicySection,
    ReportData,
    UnlearningSection,
)

if TYPE_CHECKING:
    from saferule_core.candidate import Candidate
    from saferule_core.repair import Validation

_PATH_POINTS = 400


def repair_report(
    request: RepairRequest, spec: RobotSpec, candidate: Candidate, validation: Validation | None
) -> ReportData:
    """Return the report of a repair; without `validation` it has no verdict and no paths."""
    result = candidate.result
    limit = request.rules(spec).cost_limit
    data = validation_report(spec, limit, candidate.incumbent_id, candidate.policy_id, validation)
    suspected = {f"{Path(each.bag).name}, {each.episode}": _why(each) for each in candidate.about.detected}
    facts = {
        **data.facts,
        "Data": candidate.about.facts,
        **({"Suspected, and forgotten": suspected} if suspected else {}),
        "Run": {
            "method": request.method,
            "seed": str(request.seed),
            "unlearning": f"{result.seconds:.2f} s",
            **data.facts["Run"],
        },
    }
    return replace(
        data,
        title=f"Repair of {spec.name}",
        facts=facts,
        unlearning=UnlearningSection(
            method=request.method,
            succeeded=result.succeeded,
            message=result.message,
            steps=result.steps,
            seconds=result.seconds,
            critics=result.critics,
            losses=candidate.losses,
            history=tuple(result.history),
            diagnostics=result.diagnostics,
        ),
    )


def validation_report(
    spec: RobotSpec, cost_limit: float, incumbent_id: str, candidate_id: str | None, validation: Validation | None
) -> ReportData:
    """Return the report of a validation alone."""
    policies = {"before": incumbent_id, "after": candidate_id or "not stored: the method failed"}
    run = {
        "saferule": saferule_core.__version__,
        "Python, torch, numpy": f"{platform.python_version()}, {torch.__version__}, {np.__version__}",
        "robot description": f"{spec.name} ({spec.hash})",
    }
    if validation is not None:
        run["validation"] = f"{validation.seconds:.1f} s, {len(validation.seeds)} episodes per policy"
        run["validation seeds"] = ", ".join(str(seed) for seed in validation.seeds)
    normal = spec.normalisation
    return ReportData(
        title=f"Validation on {spec.name}",
        robot=spec.name,
        cost_limit=cost_limit,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        verdict=validation.verdict if validation is not None else None,
        incumbent=_policy(incumbent_id, validation.incumbent) if validation is not None else None,
        candidate=_policy(candidate_id or "", validation.candidate) if validation is not None else None,
        picture=picture_of(spec),
        reward_range=(normal.reward_min, normal.reward_max) if normal is not None else None,
        facts={"Policies": policies, "Run": run},
    )


def picture_of(spec: RobotSpec) -> PictureSection:
    """Return the shapes that the robot description wants under the paths."""
    return PictureSection(
        tuple(BoundaryLine(line.x, line.y) for line in spec.picture.boundaries),
        tuple(CircleLine(circle.radius, circle.x, circle.y) for circle in spec.picture.circles),
    )


def write_repair_report(data: ReportData, out: str | Path, store: PolicyStore, policy_id: str | None) -> Path:
    """Write page and JSON into `out`, and the JSON beside the policy in the store; return the path of the page.

    Raises:
        DataError, StoreError: they cannot be written.
    """
    if policy_id is not None:
        store.add_report(policy_id, report_data.encode(data))
    from saferule_core.validation.report import write_report  # matplotlib: a second, not needed before

    return write_report(data, out)


def _why(suspect: SuspectEpisode) -> str:
    """Return why an episode was suspected."""
    p_value = "not calibrated" if suspect.p_value is None else f"p = {suspect.p_value:.3f}"
    return f"{suspect.reason} (suspicion {suspect.score:.2f}, {p_value})"


def _policy(policy_id: str, records: Sequence[EpisodeRecord]) -> PolicySection:
    return PolicySection(policy_id, episodes=tuple(_episode(record) for record in records))


def _episode(record: EpisodeRecord) -> EpisodePath:
    stride = 1 + len(record.path) // _PATH_POINTS
    points = np.round(np.asarray(record.path, dtype=np.float64)[::stride], 3).tolist()
    return EpisodePath(record.seed, record.reward, record.cost, tuple((x, y) for x, y in points))
