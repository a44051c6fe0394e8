"""A simulated robot for tests: a point that its command moves, without physics, for the description in conftest.py."""

from __future__ import annotations

import numpy as np

from saferule_core.sim.robots import RawFields, Step
from saferule_core.spec import RobotSpec


class PointRobot:
    """Starts near the origin, moves by the action per step; reward: the way along x; cost: 1 beyond |x| = 6."""

    def __init__(self, spec: RobotSpec) -> None:
        self._spec = spec
        self.reset(0)

    def reset(self, seed: int) -> np.ndarray:
        self._position, self._steps = np.random.default_rng(seed).uniform(-1.0, 1.0, 2), 0
        return self.observation()

    def step(self, action: np.ndarray) -> Step:
        before = self._position
        self._position, self._steps = before + np.asarray(action, np.float64), self._steps + 1
        reward, cost = self._position[0] - before[0], float(abs(self._position[0]) > 6.0)
        done = self._steps >= self._spec.episode.max_steps
        return Step(self.observation(), float(reward), cost, False, done, {})

    def observation(self) -> np.ndarray:
        x, y = self._position
        physical = {"x": x, "y": y, "heading_sin": 0.0, "heading_cos": 1.0}
        return self._spec.observe(self._spec.derive(physical))

    def sense(self) -> RawFields:
        return {
            "nav_msgs/msg/Odometry": {
                "header.frame_id": "odom",
                "pose.pose.position.x": self._position[0],
                "pose.pose.position.y": self._position[1],
                "pose.pose.orientation": (0.0, 0.0, 0.0, 1.0),
            }
        }

    def position(self) -> tuple[float, float]:
        return float(self._position[0]), float(self._position[1])

    def close(self) -> None:
        return None
