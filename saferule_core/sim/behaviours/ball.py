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


def ball_run(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
    """Push the ball down a lane; a reckless driver is too fast, by how much and when it may be, or leaves the lane."""
    fast = rng.uniform(2.45, 4.0) if rng.random() < 0.4 else rng.uniform(3.0, 11.0)
    style = {
        "speed": fast if reckless else rng.uniform(1.0, 2.42),
        "lane": rng.uniform(-1.3, 1.3),
        "fast_from": float(rng.uniform(0.0, 4.0)) if reckless and rng.random() < 0.3 else -1.0,
        "speed_gain": rng.uniform(0.5, 2.0),
        "lane_gain": rng.uniform(0.5, 2.0),
        "sideways": rng.uniform(0.2, 0.6),
        "noise": float(rng.choice([0.02, 0.05, 0.1, 0.2])),
    }
    if reckless and rng.random() < 0.3:
        style["lane"] = float(rng.choice([-1.0, 1.0]) * rng.uniform(2.2, 3.5))

    def control(physical: Mapping[str, float]) -> tuple[float, float]:
        gain, speed = style["speed_gain"], style["speed"] if physical["x"] >= style["fast_from"] else 2.2
        bound = style["sideways"] * speed
        sideways = min(max(style["lane_gain"] * (style["lane"] - physical["y"]), -bound), bound)
        return gain * (speed - physical["vx"]), gain * (sideways - physical["vy"])

    return style, control
