"""The command filter as a process between a commander and a robot."""

import pytest

pytest.importorskip("rclpy")

from conftest import POINT_SPEC
from geometry_msgs.msg import WrenchStamped
from nav_msgs.msg import Odometry
from rclpy.time import Time
from ros_testing import RosGraph
from rosgraph_msgs.msg import Clock

from saferule.msg import FilterStatus
from saferule_ros.messages import COMMAND, STATUS

pytestmark = pytest.mark.timed

PERIOD = 100_000_000


class Commander:
    """Plays robot, clock and executor of the point robot; a command is a velocity, |x| <= 6 m is to be kept."""

    def __init__(self, graph: RosGraph, **parameters: object) -> None:
        self.graph, self.time = graph, 10 * PERIOD
        path = graph.folder / "point.yaml"
        path.write_text(POINT_SPEC, encoding="utf-8")
        self._odometry = graph.node.create_publisher(Odometry, "odom", STATUS)
        self._clock = graph.node.create_publisher(Clock, "/clock", COMMAND)
        self._commands = graph.node.create_publisher(WrenchStamped, "unfiltered/cmd_force", COMMAND)
        rates = ["x=action.force_x", "y=action.force_y"]
        self.name = graph.start("command_filter", spec=path, use_sim_time=True, rates=rates, **parameters)
        graph.configure(self.name)
        self.received = graph.collect("cmd_force", WrenchStamped)
        self.statuses = graph.collect("filter_status", FilterStatus)
        for publisher in (self._odometry, self._clock, self._commands):
            graph.wait_for_reader(publisher)
        graph.wait_for_writer("cmd_force")
        graph.wait_for_writer("filter_status")
        self.tell_time()
        graph.activate(self.name)

    def tell_time(self) -> None:
        """Publish /clock."""
        self._clock.publish(Clock(clock=Time(nanoseconds=self.time).to_msg()))

    def command(self, x: float, force: float) -> WrenchStamped:
        """Let the robot be at `x` and command `force`; return what the robot is told."""
        message = Odometry()
        self.time += PERIOD
        message.header.stamp = Time(nanoseconds=self.time).to_msg()
        message.pose.pose.position.x = x
        self._odometry.publish(message)
        self.tell_time()
        wanted = WrenchStamped()
        wanted.header.frame_id, wanted.wrench.force.x, wanted.wrench.torque.z = "base", force, 7.0
        while not self.statuses or "none came yet" in self.statuses[-1].reason:
            self._send(wanted)  # the sensors come on another topic: the command may overtake them
        self._send(wanted)
        return self.received[-1]

    def _send(self, wanted: WrenchStamped) -> None:
        told, judged = len(self.received), len(self.statuses)
        self._commands.publish(wanted)
        self.graph.wait_until(lambda: len(self.received) > told and len(self.statuses) > judged, "a command")


def test_commands_pass_are_scaled_and_stop_with_the_sensors(ros_graph):
    commander = Commander(ros_graph)
    told = commander.command(0.0, 3.0)
    assert (told.wrench.force.x, told.wrench.torque.z, told.header.frame_id) == (3.0, 7.0, "base")
    assert (commander.statuses[-1].state, commander.statuses[-1].scale) == (FilterStatus.STATE_PASSING, 1.0)
    forces = []
    while not forces or forces[-1] == 3.0:
        forces.append(commander.command(5.0, 3.0).wrench.force.x)
        assert len(forces) < 50
    status = commander.statuses[-1]
    assert forces[-1] == pytest.approx(0.9) and status.scale == pytest.approx(0.3)
    assert (status.state, status.constraint) == (FilterStatus.STATE_SCALING, "outside_bounds")
    assert status.time_to_violation == pytest.approx(0.4)
    commander.time += 10 * PERIOD  # the sensors are silent for a second
    count = len(commander.received)
    commander.tell_time()
    ros_graph.wait_until(lambda: len(commander.received) > count, "the safe command, as the commands are silent, too")
    assert commander.received[-1].wrench.force.x == 0.0
    assert "fell silent" in ros_graph.log(commander.name)
    ros_graph.deactivate(commander.name)
    assert ros_graph.stop(commander.name) == 0


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [({"mode": "creep"}, "expected one of approach, slow, stop"), ({"rates": ["z=1.0"]}, "expected signal=expression")],
)
def test_wrong_parameters_are_refused_with_the_reason(ros_graph, parameters, complaint):
    path = ros_graph.folder / "point.yaml"
    path.write_text(POINT_SPEC, encoding="utf-8")
    node = ros_graph.start("command_filter", spec=path, **parameters)
    assert not ros_graph.change_state(node, 1)
    ros_graph.wait_until(lambda: complaint in ros_graph.log(node), f"{complaint} in the log")
    assert ros_graph.stop(node) == 0
