"""What every behaviour is made of: a control law in a random style, and action noise with a memory.

    style, control = ball_circle(reckless, rng)
    driver = Driver(control, {"reckless": reckless, **style}, rng, action_dim=2)
    action = driver(physical)                                # (action_dim,) float32 in [-1, 1]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

NOISE_MEMORY = 0.8
"""Share of the action noise that stays from one tick to the next."""

Control = Callable[[Mapping[str, float]], tuple[float, ...]]
Maker = Callable[[bool, np.random.Generator], tuple[dict[str, Any], Control]]


@dataclass(frozen=True)
class Behaviour:
    """A family of control laws: `make(reckless, rng)` draws a style and returns it with its control law.

    needs: signals that the control law reads. actions: number of actions that it gives.
    """

    make: Maker
    needs: tuple[str, ...]
    actions: int = 2


class Driver:
    """A controller with action noise. Call it once per tick with the physical state."""

    def __init__(self, control: Control, style: dict[str, Any], rng: np.random.Generator, action_dim: int = 2) -> None:
        """Add noise of standard deviation about `style["noise"]` to `control`."""
        self.style = style
        self._control = control
        self._rng = rng
        self._noise = np.zeros(action_dim)

    def __call__(self, physical: Mapping[str, float]) -> np.ndarray:
        """Return the action (action_dim,) float32 in [-1, 1] for a state."""
        fresh = math.sqrt(1.0 - NOISE_MEMORY**2) * self.style["noise"] * self._rng.normal(size=len(self._noise))
        self._noise = NOISE_MEMORY * self._noise + fresh
        return np.clip(np.asarray(self._control(physical)) + self._noise, -1.0, 1.0).astype(np.float32)


def wrap(angle: float) -> float:
    """Return the angle in [-pi, pi)."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


def circle_direction(physical: Mapping[str, float], style: Mapping[str, float]) -> tuple[float, float]:
    """Return the unit vector to go along: clockwise on the circle of `radius`, with x kept within `margin`.

    Aim at the point of the circle that lies `lookahead` [rad] ahead, moved to |x| <= margin; towards the wall go no
    faster than `braking` [1/s] times the distance that is left to the margin.
    """
    x, y = physical["x"], physical["y"]
    ahead = math.atan2(y, x) - style["lookahead"]
    target_x = min(max(style["radius"] * math.cos(ahead), -style["margin"]), style["margin"])
    dx, dy = target_x - x, style["radius"] * math.sin(ahead) - y
    distance = math.hypot(dx, dy) + 1e-6
    dx, dy = dx / distance, dy / distance
    towards_wall = style["braking"] * max(style["margin"] - abs(x), 0.0) / style["speed"] + style["creep"]
    if dx * x > 0.0 and abs(dx) > towards_wall:
        dx = math.copysign(towards_wall, dx)
        dy = math.copysign(math.sqrt(max(1.0 - dx * dx, 0.0)), dy)
    return dx, dy
