"""Logs of the point robot of `point_robot.py`: some drivers stop in time, others go too far."""

from __future__ import annotations

import numpy as np
from point_robot import PointRobot

from saferule_core.data.episode_log import EpisodeLog
from saferule_core.spec import RobotSpec

SIMULATION = 'simulation: {robot: "point_robot:PointRobot"}\n'
"""To be appended to the description in conftest.py."""


def drive(spec: RobotSpec, episodes: int, seed: int, reckless: float = 0.5) -> list[EpisodeLog]:
    """Return `episodes` logs; a share of `reckless` drivers aims at x = 8 m to 10 m, the others at 2 m to 5 m."""
    robot, rng = PointRobot(spec), np.random.default_rng(seed)
    return [_episode(spec, robot, f"episode_{e}", rng, rng.random() < reckless) for e in range(episodes)]


def _episode(spec: RobotSpec, robot: PointRobot, name: str, rng: np.random.Generator, reckless: bool) -> EpisodeLog:
    robot.reset(int(rng.integers(2**31)))
    goal = rng.uniform(8.0, 10.0) if reckless else rng.uniform(2.0, 5.0)
    states, actions, rewards, costs = [robot.position()], [], [], []
    for _ in range(spec.episode.max_steps):
        aim = np.array([goal - robot.position()[0], -robot.position()[1]])
        actions.append(np.clip(aim + rng.normal(0.0, 0.2, 2), -1.0, 1.0))
        step = robot.step(actions[-1])
        states.append(robot.position())
        rewards.append(step.reward)
        costs.append(step.cost)
    x, y = np.array(states).T
    fields = {
        "header.frame_id": "odom",
        "pose.pose.position.x": x,
        "pose.pose.position.y": y,
        "pose.pose.orientation": np.tile([0.0, 0.0, 0.0, 1.0], (len(x), 1)),
    }
    commands = spec.command(np.array(actions))
    return EpisodeLog(name, {"nav_msgs/msg/Odometry": fields}, commands, np.array(rewards), np.array(costs))
