"""When a message counts: the same rules for a robot that drives and for the log of its drive.

    is_late(stamp_ns, newest_ns)              # it was overtaken by a newer one of its topic: ignored
    jumped_back(stamp_ns, newest_ns)          # the clock was set back: what came before it counts no longer
    is_fresh(now_ns, stamp_ns, max_age_ns)    # it may be used at `now_ns`

All times are nanoseconds, numbers or arrays. Between messages a value is held; a state is complete when every topic has
a fresh message, so that each of its features is within its own maximum age.
"""

from __future__ import annotations

import numpy as np

from saferule_core.spec import RobotSpec

CLOCK_JUMP_NS = 1_000_000_000
"""Stamps of one topic that go back by more than this are a clock that was set, not messages out of order."""

LONGEST_AGE_NS = 10**16


def is_late(stamp_ns: int, newest_ns: int) -> bool:
    """Return whether a message is older than the newest one of its topic, on the same clock."""
    return newest_ns - CLOCK_JUMP_NS <= stamp_ns < newest_ns


def jumped_back(stamp_ns: np.ndarray | int, newest_ns: np.ndarray | int) -> np.ndarray | bool:
    """Return whether the clock was set back between the newest message of a topic and this one."""
    return stamp_ns < newest_ns - CLOCK_JUMP_NS


def is_fresh(now_ns: np.ndarray | int, stamp_ns: np.ndarray | int, max_age_ns: np.ndarray | int) -> np.ndarray | bool:
    """Return whether a message may be used: its stamp is no further from now than its maximum age, either way.

    One that comes from further in the future is of another clock: it would still count long after its sensor is silent.
    """
    return (now_ns - stamp_ns <= max_age_ns) & (stamp_ns - now_ns <= np.minimum(max_age_ns, CLOCK_JUMP_NS))


def max_ages_ns(spec: RobotSpec) -> dict[str, int]:
    """Return topic -> how old its newest message may be [ns]: the smallest maximum age of what is read from it."""
    ages: dict[str, int] = {}
    for signal in spec.source_signals():
        age = min(round(1e9 * signal.max_age), LONGEST_AGE_NS)
        ages[signal.topic] = min(ages.get(signal.topic, age), age)
    return ages
