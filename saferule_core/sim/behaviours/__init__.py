"""Drivers that log varied data: feedback controllers over physical state, each episode in a style of its own.

    driver = make("ball_circle", spec, np.random.default_rng(7))
    action = driver(physical)            # signal name -> value  ->  (action_dim,) float32 in [-1, 1]
    driver.style                         # {"reckless": False, "speed": 6.1, ...}

A style is safe or reckless, and draws its speed, line, margins, gains and noise at random. The share of reckless
styles is the option `reckless` of the description's simulation section. None of this is tuned to be the best that can
be done: offline learning is to find more in the data than one driver shows.
"""

from __future__ import annotations

import numpy as np

from saferule_core.errors import SimulationError
from saferule_core.sim.behaviours.ball import BALL, ball_circle, ball_run
from saferule_core.sim.behaviours.car import CAR, car_circle, car_run
from saferule_core.sim.behaviours.driver import Behaviour, Driver
from saferule_core.sim.behaviours.drone import DRONE, drone_run
from saferule_core.sim.behaviours.half_cheetah import HALF_CHEETAH, half_cheetah_velocity
from saferule_core.sim.behaviours.panda import PANDA, panda_reach
from saferule_core.sim.behaviours.point import POINT, point_circle
from saferule_core.spec import RobotSpec

BEHAVIOURS: dict[str, Behaviour] = {
    "ball_circle": Behaviour(ball_circle, BALL),
    "ball_run": Behaviour(ball_run, BALL),
    "car_circle": Behaviour(car_circle, CAR),
    "car_run": Behaviour(car_run, CAR),
    "drone_run": Behaviour(drone_run, DRONE, actions=4),
    "half_cheetah_velocity": Behaviour(half_cheetah_velocity, HALF_CHEETAH, actions=6),
    "panda_reach": Behaviour(panda_reach, PANDA, actions=3),
    "point_circle": Behaviour(point_circle, POINT),
}
"""Behaviours by name."""


def make(name: str, spec: RobotSpec, rng: np.random.Generator) -> Driver:
    """Return a driver in a random style.

    Raises:
        SimulationError: there is no behaviour of that name, or it does not drive this robot.
    """
    if name not in BEHAVIOURS:
        known = ", ".join(sorted(BEHAVIOURS))
        raise SimulationError(f"{spec.source}: simulation.behaviour: expected one of {known}; found {name!r}")
    behaviour = BEHAVIOURS[name]
    given = {output for signal in (*spec.observation, *spec.signals) for output in spec.outputs(signal)}
    lacking = sorted(set(behaviour.needs) - given)
    if lacking or spec.action_dim != behaviour.actions:
        found = f"no {', '.join(lacking)}" if lacking else f"{spec.action_dim} actions"
        raise SimulationError(
            f"{spec.source}: simulation.behaviour: {name} expects the signals {', '.join(behaviour.needs)} and "
            f"{behaviour.actions} actions, found {found}"
        )
    options = spec.simulation.options if spec.simulation is not None else {}
    reckless = bool(rng.random() < float(options.get("reckless", 0.4)))
    style, control = behaviour.make(reckless, rng)
    return Driver(control, {"reckless": reckless, **style}, rng, spec.action_dim)
