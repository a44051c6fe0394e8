"""What a simulated robot is, and how the one that a RobotSpec names is made.

    robot = make_robot(spec)                     # spec.simulation.robot: "bullet_safety_gym:SafetyBallCircle-v0"
    observation = robot.reset(seed=7)
    step = robot.step(action)                    # step.observation, step.reward, step.cost, ...
    raw = robot.sense()                          # fields of the messages that the real robot would publish

A simulated robot speaks in message fields, like the real one; the RobotSpec turns them into what the policy sees. So
simulation, logs and the running robot share one code path. Physics engines keep state per process: make one robot in
a process, and use more processes for more robots.

An own robot is `"module:factory"`, where `factory(spec)` returns an object with the methods of `SimulatedRobot`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from saferule_core.errors import SimulationError
from saferule_core.spec import RobotSpec

RawFields = Mapping[str, Mapping[str, Any]]


class Step(NamedTuple):
    """What follows an action.

    observation: (obs_dim,) float32, as the policy sees it. reward, cost: the simulation's own, of this step.
    terminated: the task ended; truncated: the episode's time is over. info: whatever the simulation tells besides.
    """

    observation: np.ndarray
    reward: float
    cost: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


@runtime_checkable
class SimulatedRobot(Protocol):
    """A robot in simulation. The same seed and the same actions give the same episode, whatever was run before."""

    def reset(self, seed: int) -> np.ndarray:
        """Start an episode and return the first observation (obs_dim,) float32."""

    def step(self, action: np.ndarray) -> Step:
        """Apply an action (action_dim,) in [-1, 1] for one control period."""

    def sense(self) -> RawFields:
        """Return the present state as message fields: message type -> field path -> value."""

    def position(self) -> tuple[float, float]:
        """Return where the robot is, (x, y) [m], for pictures."""

    def close(self) -> None:
        """Free the simulation."""


FAMILIES = {
    "bullet_safety_gym": "saferule_core.sim.bullet_safety_gym:BulletSafetyGymRobot",
    "panda": "saferule_core.sim.panda:PandaRobot",
    "safety_gymnasium": "saferule_core.sim.safety_gymnasium:SafetyGymnasiumRobot",
}
"""Makers of robots by the part of `simulation.robot` before the colon; they get the description and the rest."""


def make_robot(spec: RobotSpec) -> SimulatedRobot:
    """Return the simulated robot that `spec.simulation.robot` names.

    Raises:
        SimulationError: the description names none, or it cannot be made.
    """
    if spec.simulation is None:
        raise SimulationError(f"{spec.source}: simulation: expected a section that names a simulated robot, found none")
    named = spec.simulation.robot
    where = f"{spec.source}: simulation.robot"
    family, _, name = named.partition(":")
    if family in FAMILIES:
        return _import(FAMILIES[family], where)(spec, name)
    robot = _import(named, where)(spec)
    if not isinstance(robot, SimulatedRobot):
        raise SimulationError(f"{where}: expected a robot with reset, step, sense, position and close, found {robot!r}")
    return robot


def _import(text: str, where: str) -> Any:
    """Return what `module:name` names."""
    module, _, name = text.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(f"{family}:<task>" for family in FAMILIES)
        raise SimulationError(f"{where}: expected {known} or <module>:<factory>, found {text!r} ({error})") from error
