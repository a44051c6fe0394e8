"""Diagnostics of the nodes: one status with readable values, published on /diagnostics.

    reporter = Diagnostics(node, "cost")
    reporter.publish(Level.WARN, "an episode is over its limit", {"episode cost": 12.0})
"""

from __future__ import annotations

import enum

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from saferule_core.errors import SpecError
from saferule_ros.messages import STATUS


class Level(enum.Enum):
    """How a node is doing."""

    OK = DiagnosticStatus.OK
    WARN = DiagnosticStatus.WARN
    ERROR = DiagnosticStatus.ERROR
    STALE = DiagnosticStatus.STALE


class Diagnostics:
    """Publishes the status `<node>: <subject>`; `hardware` names the robot."""

    def __init__(self, node: Node, subject: str, hardware: str = "") -> None:
        self._node = node
        self._name = f"{node.get_fully_qualified_name().strip('/')}: {subject}"
        self._hardware = hardware
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", STATUS)

    def publish(self, level: Level, message: str, values: dict[str, object], stamp: Time | None = None) -> None:
        """Publish; numbers are written with up to six digits. `stamp` is the ROS time where none is given."""
        status = DiagnosticStatus(level=level.value, name=self._name, message=message, hardware_id=self._hardware)
        status.values = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = stamp or self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def close(self) -> None:
        """Give the publisher back."""
        self._node.destroy_publisher(self._publisher)


class UnusableMessages:
    """Counts messages that lack what the description reads; each topic's first one is a line in the log.

    A sequence that is too short is one: `joint_states` of an arm may carry those of its gripper, too. Such a message is
    as if it had not come; what it says of the state is what its silence says.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._topics: set[str] = set()
        self.count = 0
        self.newest = ""

    def add(self, topic: str, error: SpecError) -> None:
        """Take note of a message, and of what it lacks."""
        self.count, self.newest = self.count + 1, f"unusable message on {topic}: {error}"
        if topic not in self._topics:
            self._topics.add(topic)
            self._node.get_logger().warning(f"{self.newest}; such messages are ignored")


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
