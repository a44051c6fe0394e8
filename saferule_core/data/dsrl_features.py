"""What DSRL's rows say, in the features that a description shows the policy, for robots that are shown something else.

    arrays = TRANSLATIONS["point_circle"].translate(arrays, ends, spec)

Of the robots of Bullet-Safety-Gym a description shows what the environment shows, so theirs need no translation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from saferule_core.spec import RobotSpec

Arrays = dict[str, np.ndarray]

LIDAR_BINS, LIDAR_RANGE = 16, 6.0
POINT_PUSH = 0.05
"""Share of the largest control at which the Point's motor gives its largest force."""


@dataclass(frozen=True)
class Translation:
    """observations, actions: sizes in the file. translate: (arrays, ends of episodes, description) -> arrays."""

    observations: int
    actions: int
    translate: Callable[[Arrays, np.ndarray, RobotSpec], Arrays]


def half_cheetah(arrays: Arrays, ends: np.ndarray, spec: RobotSpec) -> Arrays:
    """Add the mean speed of the last step, which the reward holds: R = speed - |a|^2 / 10.

    Before the first step of an episode it is the speed of that moment, as the simulated robot says.
    """
    after = arrays["rewards"] + 0.1 * np.square(arrays["actions"]).sum(axis=1)
    first = np.append(True, ends[:-1])
    before = np.where(first, arrays["observations"][:, 8], np.append(0.0, after[:-1]))
    return {
        **arrays,
        "observations": np.column_stack([arrays["observations"], before]),
        "next_observations": np.column_stack([arrays["next_observations"], after]),
    }


def point_circle(arrays: Arrays, ends: np.ndarray, spec: RobotSpec) -> Arrays:
    """Turn accelerometer, velocimeter, gyro, magnetometer and the circle's lidar into the odometry's quantities."""
    seen = {key: _point_odometry(arrays[key], spec) for key in ("observations", "next_observations")}
    actions = arrays["actions"] / [POINT_PUSH, 1.0]
    return {**arrays, **seen, "actions": np.clip(actions, -1.0, 1.0)}


def _point_odometry(rows: np.ndarray, spec: RobotSpec) -> np.ndarray:
    """Return what the policy sees, (N, obs_dim), for rows (N, 28) of the environment."""
    rows = np.asarray(rows, dtype=np.float64)
    velocity, turning, north, lidar = rows[:, 3:6], rows[:, 8], rows[:, 9:12], rows[:, 12:]
    # The field is (0, -1/2) in the odom frame, so in the robot's it is (-sin, -cos) / 2 of its heading.
    heading = np.arctan2(-north[:, 0], -north[:, 1])
    sin, cos = np.sin(heading), np.cos(heading)
    # The lidar's fullest bin says how close the centre is; the neighbour's share of it, where in the bin.
    index, closeness = lidar.argmax(axis=1), lidar.max(axis=1)
    after = lidar[np.arange(len(lidar)), (index + 1) % LIDAR_BINS] / np.maximum(closeness, 1e-9)
    bearing = heading + (index + after) * 2.0 * np.pi / LIDAR_BINS
    distance = LIDAR_RANGE * (1.0 - closeness)
    x, y = -distance * np.cos(bearing), -distance * np.sin(bearing)
    vx, vy = cos * velocity[:, 0] - sin * velocity[:, 1], sin * velocity[:, 0] + cos * velocity[:, 1]
    physical = {"x": x, "y": y, "vx": vx, "vy": vy, "heading_sin": sin, "heading_cos": cos, "wz": turning}
    return spec.observe(spec.derive(physical))


TRANSLATIONS = {
    "half_cheetah_velocity": Translation(17, 6, half_cheetah),
    "point_circle": Translation(28, 2, point_circle),
}
"""Translations by the name of the description."""
