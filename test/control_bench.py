"""Small policies and sensors for tests of the control loop, on the description of conftest.py."""

from types import SimpleNamespace as Message

import numpy as np

TICK = 100_000_000


class Constant:
    """A policy that always does the same."""

    def __init__(self, value):
        self.value = value

    def act(self, observations, memory):
        return np.full((len(observations), 2), self.value, dtype=np.float32)


class Listener(Constant):
    """The same, and keeps what the controller remembers before each of its ticks."""

    def __init__(self, value):
        super().__init__(value)
        self.told = []

    def act(self, observations, memory):
        known = memory.known[0]
        self.told.append(
            (memory.observations[0, memory.steps - known :, 0].copy(), memory.actions[0, memory.steps - known :].copy())
        )
        return super().act(observations, memory)


def odometry(x=0.0, sec=1.0):
    stamp = Message(sec=int(sec), nanosec=round((sec % 1) * 1e9))
    orientation = Message(x=0.0, y=0.0, z=0.0, w=1.0)
    pose = Message(position=Message(x=x, y=0.0, z=0.0), orientation=orientation)
    return Message(header=Message(stamp=stamp), pose=Message(pose=pose))


def run(controller, positions, first=0):
    """Tick once at each position x [m]; the observation of x is a tenth of it."""
    for tick, x in enumerate(positions, start=first):
        controller.update("odom", odometry(x, 1.0 + tick / 10), 0)
        controller.tick(1_000_000_000 + tick * TICK)
