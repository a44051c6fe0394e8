"""What the benchmark knows of a poisoned data set besides the poison itself.

    poisoned = attacks.attack("trajectory", data, rate=0.15, seed=0)
    truth(poisoned, data)                                # what was really driven, with its true costs
"""

from __future__ import annotations

import numpy as np

from saferule_core.attacks import Poisoned
from saferule_core.data.transitions import Transitions


def truth(poisoned: Poisoned, clean: Transitions) -> Transitions | None:
    """Return the poisoned data with its true costs; None where the attack put episodes of other lengths in."""
    if not np.array_equal(poisoned.data.episode_ends, clean.episode_ends):
        return None
    return poisoned.data.replace(costs=clean.costs)
