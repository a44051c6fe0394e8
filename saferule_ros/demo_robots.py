"""The robots of `saferule demo`, and how each is logged, poisoned, trained, driven and judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoRobot:
    """Settings of one demo.

    spec: file in config/. agent: learning algorithm. steps: of training, None for the algorithm's own number.
    episodes, bags: logged. poison_fraction: share of the episodes that are poisoned. reward_boost: added to their
    reward per step. real_time_factor: simulated per wall second. live_episodes: watched before and after the repair.
    min_reward_kept: share of the reward of safe logged episodes that the repaired policy has to reach.
    """

    spec: str
    agent: str
    steps: int | None = None
    episodes: int = 500
    bags: int = 10
    poison_fraction: float = 0.15
    reward_boost: float = 0.5
    real_time_factor: float = 5.0
    live_episodes: int = 5
    validation_episodes: int = 20
    min_reward_kept: float = 0.8
    workers: int = 2

    def training_options(self) -> tuple[object, ...]:
        """Return the options of `saferule train` beyond the agent."""
        return () if self.steps is None else ("--steps", self.steps)


ROBOTS = {
    "ball": DemoRobot("ball_circle.yaml", "advantage_weighted"),
    "car": DemoRobot("car_run.yaml", "return_conditioned", episodes=400, real_time_factor=1.7),
    "car_circle": DemoRobot("car_circle.yaml", "return_conditioned", episodes=400),
}
