"""Policies for simulation workers, named as "drivers:go_right"; without torch, which they do not need."""

import atexit
import os
import time

import numpy as np


def go_right(spec):
    """A policy for the point."""
    print("policies may print")
    return lambda observation: np.array([0.5, observation[0]], np.float32)


def push(spec):
    """A policy for the ball."""
    return lambda observation: np.array([np.sin(3.0 * observation[0]), -observation[1]])


def fails(spec):
    """A policy with a mistake."""

    def act(observation):
        raise LookupError("the sensor of the month")

    return act


def dies(spec):
    """A policy that takes its process down."""
    return lambda observation: os._exit(3)


def dawdles(spec):
    """A policy that never gets anywhere."""
    return lambda observation: time.sleep(600.0)


def lingers(spec):
    """A policy whose process closes its output and then takes its time to end, as on a busy machine."""

    def linger():
        os.closerange(1, 64)
        time.sleep(600.0)

    atexit.register(linger)
    return go_right(spec)
