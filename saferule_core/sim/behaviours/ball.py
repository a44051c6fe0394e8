"""Drivers of the ball: proportional control of its velocity by force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saferule_core.sim.behaviours.driver import Control, circle_direction

BALL = ("x", "y", "vx", "vy")
"""Signals that a driver of the ball needs."""


def ball_circle(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
    """Push the ball along the circle; a reckless driver also goes beyond the walls."""
    style = {
        "radius": rng.uniform(6.6, 7.8),
        "lookahead": rng.uniform(0.15, 0.48),
        "margin": rng.uniform(6.2, 7.6) if reckless else rng.uniform(4.6, 5.95),
        "braking": 100.0 if reckless else rng.uniform(1.5, 5.0),
        "speed": rng.uniform(4.0, 9.5) if reckless else rng.uniform(3.0, 8.6),
        "gain": rng.uniform(0.8, 2.5),
        "noise": float(rng.choice([0.05, 0.1, 0.2, 0.4])),
    }
    style["creep"] = 0.2 / style["speed"]

    def control(physical: Mapping[str, float]) -> tuple[float, float]:
        dx, dy = circle_direction(physical, style)
        gain, speed = style["gain"], style["speed"]
        return gain * (speed * dx - physical["vx"]), gain * (speed * dy - physical["vy"])

    return style, control
