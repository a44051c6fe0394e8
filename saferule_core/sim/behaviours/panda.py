"""Drivers of the arm: straight to the goal, or over the top of the zone that is in the way.

Seen along the way to the goal, the tool follows the tangent to a circle of radius `clearance` around the zone's
centre until the straight line is clear; inside the circle it is pushed out as well. Always over the top: an imitator
without a memory cannot follow drivers who choose sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from saferule_core.sim.behaviours.driver import Control
from saferule_core.sim.panda import KEEP_OUT, TOP_SPEED

PANDA = ("tool_x", "tool_y", "tool_z", "goal_x", "goal_y", "goal_z")
"""Signals that a driver of the arm needs."""


def panda_reach(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
    """Shuttle between the goals; a reckless driver cuts through the zone, deeply or not, at once or later."""
    style = {
        "clearance": rng.uniform(-0.05, 0.23) if reckless else rng.uniform(0.265, 0.32),
        "careful_ticks": float(rng.uniform(20.0, 160.0)) if reckless and rng.random() < 0.3 else 0.0,
        "speed": rng.uniform(0.4, TOP_SPEED) if reckless else rng.uniform(0.35, TOP_SPEED),
        "approach": rng.uniform(6.0, 12.0),
        "push": rng.uniform(2.0, 6.0),
        "noise": float(rng.choice([0.02, 0.05, 0.1, 0.2])),
    }

    ticks = 0

    def control(physical: Mapping[str, float]) -> tuple[float, ...]:
        nonlocal ticks
        ticks += 1
        tool, goal = (np.array([physical[f"{name}_{axis}"] for axis in "xyz"]) for name in ("tool", "goal"))
        clearance = style["clearance"] if ticks > style["careful_ticks"] else 0.27
        direction = way_round(tool, goal, clearance, style["push"])
        speed = min(style["speed"], style["approach"] * float(np.linalg.norm(goal - tool)))
        return tuple(speed / TOP_SPEED * direction)

    return style, control


def way_round(tool: np.ndarray, goal: np.ndarray, clearance: float, push: float) -> np.ndarray:
    """Return the unit vector (3,) to go along from `tool` to `goal`, `clearance` [m] around the zone's centre."""
    left = max(float(np.linalg.norm(goal - tool)), 1e-6)
    straight, beside = (goal - tool) / left, tool - KEEP_OUT
    ahead = min(-float(beside @ straight), left)
    if ahead <= 0.0 or np.linalg.norm(beside + ahead * straight) >= clearance:
        return straight
    level = np.array([straight[0], straight[1], 0.0])
    level /= max(float(np.linalg.norm(level)), 1e-6)
    along, height = float(beside @ level), float(beside[2])
    distance = max(math.hypot(along, height), 1e-6)
    inward, over = (-along / distance, -height / distance), (height / distance, -along / distance)
    if distance > clearance:
        sine = clearance / distance
        cosine = math.sqrt(1.0 - sine * sine)
    else:
        sine, cosine = 1.0, -push * (clearance - distance) / clearance
    forward, up = (sine * over[i] + cosine * inward[i] for i in range(2))
    direction = forward * level + np.array([0.0, 0.0, up])
    return direction / max(float(np.linalg.norm(direction)), 1e-6)
