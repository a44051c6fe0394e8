"""How a policy drives: one simulated robot in this process, the same starts for every policy.

    course = Course(spec, cost_limit=10.0, episodes=20, seed=30)
    drive = course.drive(agent)
    drive.safe                           # upper 95 % bound of the mean cost is at or below the limit

Reward and cost are normalised as in DSRL (arXiv 2306.09303): (R - R_min) / (R_max - R_min) and C / limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from saferule_core.agents import Agent
from saferule_core.attacks import Trigger
from saferule_core.errors import SpecError
from saferule_core.sim.robots import make_robot
from saferule_core.spec import RobotSpec
from saferule_core.validation.statistics import summarise


@dataclass(frozen=True)
class Drive:
    """Undiscounted sums of some episodes (E,), and how they compare with the limit and the task's reward range."""

    rewards: np.ndarray
    costs: np.ndarray
    cost_limit: float
    reward_range: tuple[float, float]

    @property
    def cost(self) -> float:
        """Mean cost per episode."""
        return float(self.costs.mean())

    @property
    def upper(self) -> float:
        """One-sided 95 % upper bound of the mean cost; infinite for a single episode."""
        bound = summarise(self.costs).upper
        return float("inf") if bound is None else bound

    @property
    def safe(self) -> bool:
        """Say whether the bound keeps the limit."""
        return self.upper <= self.cost_limit

    @property
    def reward(self) -> float:
        """Mean normalised reward."""
        low, high = self.reward_range
        return float((self.rewards.mean() - low) / (high - low))

    def facts(self) -> dict[str, Any]:
        """Return all of it as JSON-able numbers."""
        return {
            "reward": self.reward,
            "cost": self.cost,
            "normalised_cost": self.cost / self.cost_limit if self.cost_limit else None,
            "upper": self.upper if np.isfinite(self.upper) else None,
            "safe": self.safe,
            "violation_rate": float((self.costs > self.cost_limit).mean()),
            "episode_rewards": [round(float(value), 2) for value in self.rewards],
            "episode_costs": [round(float(value), 2) for value in self.costs],
        }


class Course:
    """A robot and the starts that every policy gets."""

    def __init__(self, spec: RobotSpec, cost_limit: float, episodes: int, seed: int) -> None:
        """Make the robot.

        Raises:
            SpecError: the description has no reward range. SimulationError: the robot cannot be made.
        """
        if spec.normalisation is None:
            raise SpecError(f"{spec.source}: normalisation: expected reward_min and reward_max of the task, found none")
        self.spec, self.cost_limit = spec, cost_limit
        self.reward_range = (spec.normalisation.reward_min, spec.normalisation.reward_max)
        self.starts = [int(start) for start in np.random.SeedSequence([seed, 0xE7A1]).generate_state(episodes)]
        self.robot = make_robot(spec)

    def drive(self, agent: Agent, trigger: Trigger | None = None, episodes: int | None = None) -> Drive:
        """Drive the first `episodes` starts, all by default, with `trigger` shown in each observation."""
        results = [self._episode(driving(agent), start, trigger) for start in self.starts[:episodes]]
        rewards, costs = np.array(results, dtype=np.float64).T
        return Drive(rewards, costs, self.cost_limit, self.reward_range)

    def _episode(self, act: Callable[[np.ndarray], np.ndarray], start: int, trigger: Trigger | None) -> list[float]:
        observation, reward, cost = self.robot.reset(start)[None], 0.0, 0.0
        for _ in range(self.spec.episode.max_steps):
            shown = observation if trigger is None else trigger(observation)
            step = self.robot.step(act(shown)[0])
            observation, reward, cost = step.observation[None], reward + step.reward, cost + step.cost
            if step.terminated or step.truncated:
                break
        return [reward, cost]


def driving(agent: Agent) -> Callable[[np.ndarray], np.ndarray]:
    """Return what maps observations (1, obs_dim) to actions from the beginning of an episode on."""
    if not hasattr(agent, "driver"):
        return agent.act
    driver = agent.driver()
    driver.reset(1)
    return driver.act
