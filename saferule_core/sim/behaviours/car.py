"""Drivers of the racing car, which stands with its nose the wrong way and so drives in reverse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from saferule_core.sim.behaviours.driver import Control, circle_direction, wrap

CAR = ("x", "y", "vx", "vy", "heading_sin", "heading_cos")
"""Signals that a driver of the car needs."""

CAR_TOP_SPEED = 3.6
"""Speed of the car with the wheels at their limit [m/s]."""


def car_circle(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
    """Drive the car along the circle in reverse, slower while it still has to turn.

    A careful driver always slows down for turns and begins to turn away from the wall early, by little `braking`: else
    the first swing, from a nose that points anywhere, ends outside.
    """
    style = {
        "radius": rng.uniform(6.6, 7.8) if reckless else rng.uniform(6.8, 7.5),
        "lookahead": rng.uniform(0.25, 0.55) if reckless else rng.uniform(0.35, 0.5),
        "margin": rng.uniform(6.2, 7.4) if reckless else rng.uniform(5.0, 5.65),
        "braking": 100.0 if reckless else rng.uniform(0.8, 1.6),
        "speed": rng.uniform(2.2, 3.6),
        "slowing": rng.uniform(0.0, 0.9) if reckless else rng.uniform(0.4, 0.8),
        "speed_gain": rng.uniform(0.4, 1.0),
        "turn_gain": rng.uniform(1.6, 4.0) if reckless else rng.uniform(2.2, 4.0),
        "noise": float(rng.choice([0.02, 0.05, 0.1, 0.2])),
    }
    style["creep"] = 0.05 / style["speed"]

    def control(physical: Mapping[str, float]) -> tuple[float, float]:
        dx, dy = circle_direction(physical, style)
        travel = _reverse_travel(physical)
        turn = wrap(math.atan2(dy, dx) - travel)
        along = physical["vx"] * math.cos(travel) + physical["vy"] * math.sin(travel)
        wanted = style["speed"] * (1.0 - style["slowing"] * min(abs(turn), 1.0))
        return _reverse(wanted, along, style["speed_gain"]), -style["turn_gain"] * turn

    return style, control


def car_run(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
    """Drive the car down a lane in reverse; a reckless driver is too fast, always or in bursts, or leaves the lane."""
    fast = rng.uniform(1.45, 2.2) if rng.random() < 0.4 else rng.uniform(1.8, CAR_TOP_SPEED)
    style = {
        "speed": fast if reckless else rng.uniform(0.7, 1.44),
        "lane": rng.uniform(-1.3, 1.3),
        "burst_ticks": float(rng.uniform(15.0, 60.0)) if reckless and rng.random() < 0.3 else 0.0,
        "speed_gain": rng.uniform(0.4, 1.5),
        "lane_gain": rng.uniform(0.3, 0.8),
        "turn_gain": rng.uniform(1.0, 3.0),
        "noise": float(rng.choice([0.02, 0.05, 0.1, 0.2])),
    }
    if reckless and rng.random() < 0.3:
        style["lane"] = float(rng.choice([-1.0, 1.0]) * rng.uniform(2.2, 3.0))
    ticks = 0

    def control(physical: Mapping[str, float]) -> tuple[float, float]:
        nonlocal ticks
        ticks += 1
        burst = style["burst_ticks"]
        pausing = burst > 0.0 and math.sin(2.0 * math.pi * ticks / burst) <= 0.0
        wanted_speed = 1.2 if pausing else style["speed"]
        along = math.copysign(math.hypot(physical["vx"], physical["vy"]), physical["vx"])
        wanted_direction = min(max(style["lane_gain"] * (style["lane"] - physical["y"]), -0.5), 0.5)
        turn = wrap(wanted_direction - _reverse_travel(physical))
        return _reverse(wanted_speed, along, style["speed_gain"]), -style["turn_gain"] * turn

    return style, control


def _reverse_travel(physical: Mapping[str, float]) -> float:
    """Return the direction that the car moves in when it drives in reverse [rad]."""
    return math.atan2(-physical["heading_sin"], -physical["heading_cos"])


def _reverse(wanted: float, along: float, gain: float) -> float:
    """Return the wheel action that brings the speed in reverse from `along` to `wanted` [m/s]."""
    return -(wanted / CAR_TOP_SPEED + gain * (wanted - along))
