"""Drivers of the robot that turns and pushes: the nose goes where the wanted change of velocity points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from saferule_core.sim.behaviours.driver import Control, circle_direction, wrap

POINT = ("x", "y", "vx", "vy", "heading_sin", "heading_cos")
"""Signals that a driver of the robot needs."""

DRAG = 1.9
"""Deceleration per speed when nothing pushes [1/s], about."""
PUSH = 2.9
"""Acceleration of the motor at its limit [m/s^2], about."""


def point_circle(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
    """Drive anticlockwise along the circle; a reckless driver also goes beyond the walls."""
    style = {
        "radius": rng.uniform(1.42, 1.58),
        "lookahead": rng.uniform(0.35, 0.65),
        "margin": rng.uniform(1.2, 1.7) if reckless else rng.uniform(0.8, 1.02),
        "braking": 100.0 if reckless else rng.uniform(1.5, 4.0),
        "speed": rng.uniform(1.0, 1.5) if reckless else rng.uniform(0.8, 1.5),
        "gain": rng.uniform(2.0, 5.0),
        "turn_gain": rng.uniform(1.5, 4.0),
        "noise": float(rng.choice([0.02, 0.05, 0.1, 0.2])),
    }
    style["creep"] = 0.02 / style["speed"]

    def control(physical: Mapping[str, float]) -> tuple[float, float]:
        dx, dy = circle_direction({"x": physical["x"], "y": -physical["y"]}, style)  # which goes clockwise
        gain, speed = style["gain"], style["speed"]
        along_x = gain * (speed * dx - physical["vx"]) + DRAG * speed * dx
        along_y = gain * (-speed * dy - physical["vy"]) - DRAG * speed * dy
        turn = wrap(math.atan2(along_y, along_x) - math.atan2(physical["heading_sin"], physical["heading_cos"]))
        push = math.hypot(along_x, along_y) / PUSH * math.cos(turn)
        return push, style["turn_gain"] * turn

    return style, control
