"""Log episodes of a simulated robot that is driven by its behaviour, each in a style of its own.

    logs = collect_episodes(spec, episodes=500, seed=0, workers=2)
    data = transitions_of(logs, spec)                       # saferule_core.data.episode_log
    bags = write_bags(logs, spec, "logs/seed_0", episodes_per_bag=20)      # saferule_core.data.bags

Episode e of seed s depends on (s, e) only, so neither the number of workers nor that of episodes changes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saferule_core.data.episode_log import EpisodeLog
from saferule_core.errors import SimulationError
from saferule_core.progress import Progress, silent
from saferule_core.sim.workers import run_jobs
from saferule_core.spec import RobotSpec


def collect_episodes(
    spec: RobotSpec,
    episodes: int,
    seed: int,
    *,
    workers: int = 1,
    nice: int = 0,
    progress: Progress = silent,
    phase: str = "collecting",
) -> list[EpisodeLog]:
    """Return the logs of `episodes` episodes, named episode_0, episode_1, ...

    Args:
        workers: number of processes.
        nice: how much to lower their priority, 0 to 19.
        progress: called as `phase` with the fraction of episodes that are done; may raise `Cancelled`.

    Raises:
        SimulationError: nothing to collect, no robot or behaviour in the description, or a worker failed.
    """
    if episodes < 1:
        raise SimulationError(f"episodes: expected at least 1, found {episodes}")
    if spec.simulation is None or spec.simulation.behaviour is None:
        raise SimulationError(f"{spec.source}: simulation.behaviour: expected the name of a behaviour, found none")
    request = {"spec": spec.text, "source": spec.source, "log": True}
    drive = {"behaviour": spec.simulation.behaviour}
    jobs = [{"drive": drive, "seed": reset_seed(seed, e), "style_seed": [seed, e]} for e in range(episodes)]
    results = run_jobs(request, jobs, workers=workers, nice=nice, progress=progress, phase=phase)
    return [_log(f"episode_{e}", result) for e, result in enumerate(results)]


def reset_seed(seed: int, episode: int) -> int:
    """Return the seed that the robot is reset with in an episode, in [0, 2**32)."""
    return int(np.random.SeedSequence([seed, episode, 1]).generate_state(1)[0])


def _log(name: str, result: dict[str, Any]) -> EpisodeLog:
    return EpisodeLog(
        name=name,
        sensors={
            kind: {path: values[0] if isinstance(values[0], str) else np.asarray(values) for path, values in f.items()}
            for kind, f in result["sensors"].items()
        },
        commands={channel: np.asarray(values, dtype=np.float64) for channel, values in result["commands"].items()},
        rewards=np.asarray(result["rewards"], dtype=np.float64),
        costs=np.asarray(result["costs"], dtype=np.float64),
        terminated=result["terminated"],
        style=result["style"],
    )
