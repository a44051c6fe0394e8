"""Messages that lack what the description reads, such as a gripper's among the joint states of an arm."""

import threading
import time

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import WrenchStamped
from rclpy.time import Time
from ros_testing import RosGraph
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray

from saferule.msg import CostStatus, FilterStatus
from saferule_ros.diagnostics import Level
from saferule_ros.messages import COMMAND, LATCHED, STATUS

ARM = """
name: arm
rate_hz: 20.0
episode: {max_steps: 100000}
observation:
  - {name: joint, topic: joint_states, type: sensor_msgs/msg/JointState, field: "position[0:3]", max_age: 0.35}
action:
  - {name: force, topic: cmd_force, type: geometry_msgs/msg/WrenchStamped, field: wrench.force.x,
     low: -3.5, high: 3.5, unit: N}
cost:
  limit: 1000.0
  constraints:
    - {name: outside_bounds, expression: "abs(joint_0) > 6.0"}
reward: {expression: "joint_0 - previous.joint_0"}
"""
PERIOD_S = 0.05


class Arm:
    """Publishes joint states and commands all the time; a test says how many joints they have."""

    def __init__(self, graph: RosGraph) -> None:
        self.joints = (3,)
        self.channels: int | None = None
        self.path = graph.folder / "arm.yaml"
        self.path.write_text(ARM, encoding="utf-8")
        self._node = graph.node
        self._states = graph.node.create_publisher(JointState, "joint_states", STATUS)
        self._commands = graph.node.create_publisher(WrenchStamped, "unfiltered/cmd_force", COMMAND)
        self._lists = graph.node.create_publisher(Float64MultiArray, "unfiltered/efforts", COMMAND)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            for count in self.joints:
                message = JointState(position=[0.0] * count)
                message.header.stamp = Time(nanoseconds=time.time_ns()).to_msg()
                self._states.publish(message)
            command = WrenchStamped()
            command.wrench.force.x = 1.0
            self._commands.publish(command)
            if self.channels is not None:
                self._lists.publish(Float64MultiArray(data=[1.0] * self.channels))


def start(graph, node, arm, **parameters):
    graph.start(node, spec=arm.path, **parameters)
    graph.configure(node)
    graph.activate(node)


def reported(reports, level, words):
    """Return whether /diagnostics said these words at this level."""
    return any(r.status[0].level == level.value and words in r.status[0].message for r in list(reports))


SHORT = "unusable message on joint_states: JointState.position[0:3]: expected 3 elements, found 2"


def test_the_monitor_lives_through_short_joint_states_and_asks_for_a_stop(ros_graph):
    with Arm(ros_graph) as arm:
        statuses = ros_graph.collect("cost_status", CostStatus)
        stops = ros_graph.collect("safety_stop", Bool, LATCHED)
        reports = ros_graph.collect("/diagnostics", DiagnosticArray)
        start(ros_graph, "cost_monitor", arm, diagnostics_hz=10.0)
        ros_graph.wait_until(lambda: statuses and statuses[-1].state == CostStatus.STATE_OK, "a judged state")

        arm.joints = (3, 2)  # a gripper beside the arm: what is whole counts
        ros_graph.wait_until(lambda: reported(reports, Level.WARN, SHORT), "the short message in /diagnostics")
        assert statuses[-1].state == CostStatus.STATE_OK and not stops[-1].data

        arm.joints = (2,)
        ros_graph.wait_until(lambda: statuses[-1].state == CostStatus.STATE_STALE, "STALE")
        ros_graph.wait_until(lambda: stops[-1].data, "a stop of the blind monitor")
        ros_graph.wait_until(lambda: reported(reports, Level.ERROR, "not judged for"), "why, in /diagnostics")
        seen = len(statuses)
        arm.joints = (3,)
        ros_graph.wait_until(lambda: len(statuses) > seen and statuses[-1].state == CostStatus.STATE_OK, "it to judge")
    assert ros_graph.log("cost_monitor").count(SHORT) == 1, "once in the log"
    assert ros_graph.stop("cost_monitor") == 0


def test_a_monitor_that_hears_nothing_but_short_messages_says_so(ros_graph):
    with Arm(ros_graph) as arm:
        arm.joints = (2,)
        reports = ros_graph.collect("/diagnostics", DiagnosticArray)
        start(ros_graph, "cost_monitor", arm, diagnostics_hz=10.0)
        ros_graph.wait_until(lambda: reported(reports, Level.STALE, SHORT), "it in /diagnostics")
    assert ros_graph.stop("cost_monitor") == 0


def test_the_filter_lives_through_short_joint_states_and_sends_the_safe_command(ros_graph):
    with Arm(ros_graph) as arm:
        told = ros_graph.collect("cmd_force", WrenchStamped)
        statuses = ros_graph.collect("filter_status", FilterStatus)
        reports = ros_graph.collect("/diagnostics", DiagnosticArray)
        start(ros_graph, "command_filter", arm)
        ros_graph.wait_until(lambda: told and told[-1].wrench.force.x == 1.0, "a command that passes")
        arm.joints = (2,)
        ros_graph.wait_until(lambda: told[-1].wrench.force.x == 0.0, "the safe command")
        ros_graph.wait_until(lambda: statuses[-1].state == FilterStatus.STATE_STOPPING, "why")
        assert "joint_states" in statuses[-1].reason
        ros_graph.wait_until(lambda: reported(reports, Level.WARN, SHORT), "it in /diagnostics")
        arm.joints = (3,)
        ros_graph.wait_until(lambda: told[-1].wrench.force.x == 1.0, "commands to pass again")
    assert ros_graph.log("command_filter").count(SHORT) == 1, "once in the log"
    assert ros_graph.stop("command_filter") == 0


def test_a_command_without_its_channel_is_as_if_it_had_not_come(ros_graph):
    with Arm(ros_graph) as arm:
        arm.path.write_text(
            ARM.replace("cmd_force, type: geometry_msgs/msg/WrenchStamped, field: wrench.force.x",
                        'efforts, type: std_msgs/msg/Float64MultiArray, field: "data[1]"'),
            encoding="utf-8",
        )  # fmt: skip
        arm.channels = 2
        told = ros_graph.collect("efforts", Float64MultiArray)
        reports = ros_graph.collect("/diagnostics", DiagnosticArray)
        start(ros_graph, "command_filter", arm)
        ros_graph.wait_until(lambda: told and list(told[-1].data) == [1.0, 1.0], "a command that passes")
        arm.channels = 1
        ros_graph.wait_until(lambda: told[-1].data[1] == 0.0, "the safe command, as after a silence")
        words = "unusable message on unfiltered/efforts"
        ros_graph.wait_until(lambda: reported(reports, Level.STALE, words), "it in /diagnostics")
        arm.channels = 2
        ros_graph.wait_until(lambda: list(told[-1].data) == [1.0, 1.0], "commands to pass again")
    assert ros_graph.stop("command_filter") == 0
