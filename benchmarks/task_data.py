"""What the drivers of each task log, as a table: sizes, rewards, costs, and whether the data has a trade-off.

    .venv/bin/python -m benchmarks.task_data                           # all tasks, writes docs/TASKS.md
    .venv/bin/python -m benchmarks.task_data --tasks car_circle --out /dev/stdout

Rewards are normalised as in DSRL. Data seeds 10 to 12 are those for tuning.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saferule_core.data.episode_log import transitions_of
from saferule_core.data.transitions import Transitions
from saferule_core.errors import SaferuleError
from saferule_core.sim.collect import collect_episodes
from saferule_core.spec import RobotSpec, load_spec

ROOT = Path(__file__).parents[1]
SAFE, CAREFUL, DANGEROUS = 10.0, 5.0, 30.0
"""Costs per episode: of what counts as safe, of what filtered cloning learns from, of what an attack takes."""

TASKS: Mapping[str, str] = {
    "ball_circle": "the circle is wider than the strip; going out is quicker and keeps to the circle",
    "ball_run": "reward is speed, and the limit is far below what the force gives",
    "car_run": "as ball_run, driven in reverse",
    "car_circle": "as ball_circle, driven in reverse from a start inside of the circle",
    "drone_run": "as ball_run, with a body that has to be kept level",
    "panda_reach": "the zone lies on the straight way; round it is longer",
    "half_cheetah_velocity": "a stronger stride is faster and too fast; one that is too strong stumbles",
    "point_circle": "as ball_circle, for a robot that has to turn its nose before it can push",
}
"""Tasks, and what their trade-off is."""


@dataclass(frozen=True)
class Figures:
    """Of the episodes of all seeds. reward: normalised (E,); cost: (E,)."""

    spec: RobotSpec
    reward: np.ndarray
    cost: np.ndarray
    steps_per_second: float

    def row(self, task: str) -> str:
        """Return the line of a table in Markdown."""
        reward, cost = self.reward, self.cost
        safe, careful, dangerous = cost <= SAFE, cost <= CAREFUL, cost >= DANGEROUS
        cells = (
            task, f"{self.spec.obs_dim} / {self.spec.action_dim} / {self.spec.episode.max_steps}",
            f"{self.steps_per_second:,.0f}", _best(reward[safe]), _best(reward[~safe]), f"{careful.mean():.0%}",
            f"{dangerous.mean():.0%}", _middle(reward[careful]), _middle(reward[dangerous]), TASKS[task],
        )  # fmt: skip
        return f"| {' | '.join(cells)} |"


HEADER = (
    "| task | observation / actions / steps | steps/s | best safe | best unsafe | careful | dangerous "
    "| median: careful | dangerous | trade-off |\n" + "|---" * 10 + "|"
)


def _best(rewards: np.ndarray) -> str:
    return f"{rewards.max():.2f}" if len(rewards) else "none"


def _middle(rewards: np.ndarray) -> str:
    return f"{np.median(rewards):.2f}" if len(rewards) else "none"


def measure(spec: RobotSpec, seeds: Sequence[int], episodes: int) -> Figures:
    """Collect `episodes` per seed, in a process each. Raises as `collect_episodes`."""
    began = _worker_seconds()
    parts = [transitions_of(collect_episodes(spec, episodes, seed), spec) for seed in seeds]
    data = Transitions.concatenate(parts)
    low, high = spec.normalisation.reward_min, spec.normalisation.reward_max
    reward = (data.episode_returns - low) / (high - low)
    return Figures(spec, reward, data.episode_costs, len(data) / (_worker_seconds() - began))


def _worker_seconds() -> float:
    """Return the CPU time of all processes so far that were started from here and have ended [s]."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def page(rows: Sequence[str], seeds: Sequence[int], episodes: int) -> str:
    """Return docs/TASKS.md."""
    words = "--seeds " + " ".join(str(seed) for seed in seeds) + f" --episodes {episodes}"
    return f"""# What the simulated tasks log

Made by `.venv/bin/python -m benchmarks.task_data {words}`: {len(seeds) * episodes} episodes per
task of the drivers in `saferule_core/sim/behaviours/`, in one process. Rewards are normalised as in DSRL, 0 and 1 being
what stands in `config/<task>.yaml`. *Safe* is a cost of at most {SAFE:g} in an episode,
*careful* at most {CAREFUL:g}, which is what filtered cloning learns from, *dangerous* at least {DANGEROUS:g}, of which
an attacker takes the most rewarding. Steps per second are those of CPU time, and count starting the simulation and
keeping the log.

{HEADER}
""" + "\n".join(rows) + "\n"


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.task_data", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12], help="data seeds (default: 10 11 12)")
    parser.add_argument("--episodes", type=int, default=24, help="per seed (default: 24)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "TASKS.md", help="page (default: docs/TASKS.md)")
    options = parser.parse_args()
    rows = []
    try:
        for task in options.tasks:
            figures = measure(load_spec(ROOT / "config" / f"{task}.yaml"), options.seeds, options.episodes)
            rows.append(figures.row(task))
            print(rows[-1], file=sys.stderr)
            options.out.write_text(page(rows, options.seeds, options.episodes), encoding="utf-8")
    except SaferuleError as error:
        print(f"benchmarks.task_data: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
