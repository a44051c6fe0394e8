"""Search the gait of the runner's drivers: the constants in saferule_core/sim/behaviours/half_cheetah.py.

    .venv/bin/python -m benchmarks.half_cheetah_gait         # two minutes; prints the constants, and what they reach

The cross-entropy method (Rubinstein 1999) over the parameters of the gait: per round POPULATION gaits from a normal
distribution run for STEPS, and mean and spread move by MOVED to those of the ELITE with the most reward. The round's
number is the seed of the start. Cost plays no part: how fast the gait goes is set by its amplitude afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from saferule_core.sim.behaviours.half_cheetah import RATE_HZ
from saferule_core.sim.safety_gymnasium import SafetyGymnasiumRobot
from saferule_core.spec import load_spec

SPEC = Path(__file__).parents[1] / "config" / "half_cheetah_velocity.yaml"
JOINTS, STEPS = 6, 300
POPULATION, ELITE = 40, 8
KEPT, MOVED = 0.2, 0.8
FLOOR = 0.01
"""Spread that is always left."""
SLOWEST, FASTEST = 0.5, 6.0
"""Strides per second [Hz]."""

Gait = np.ndarray
"""Frequency, then per joint amplitude, phase and offset: (19,)."""


def run(environment: Any, gait: Gait, seed: int, steps: int, amplitude: float = 1.0) -> tuple[float, float]:
    """Return reward and cost of `steps` from the start of `seed`."""
    frequency, (strength, phase, offset) = gait[0], gait[1:].reshape(3, JOINTS)
    environment.reset(seed=seed)
    reward = cost = 0.0
    for tick in range(steps):
        torque = amplitude * strength * np.sin(2.0 * np.pi * frequency * tick / RATE_HZ + phase) + offset
        _, gained, paid, *_ = environment.step(np.clip(torque, -1.0, 1.0))
        reward, cost = reward + gained, cost + paid
    return reward, cost


def search(environment: Any, rounds: int, seed: int) -> Gait:
    """Return the gait in the middle of the last distribution."""
    random = np.random.default_rng(seed)
    phases = random.uniform(-np.pi, np.pi, JOINTS)
    mean = np.concatenate([[2.5], np.full(JOINTS, 0.7), phases, np.zeros(JOINTS)])
    spread = np.concatenate([[0.7], np.full(JOINTS, 0.3), np.full(JOINTS, 1.5), np.full(JOINTS, 0.2)])
    for start in range(rounds):
        gaits = mean + spread * random.normal(size=(POPULATION, len(mean)))
        gaits[:, 0] = np.clip(gaits[:, 0], SLOWEST, FASTEST)
        rewards = np.array([run(environment, gait, start, STEPS)[0] for gait in gaits])
        elite = gaits[np.argsort(-rewards)[:ELITE]]
        mean = KEPT * mean + MOVED * elite.mean(axis=0)
        spread = KEPT * spread + MOVED * elite.std(axis=0) + FLOOR
        if start % 10 == 9:
            print(f"round {start + 1}: {rewards.max():.0f} of {STEPS} steps")
    return mean


def main() -> None:
    """Search, print the constants, and what they reach at several amplitudes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.half_cheetah_gait", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="default: 60")
    parser.add_argument("--seed", type=int, default=1, help="of the search; others find other gaits (default: 1)")
    options = parser.parse_args()
    environment = SafetyGymnasiumRobot(load_spec(SPEC), "SafetyHalfCheetahVelocity-v1").environment
    gait = search(environment, options.rounds, options.seed)
    print(f"FREQUENCY = {gait[0]:.3f}")
    for name, values in zip(("AMPLITUDE", "PHASE", "OFFSET"), gait[1:].reshape(3, JOINTS), strict=True):
        print(f"{name} = np.array({np.round(values, 3).tolist()})")
    for amplitude in (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85):
        ran = [run(environment, gait, 100 + seed, 1000, amplitude) for seed in range(3)]
        print(f"amplitude {amplitude}: " + ", ".join(f"reward {reward:.0f} cost {cost:.0f}" for reward, cost in ran))


if __name__ == "__main__":
    main()
