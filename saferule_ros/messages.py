"""Message classes by name and quality of service by kind of topic: the two things every node needs.

    Odometry = message_class("nav_msgs/msg/Odometry")
    node.create_publisher(Bool, "safety_stop", LATCHED)
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from saferule_core.errors import SpecError

SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Sensors are subscribed to with best effort: matches every publisher, and an old value is worth nothing."""

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Only the newest command counts, and it has to arrive."""

STATUS = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
"""Status topics carry one message per tick; a reader may be a little late."""

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""State that a late subscriber has to know: the safety stop, the current episode."""


@cache
def message_class(kind: str) -> type:
    """Return the class of a message type such as `nav_msgs/msg/Odometry`.

    Raises:
        SpecError: it is not installed.
    """
    package, _, name = kind.partition("/msg/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise SpecError(f"message type {kind}: expected an installed ROS message, found none ({error})") from error


def make_message(kind: str) -> object:
    """Return an empty message of a type such as `nav_msgs/msg/Odometry`."""
    return message_class(kind)()
