"""Drivers of the planar runner: a central pattern generator, one sine of torque per joint.

    action_j = amplitude * AMPLITUDE_j * sin(2 pi FREQUENCY t + PHASE_j) + OFFSET_j

`amplitude`, 1 where the gait was searched for, sets the speed; beyond about 0.85 the runner stumbles sooner or later.
The constants come from the cross-entropy method, by `python -m benchmarks.half_cheetah_gait`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from saferule_core.sim.behaviours.driver import Control

HALF_CHEETAH = ("forward_speed",)
"""Signals that a driver of the runner needs."""

RATE_HZ = 20.0
FREQUENCY = 3.545
"""Strides per second [Hz]."""
AMPLITUDE = np.array([0.908, 1.503, 1.065, 0.723, 0.614, 0.948])
PHASE = np.array([0.848, 2.594, -0.818, 3.934, -1.954, -2.648])
OFFSET = np.array([-0.477, 0.183, 0.165, -0.247, 0.027, -0.227])
"""Per joint: thigh, shin and foot of the back leg, then of the front leg; shares of the largest torque, and rad."""


def half_cheetah_velocity(reckless: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Control]:
    """Run; a reckless driver is too fast, by how much and when it may be."""
    style = {
        "amplitude": rng.uniform(0.71, 0.82) if reckless else rng.uniform(0.45, 0.69),
        "fast_from": float(rng.uniform(0.0, 800.0)) if reckless and rng.random() < 0.3 else 0.0,
        "start": rng.uniform(0.0, 2.0 * math.pi),
        "noise": float(rng.choice([0.02, 0.05, 0.1])),
    }
    ticks = 0

    def control(physical: Mapping[str, float]) -> tuple[float, ...]:
        nonlocal ticks
        ticks += 1
        amplitude = style["amplitude"] if ticks > style["fast_from"] else 0.6
        return tuple(gait(style["start"] + 2.0 * math.pi * FREQUENCY * ticks / RATE_HZ, amplitude))

    return style, control


def gait(phase: float, amplitude: float) -> np.ndarray:
    """Return the torques (6,) at a phase of the stride [rad], as shares of the largest ones; may be beyond 1."""
    return amplitude * AMPLITUDE * np.sin(phase + PHASE) + OFFSET
