"""What a robot's computer has to do while it repairs a policy, without end, for benchmarks of the nodes beside it.

    python -m benchmarks.runtime_load unlearning      # Safe-RULE on a small data set, one thread
    python -m benchmarks.runtime_load validation      # two PyBullet robots

Says "working" once it does. Whoever starts it gives it the priority that unlearning_server gives its worker.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from saferule_core import agents
from saferule_core.sim.rollout import run_episodes
from saferule_core.spec import RobotSpec, load_spec
from saferule_core.unlearning import UnlearningProblem, unlearn

ROOT = Path(__file__).resolve().parents[1]
COST_LIMIT = 5.0


def still(spec: RobotSpec) -> Callable[[np.ndarray], np.ndarray]:
    """Return a policy that does nothing: the simulation is the work here."""
    return lambda _observation: np.zeros(spec.action_dim, dtype=np.float32)


def unlearning() -> None:
    """Unlearn poisoned logs of the tests' point mass, over and over."""
    sys.path.insert(0, str(ROOT / "test"))
    from point_mass import poisoned_logs, relabel

    retain, forget = poisoned_logs()
    agent = agents.train("td3_bc_lagrangian", retain, COST_LIMIT, seed=0, steps=50)
    problem = UnlearningProblem(agent, retain, forget, COST_LIMIT, seed=0, relabel=relabel)
    print("working", flush=True)
    while True:
        unlearn("safe_rule", problem)


def validation() -> None:
    """Drive two simulated robots, over and over."""
    spec = load_spec(ROOT / "config" / "ball_circle.yaml")
    run_episodes(spec, "benchmarks.runtime_load:still", range(2), workers=2)
    print("working", flush=True)
    while True:
        run_episodes(spec, "benchmarks.runtime_load:still", range(2000), workers=2)


if __name__ == "__main__":
    {"unlearning": unlearning, "validation": validation}[sys.argv[1]]()
