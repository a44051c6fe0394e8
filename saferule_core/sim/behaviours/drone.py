"""Drivers of the quadrotor: from wanted velocity to wanted tilt to torque to rotor speeds.

    acceleration = gain * (wanted velocity - velocity)      horizontally, with the lane and the height held
    tilt = acceleration / g                                 bounded
    torque = stiffness * (tilt - present tilt) - damping * turn rate
    rotors = lift -+ torque                                 front and back pitch, right and left roll
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from saferule_core.sim.behaviours.driver import Control

DRONE = ("x", "y", "z", "vx", "vy", "vz", "q_x", "q_y", "q_z", "q_w", "wx", "wy", "wz")
"""Signals that a driver of the drone needs."""

GRAVITY = 9.81
TORQUE = 8.3
"""Turn acceleration of a pair of rotors, one at full speed and one at least speed [rad/s^2]."""
LIFT = 0.2 * GRAVITY
"""Change of vertical acceleration when all rotors go from hovering to full speed [m/s^2], about."""


def drone_run(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
    """Fly down a lane; a reckless driver is too fast, by how much and when it may be, or leaves the lane."""
    fast = rng.uniform(1.5, 2.2) if rng.random() < 0.4 else rng.uniform(2.0, 3.8)
    style = {
        "speed": fast if reckless else rng.uniform(0.6, 1.4),
        "lane": rng.uniform(-1.2, 1.2),
        "height": rng.uniform(0.5, 1.5),
        "fast_from": float(rng.uniform(0.0, 2.0)) if reckless and rng.random() < 0.3 else -1.0,
        "speed_gain": rng.uniform(1.2, 2.4),
        "lane_gain": rng.uniform(0.6, 1.5),
        "tilt": rng.uniform(0.3, 0.5),
        "stiffness": rng.uniform(30.0, 60.0),
        "noise": float(rng.choice([0.02, 0.05, 0.1, 0.2])),
    }
    if reckless and rng.random() < 0.3:
        style["lane"] = float(rng.choice([-1.0, 1.0]) * rng.uniform(2.2, 3.5))

    def control(physical: Mapping[str, float]) -> tuple[float, float, float, float]:
        gain, speed = style["speed_gain"], style["speed"] if physical["x"] >= style["fast_from"] else 1.3
        sideways = _bounded(style["lane_gain"] * (style["lane"] - physical["y"]), 0.35 * speed)
        forward, left = gain * (speed - physical["vx"]), gain * (sideways - physical["vy"])
        climb = 3.0 * (_bounded(2.0 * (style["height"] - physical["z"]), 1.0) - physical["vz"])
        return mix(physical, (forward, left, climb), style["tilt"], style["stiffness"])

    return style, control


def mix(
    physical: Mapping[str, float], acceleration: tuple[float, float, float], tilt: float, stiffness: float
) -> tuple[float, float, float, float]:
    """Return the rotors' actions (front, right, back, left) for a wanted acceleration in the odom frame [m/s^2].

    tilt: bound of roll and of pitch [rad]. stiffness: of the attitude [1/s^2]; damping is critical.
    """
    x, y, z, w = (physical[f"q_{axis}"] for axis in "xyzw")
    yaw = math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
    cos, sin = math.cos(yaw), math.sin(yaw)
    forward, left, climb = acceleration
    wanted_pitch = _bounded((cos * forward + sin * left) / GRAVITY, tilt)
    wanted_roll = _bounded((sin * forward - cos * left) / GRAVITY, tilt)
    pitch = math.asin(_bounded(2.0 * (w * y - z * x), 1.0))
    roll = math.atan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y))
    damping = 2.0 * math.sqrt(stiffness)
    roll_rate, pitch_rate = cos * physical["wx"] + sin * physical["wy"], cos * physical["wy"] - sin * physical["wx"]
    turn_pitch = (stiffness * (wanted_pitch - pitch) - damping * pitch_rate) / TORQUE
    turn_roll = (stiffness * (wanted_roll - roll) - damping * roll_rate) / TORQUE
    upright = max(math.cos(roll) * math.cos(pitch), 0.5)
    lift = (climb + GRAVITY * (1.0 / upright - 1.0)) / LIFT
    return lift - turn_pitch, lift - turn_roll, lift + turn_pitch, lift + turn_roll


def _bounded(value: float, bound: float) -> float:
    return min(max(value, -bound), bound)
