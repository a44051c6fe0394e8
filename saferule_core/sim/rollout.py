"""Drive simulated robots with a policy, in parallel, to measure its reward and safety cost.

    records = run_episodes(spec, "store/active", seeds=range(100, 140), workers=2)
    pairs = run_drives(spec, [(policy, seed) for policy in ("store/active", "candidate") for seed in range(100, 140)])

A record depends on policy and seed only: neither on the number of workers nor on the other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saferule_core.errors import SimulationError
from saferule_core.progress import Progress, silent
from saferule_core.sim.workers import run_jobs
from saferule_core.spec import RobotSpec


@dataclass(frozen=True, eq=False)
class EpisodeRecord:
    """One simulated episode.

    reward, cost: undiscounted sums over its `steps`. path: (steps, 2) float64, where the robot was after each step [m].
    """

    seed: int
    reward: float
    cost: float
    steps: int
    path: np.ndarray


def run_episodes(
    spec: RobotSpec,
    policy: str | Path,
    seeds: Sequence[int],
    **options: Any,
) -> list[EpisodeRecord]:
    """Drive one episode per seed with a policy; see `run_drives` for options and errors."""
    return run_drives(spec, [(policy, seed) for seed in seeds], **options)


def run_drives(
    spec: RobotSpec,
    drives: Sequence[tuple[str | Path, int]],
    *,
    workers: int = 1,
    nice: int = 0,
    progress: Progress = silent,
    phase: str = "validating",
    keep: Callable[[int, EpisodeRecord], None] = lambda _index, _record: None,
) -> list[EpisodeRecord]:
    """Drive one episode per pair of policy and seed, about in their order; return the records in exactly that order.

    Args:
        drives: each policy is the directory of a bundle, or "module:function" where function(spec) returns a callable
            from observation (obs_dim,) float32 to action (action_dim,) in [-1, 1].
        workers: number of processes.
        nice: how much to lower their priority, 0 to 19; 19 next to a running robot.
        progress: called as `phase` with the fraction of episodes that are done; may raise `Cancelled`.
        keep: called with the number of a drive and its record as soon as the episode is over, in any order.

    Raises:
        SimulationError: no drives, no such robot, or a worker failed; other errors of a worker, such as a damaged
            bundle, come as this too, with their own words.
    """
    if len(drives) == 0:
        raise SimulationError("seeds: expected at least one seed to run an episode for, found none")
    jobs = [{"drive": _drive(policy), "seed": int(seed)} for policy, seed in drives]
    results = run_jobs(
        {"spec": spec.text, "source": spec.source}, jobs, workers=workers, nice=nice, progress=progress, phase=phase,
        keep=lambda index, result: keep(index, _record(jobs[index]["seed"], result)),
    )  # fmt: skip
    return [_record(job["seed"], result) for job, result in zip(jobs, results, strict=True)]


def _drive(policy: str | Path) -> dict[str, str]:
    if isinstance(policy, str) and ":" in policy and not Path(policy).exists():
        return {"factory": policy}
    return {"bundle": str(Path(policy).resolve())}


def _record(seed: int, result: dict[str, Any]) -> EpisodeRecord:
    path = np.asarray(result["path"], dtype=np.float64).reshape(-1, 2)
    return EpisodeRecord(seed, float(result["reward"]), float(result["cost"]), int(result["steps"]), path)
