"""Drivers that log varied data: feedback controllers over physical state, each episode in a style of its own.

    driver = make("ball_circle", spec, np.random.default_rng(7))
    action = driver(physical)            # signal name -> value  ->  (action_dim,) float32 in [-1, 1]
    driver.style                         # {"reckless": False, "speed": 6.1, ...}

A style is safe or reckless, and draws its speed, line, margins, gains and noise at random. The share of reckless
styles is the option `reckless` of the description's simulation section. None of this is tuned to be the best that can
be done: offline learning is to find more in the data than one driver shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from saferule_core.errors import SimulationError
from saferule_core.spec import RobotSpec

NOISE_MEMORY = 0.8
"""Share of the action noise that stays from one tick to the next."""

CAR_TOP_SPEED = 3.6
"""Speed of the car with the wheels at their limit [m/s]."""

Control = Callable[[Mapping[str, float]], tuple[float, float]]


class Driver:
    """A controller with action noise. Call it once per tick with the physical state."""

    def __init__(self, control: Control, style: dict[str, Any], rng: np.random.Generator) -> None:
        """Add noise of standard deviation about `style["noise"]` to `control`."""
        self.style = style
        self._control = control
        self._rng = rng
        self._noise = np.zeros(2)

    def __call__(self, physical: Mapping[str, float]) -> np.ndarray:
        """Return the action (action_dim,) float32 in [-1, 1] for a state."""
        fresh = math.sqrt(1.0 - NOISE_MEMORY**2) * self.style["noise"] * self._rng.normal(size=2)
        self._noise = NOISE_MEMORY * self._noise + fresh
        return np.clip(np.asarray(self._control(physical)) + self._noise, -1.0, 1.0).astype(np.float32)


def make(name: str, spec: RobotSpec, rng: np.random.Generator) -> Driver:
    """Return a driver in a random style.

    Raises:
        SimulationError: there is no behaviour of that name, or it does not drive this robot.
    """
    if name not in BEHAVIOURS:
        known = ", ".join(sorted(BEHAVIOURS))
        raise SimulationError(f"{spec.source}: simulation.behaviour: expected one of {known}; found {name!r}")
    control, needs = BEHAVIOURS[name]
    given = {output for signal in (*spec.observation, *spec.signals) for output in spec.outputs(signal)}
    lacking = sorted(set(needs) - given)
    if lacking or spec.action_dim != 2:
        raise SimulationError(
            f"{spec.source}: simulation.behaviour: {name} expects the signals {', '.join(needs)} and 2 actions, "
            f"found {'no ' + ', '.join(lacking) if lacking else f'{spec.action_dim} actions'}"
        )
    options = spec.simulation.options if spec.simulation is not None else {}
    reckless = bool(rng.random() < float(options.get("reckless", 0.4)))
    style, steer = control(reckless, rng)
    return Driver(steer, {"reckless": reckless, **style}, rng)


def _circle_direction(physical: Mapping[str, float], style: Mapping[str, float]) -> tuple[float, float]:
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


def _ball_circle(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
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
        dx, dy = _circle_direction(physical, style)
        gain, speed = style["gain"], style["speed"]
        return gain * (speed * dx - physical["vx"]), gain * (speed * dy - physical["vy"])

    return style, control


def _car_circle(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
    """Drive the car along the circle in reverse, slower while it still has to turn."""
    style = {
        "radius": rng.uniform(6.6, 7.8),
        "lookahead": rng.uniform(0.25, 0.55),
        "margin": rng.uniform(6.2, 7.4) if reckless else rng.uniform(4.8, 5.9),
        "braking": 100.0 if reckless else rng.uniform(0.9, 3.0),
        "speed": rng.uniform(2.2, 3.6) if reckless else rng.uniform(1.4, 3.5),
        "slowing": rng.uniform(0.0, 0.9),
        "speed_gain": rng.uniform(0.4, 1.0),
        "turn_gain": rng.uniform(1.6, 4.0),
        "noise": float(rng.choice([0.02, 0.05, 0.1, 0.2])),
    }
    style["creep"] = 0.05 / style["speed"]

    def control(physical: Mapping[str, float]) -> tuple[float, float]:
        dx, dy = _circle_direction(physical, style)
        travel = _reverse_travel(physical)
        turn = _wrap(math.atan2(dy, dx) - travel)
        along = physical["vx"] * math.cos(travel) + physical["vy"] * math.sin(travel)
        wanted = style["speed"] * (1.0 - style["slowing"] * min(abs(turn), 1.0))
        return _reverse(wanted, along, style["speed_gain"]), -style["turn_gain"] * turn

    return style, control


def _car_run(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
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
        turn = _wrap(wanted_direction - _reverse_travel(physical))
        return _reverse(wanted_speed, along, style["speed_gain"]), -style["turn_gain"] * turn

    return style, control


def _reverse_travel(physical: Mapping[str, float]) -> float:
    """Return the direction that the car moves in when it drives in reverse [rad]."""
    return math.atan2(-physical["heading_sin"], -physical["heading_cos"])


def _reverse(wanted: float, along: float, gain: float) -> float:
    """Return the wheel action that brings the speed in reverse from `along` to `wanted` [m/s]."""
    return -(wanted / CAR_TOP_SPEED + gain * (wanted - along))


def _wrap(angle: float) -> float:
    """Return the angle in [-pi, pi)."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


Maker = Callable[[bool, np.random.Generator], tuple[dict[str, Any], Control]]
_CAR = ("x", "y", "vx", "vy", "heading_sin", "heading_cos")

BEHAVIOURS: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "ball_circle": (_ball_circle, ("x", "y", "vx", "vy")),
    "car_circle": (_car_circle, _CAR),
    "car_run": (_car_run, _CAR),
}
"""Behaviours by name, with the signals that they need."""
