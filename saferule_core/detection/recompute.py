"""What the sensors in logged transitions say about cost and reward, whatever the labels say.

costs, rewards = recomputed(spec, data)                  # (N,) each, None where observations do not tell
"""

from __future__ import annotations

import numpy as np

from saferule_core.data.transitions import Transitions
from saferule_core.errors import SpecError
from saferule_core.spec import RobotSpec


def recomputed(spec: RobotSpec, data: Transitions) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return costs and rewards that the robot description computes from observations and actions alone.

    None for either where that takes a signal that is not observed; rewards also where a feature is clipped, since what
    was cut off would look like a lie.
    """
    try:
        costs = spec.relabel(data).costs
    except SpecError:
        costs = None
    if not spec.computes_reward or any(feature.clip for feature in spec.observation):
        return costs, None
    following, before = spec.physical(data.next_observations), spec.physical(data.observations)
    try:
        rewards = spec.step_reward(following, before, spec.command(data.actions))
    except SpecError:
        return costs, None
    return costs, np.broadcast_to(np.asarray(rewards, np.float32), len(data)).copy()
