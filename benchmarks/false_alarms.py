"""Counts how often the cost monitor's sequential test confirms a violation that is none.

    python -m benchmarks.false_alarms                        # prints the table of benchmarks/results/false_alarms.txt

The test says that the mean episode cost of a policy is above its limit, and may be looked at after every episode. Its
promise: whatever the costs look like, with a mean of at most the limit it ever says so with a probability of at most
alpha. Here thousands of robots drive with costs of a known mean, and every one that is ever accused is counted. Costs
come step by step: a robot that is outside its bounds tends to stay there, so they are correlated within an episode.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from saferule_core.monitoring import ExceedanceTest

LIMIT = 10.0
STEPS = 200
"""Control periods of an episode; each costs 0 or 1."""

Draw = Callable[[np.random.Generator, float, int, np.ndarray], np.ndarray]
"""(generator, mean, episode, costs of the last episode (runs,)) -> costs of this episode (runs,)."""


@dataclass(frozen=True)
class Null:
    """Robots whose mean episode cost, given the past, is `mean`: at or below the limit."""

    name: str
    mean: float
    draw: Draw

    def __str__(self) -> str:
        return f"{self.name}, mean {self.mean:g}"


def sticky(stay: float) -> Draw:
    """Steps outside the bounds come in stretches of 1 / (1 - `stay`) steps on average (a Markov chain)."""

    def draw(rng: np.random.Generator, mean: float, _episode: int, last: np.ndarray) -> np.ndarray:
        share = mean / STEPS
        enter = share * (1.0 - stay) / (1.0 - share)
        outside = rng.random(len(last)) < share
        cost = np.zeros(len(last))
        for _ in range(STEPS):
            cost += outside
            outside = rng.random(len(last)) < np.where(outside, stay, enter)
        return cost

    return draw


def independent(rng: np.random.Generator, mean: float, _episode: int, last: np.ndarray) -> np.ndarray:
    """Every step is outside with the same probability."""
    return rng.binomial(STEPS, mean / STEPS, len(last)).astype(float)


def disasters(rng: np.random.Generator, mean: float, _episode: int, last: np.ndarray) -> np.ndarray:
    """A whole episode is outside, or none of it: the largest spread that there is."""
    return np.where(rng.random(len(last)) < mean / STEPS, float(STEPS), 0.0)


def coins(rng: np.random.Generator, mean: float, _episode: int, last: np.ndarray) -> np.ndarray:
    """Twice the mean or nothing."""
    return np.where(rng.random(len(last)) < 0.5, 2.0 * mean, 0.0)


def nervous(rng: np.random.Generator, mean: float, _episode: int, last: np.ndarray) -> np.ndarray:
    """Cautious after an episode without cost, wild after one with some: the mean stays, the spread follows the past."""
    wild = np.where(rng.random(len(last)) < 0.1, 10.0 * mean, 0.0)
    return np.where(last > 0.0, wild, coins(rng, mean, 0, last))


NULLS = (
    Null("independent steps", LIMIT, independent),
    Null("stretches of 5 steps", LIMIT, sticky(0.8)),
    Null("stretches of 50 steps", LIMIT, sticky(0.98)),
    Null("stretches of 50 steps", 0.8 * LIMIT, sticky(0.98)),
    Null("rare disasters", LIMIT, disasters),
    Null("twice the mean or nothing", LIMIT, coins),
    Null("spread that follows the past", LIMIT, nervous),
)


def count_alarms(null: Null, runs: int, episodes: int, alpha: float, seed: int) -> int:
    """Return how many of `runs` robots the test ever accuses within `episodes` episodes."""
    rng = np.random.default_rng(seed)
    test, last = ExceedanceTest(LIMIT, float(STEPS), runs), np.zeros(runs)
    accused = np.zeros(runs, bool)
    for episode in range(episodes):
        last = null.draw(rng, null.mean, episode, last)
        accused |= test.evidence(last) >= 1.0 / alpha  # what the running episode shows just before its end
        test.add(last)
        accused |= test.evidence() >= 1.0 / alpha
    return int(accused.sum())


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000, help="robots per row")
    parser.add_argument("--episodes", type=int, default=300, help="episodes of each")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.05, 0.01], help="promised probabilities")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(f"limit {LIMIT:g} per episode of {STEPS} steps, {options.runs} robots, {options.episodes} episodes each,")
    print(f"looked at after every episode, seed {options.seed}; share of robots that were ever accused")
    print(f"{'costs':<44}" + "".join(f"alpha {alpha:<8g}" for alpha in options.alpha))
    begun = time.perf_counter()
    for null in NULLS:
        counts = [count_alarms(null, options.runs, options.episodes, alpha, options.seed) for alpha in options.alpha]
        print(f"{null!s:<44}" + "".join(f"{count / options.runs:<14.4f}" for count in counts), flush=True)
    print(f"({time.perf_counter() - begun:.0f} s)")


if __name__ == "__main__":
    main()
