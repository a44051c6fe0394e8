"""What the command filter keeps reckless drivers from, on the simulated robots, and what it takes from their task.

    python -m benchmarks.command_filter panda_reach ball_run ball_circle car_run > benchmarks/results/command_filter.txt

Each episode is driven three times from the same start by the same driver: as it is, and with the filter in the modes
`approach` and `stop`. A row gives mean episode cost and reward, and the share of commands that were changed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from saferule_core.command_filter import CommandFilter, FilterMode
from saferule_core.extrapolation import parse_rates
from saferule_core.signals import physical_of_raw
from saferule_core.sim import behaviours
from saferule_core.sim.robots import make_robot
from saferule_core.spec import RobotSpec, load_spec

BALL = ("x=vx", "y=vy", "vx=action.force_x / 0.3", "vy=action.force_y / 0.3")
"""A mass of 0.3 kg that rolls without friction."""

TASKS: dict[str, tuple[float, float, tuple[str, ...]]] = {
    "panda_reach": (0.5, 0.02, tuple(f"tool_{axis}=action.velocity_{axis}" for axis in "xyz")),
    "ball_run": (0.3, 0.05, BALL),
    "ball_circle": (1.0, 0.05, BALL),
    "car_run": (0.5, 0.05, ()),
}
"""Task -> horizon [s], clearance [units of the constraints] and rates; without them the present velocity counts."""


def drive(spec: RobotSpec, seed: int, mode: str) -> tuple[float, float, float, float]:
    """Return cost, reward, share of changed commands and time of a judgement [s] of one episode."""
    horizon, clearance, rates = TASKS[spec.name]
    guard = None
    if mode != "none":
        guard = CommandFilter(spec, FilterMode(mode), horizon, parse_rates(spec, rates), clearance=clearance)
    driver = behaviours.make(spec.simulation.behaviour, spec, np.random.default_rng([seed, 1]))
    robot = _robot(spec)
    robot.reset(seed)
    cost, reward, changed, spent = 0.0, 0.0, 0, 0.0
    physical = physical_of_raw(spec, robot.sense())
    for step in range(1, spec.episode.max_steps + 1):
        command = {name: float(value) for name, value in spec.command(driver(physical)).items()}
        if guard is not None:
            begun = time.perf_counter()
            verdict = guard.judge_state(physical, step * spec.period_ns, command)
            spent += time.perf_counter() - begun
            command, changed = verdict.command, changed + (verdict.scale < 1.0)
        result = robot.step(spec.normalise_action(command))
        before, physical = physical, physical_of_raw(spec, robot.sense())
        cost += float(spec.step_cost(physical, before, command))
        reward += float(spec.step_reward(physical, before, command))
        if result.terminated or result.truncated:
            break
    return cost, reward, changed / step, spent / step


_ROBOTS: dict[str, object] = {}


def _robot(spec: RobotSpec) -> object:
    """Return the one robot of this process: physics engines keep state per process."""
    return _ROBOTS.setdefault(spec.name, make_robot(spec))


def reckless_seeds(spec: RobotSpec, first: int, count: int) -> list[int]:
    """Return the first `count` seeds from `first` on whose driver is reckless."""
    found, seed = [], first
    while len(found) < count:
        driver = behaviours.make(spec.simulation.behaviour, spec, np.random.default_rng([seed, 1]))
        found += [seed] if driver.style["reckless"] else []
        seed += 1
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print a table; each task in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="+", choices=tuple(TASKS))
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1000, help="first seed that is looked at")
    options = parser.parse_args(arguments)
    if len(options.tasks) > 1:
        for task in options.tasks:
            more = ["--episodes", str(options.episodes), "--seed", str(options.seed)]
            subprocess.run([sys.executable, "-m", "benchmarks.command_filter", task, *more], check=True)
        return
    (task,) = options.tasks
    spec = load_spec(Path(__file__).resolve().parents[1] / "config" / f"{task}.yaml")
    horizon, clearance, rates = TASKS[task]
    seeds = reckless_seeds(spec, options.seed, options.episodes)
    print(f"{task}: limit {spec.cost.limit:g}, {len(seeds)} reckless episodes from seed {options.seed}")
    print(f"  horizon {horizon:g} s, clearance {clearance:g}, {', '.join(rates) or 'present velocity'}")
    for mode in ("none", "approach", "stop"):
        cost, reward, changed, spent = np.mean([drive(spec, seed, mode) for seed in seeds], axis=0)
        print(f"  {mode:<10} cost {cost:7.1f}   reward {reward:8.1f}   changed {changed:5.0%}   {1e3 * spent:.2f} ms")


if __name__ == "__main__":
    main()
