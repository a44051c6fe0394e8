"""The flight recorder as a process beside a driving robot: what it writes is what happened."""

import itertools
import json
import resource
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from conftest import POINT_SPEC
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import WrenchStamped
from nav_msgs.msg import Odometry
from rclpy.time import Time
from ros_testing import RosGraph, nanoseconds, write_yaml_of_point_robot
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header, UInt64
from std_srvs.srv import Trigger

from benchmarks.recorder import measure
from saferule.msg import CostStatus, PolicyStatus
from saferule_core.data.bags import read_bags
from saferule_core.signals import SignalReader
from saferule_core.spec import RobotSpec, load_spec
from saferule_ros.diagnostics import Level
from saferule_ros.messages import COMMAND, LATCHED, STATUS

pytestmark = pytest.mark.timed

EPISODES, STEPS = 4, 20
BAG_SECONDS = 3.0
"""An episode takes 2.1 s of ROS time: a bag is over its limit after two."""


@dataclass
class Drive:
    """What the robot did, and what was recorded of it."""

    spec: RobotSpec
    states: list
    missed: int
    bags: list[Path]
    statuses: int
    log: str

    def steps(self) -> list[tuple[np.ndarray, np.ndarray, np.float32]]:
        """Return observation, next observation and reward of each step."""
        observed = []
        for state in self.states:
            reader = SignalReader(self.spec)
            reader.update("odom", state, 0)
            physical = reader.physical(nanoseconds(state.header.stamp))
            observed.append((self.spec.observe(physical), physical["x"]))
        episodes = [observed[k : k + STEPS + 1] for k in range(0, len(observed), STEPS + 1)]
        return [(a, b, np.float32(y - x)) for e in episodes for (a, x), (b, y) in itertools.pairwise(e)]


def silent_topics(reports: list) -> str:
    """Return the topics without a publisher that the recorder named last."""
    found = [status for report in reports for status in report.status if status.name == "flight_recorder: recording"]
    return {pair.key: pair.value for pair in found[-1].values}["topics without a publisher"] if found else ""


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    path = write_yaml_of_point_robot(folder / "point.yaml", POINT_SPEC)
    with RosGraph(folder) as graph:
        robot = graph.start("sim_robot", spec=path, real_time_factor=5.0, episodes=EPISODES)
        recorder = graph.start(
            "flight_recorder", spec=path, out_dir=folder / "logs", max_bag_seconds=BAG_SECONDS, use_sim_time=True
        )
        statuses = graph.node.create_publisher(CostStatus, "cost_status", STATUS)
        commands = graph.node.create_publisher(WrenchStamped, "cmd_force", COMMAND)
        states, missed = graph.collect("odom", Odometry), graph.collect("sim_robot/missed_commands", UInt64, LATCHED)

        def act(tick: Clock) -> None:
            if states:
                command = WrenchStamped()
                command.header.stamp = tick.clock
                time = nanoseconds(tick.clock) / 1e9
                command.wrench.force.x, command.wrench.force.y = 3.0 * float(np.sin(3.0 * time)), 0.1
                commands.publish(command)
                statuses.publish(CostStatus(header=command.header, policy_id="somebody", evidence=2.5))

        reports = graph.collect("/diagnostics", DiagnosticArray)
        graph.configure(robot, recorder)
        graph.answer("/clock", Clock, act)
        graph.wait_until(lambda: silent_topics(reports) == "/policy_status, /safety_stop", "the recorder to find all")
        graph.activate(recorder)
        for topic, readers in (("odom", 2), ("reward", 1), ("episode", 1), ("cmd_force", 2), ("cost_status", 1)):
            graph.wait_for_readers(topic, readers)
        graph.wait_for_reader(statuses)
        graph.wait_for_reader(commands, 2)
        graph.activate(robot)
        graph.wait_until(lambda: f"drove {EPISODES} episodes" in graph.log(robot), "the drive's end")
        assert graph.stop(recorder, signal.SIGTERM) == 0
        assert graph.stop(robot) == 0
        bags = sorted(path.parent for path in (folder / "logs").glob("*/bag_*/metadata.yaml"))
        return Drive(load_spec(path), states, missed[-1].data, bags, len(states), graph.log(recorder))


def test_transitions_read_back_are_the_steps_that_were_driven(drive):
    """A tick whose command was missed by a busy machine joins the one before, so at most those differ."""
    contents = read_bags(drive.bags, drive.spec)
    data, truth = contents.transitions, {step[0].tobytes(): step for step in drive.steps()}
    assert EPISODES * STEPS - len(data) <= drive.missed + 1
    same = 0
    for row in range(len(data)):
        _, following, reward = truth[data.observations[row].tobytes()]
        close = abs(data.rewards[row] - reward) < 1e-5
        same += close and np.array_equal(data.next_observations[row], following)
    assert len(data) - same <= drive.missed
    moved = 10.0 * (data.next_observations - data.observations)[:, 0]
    assert np.sum(np.abs(moved - data.actions[:, 0]) > 1e-4) <= 2 * drive.missed + 1


def test_every_bag_holds_whole_episodes(drive):
    """A missed command splits an episode: episode_1, episode_1#2."""
    bags = read_bags(drive.bags, drive.spec).bags
    names = [dict.fromkeys(name.partition("#")[0] for name in bag.episode_names) for bag in bags]
    assert [list(group) for group in names] == [["episode_0", "episode_1"], ["episode_2", "episode_3"]]


def test_own_messages_are_recorded_with_their_types(drive):
    with AnyReader(drive.bags) as reader:
        chosen = [c for c in reader.connections if c.topic == "/cost_status"]
        messages = [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages(chosen)]
        assert {c.msgtype for c in chosen} == {"saferule/msg/CostStatus"}
    assert abs(len(messages) - drive.statuses) <= drive.missed + 2
    assert {(m.policy_id, m.evidence, m.limit) for m in messages} == {("somebody", 2.5, 0.0)}


def test_messages_are_dated_by_the_robots_time(drive):
    with AnyReader(drive.bags) as reader:
        first, last = nanoseconds(drive.states[0].header.stamp), nanoseconds(drive.states[-1].header.stamp)
        times = [time for _, time, _ in reader.messages()]
        assert first - drive.spec.period_ns <= min(times) and max(times) <= last
        for connection, time, data in reader.messages(c for c in reader.connections if c.topic == "/odom"):
            stamp = nanoseconds(reader.deserialize(data, connection.msgtype).header.stamp)
            assert stamp - time == drive.spec.period_ns, "sensors are there a little before the clock says so"


def test_it_says_where_it_recorded(drive):
    assert f"messages into {drive.bags[0].parent}" in drive.log


def test_on_a_robot_messages_are_dated_by_the_machines_clock(ros_graph):
    path = ros_graph.folder / "point.yaml"
    path.write_text(POINT_SPEC, encoding="utf-8")
    recorder = ros_graph.start("flight_recorder", spec=path, out_dir=ros_graph.folder, storage="sqlite3")
    ros_graph.configure(recorder)
    publisher = ros_graph.node.create_publisher(Odometry, "odom", STATUS)
    ros_graph.wait_for_writer("odom")
    ros_graph.activate(recorder)
    ros_graph.wait_for_reader(publisher)
    before = ros_graph.node.get_clock().now()
    for _ in range(5):
        publisher.publish(Odometry())
    late = ros_graph.node.create_publisher(Odometry, "odom", STATUS)
    ros_graph.wait_for_reader(late)
    late.publish(Odometry())
    ros_graph.wait_until(lambda: any(ros_graph.folder.glob("20*/bag_000/*.db3")), "a bag")
    ros_graph.deactivate(recorder)
    (bag,) = ros_graph.folder.glob("20*/bag_000")
    with AnyReader([bag]) as reader:
        times = [time for _, time, _ in reader.messages()]
    assert 1 <= len(times) <= 6 and before <= Time(nanoseconds=times[0], clock_type=before.clock_type)
    assert ros_graph.stop(recorder) == 0


class Recorder:
    """A recorder of the point robot that is fed by the test: one odometry message per call, numbered by x."""

    def __init__(self, graph: RosGraph, **parameters: object) -> None:
        self.graph, self.count = graph, 0
        path = graph.folder / "point.yaml"
        path.write_text(POINT_SPEC, encoding="utf-8")
        self._odometry = graph.node.create_publisher(Odometry, "odom", STATUS)
        self._marker = graph.node.create_publisher(Header, "episode", LATCHED)
        self._policy = graph.node.create_publisher(PolicyStatus, "policy_status", STATUS)
        given = {"spec": path, "out_dir": graph.folder / "logs", **parameters}
        self.reports = graph.collect("/diagnostics", DiagnosticArray)
        self.name = graph.start("flight_recorder", **given)
        graph.configure(self.name)
        graph.wait_until(lambda: silent_topics(self.reports).count("/") == 5, "the recorder to find all publishers")
        graph.activate(self.name)
        for publisher in (self._odometry, self._marker, self._policy):
            graph.wait_for_reader(publisher)

    def sense(self, policy: str = "") -> None:
        """Publish the next state, and which policy drives."""
        message = Odometry()
        message.pose.pose.position.x = float(self.count)
        self._odometry.publish(message)
        self.count += 1
        if policy:
            self._policy.publish(PolicyStatus(policy_id=policy))

    def begin(self, episode: str) -> None:
        """Publish the episode marker."""
        self._marker.publish(Header(frame_id=episode))

    def received(self) -> int:
        """Return how many messages the recorder says it has."""
        values = [pair for report in self.reports for pair in report.status[0].values if pair.key == "messages"]
        return int(values[-1].value) if values else 0

    def bags(self) -> list[Path]:
        """Return the complete bags."""
        return sorted(path.parent for path in self.graph.folder.glob("logs/*/bag_*/metadata.yaml"))


def recorded(bag: Path) -> list[object]:
    """Return what a bag holds: episode names, policies, and the numbers of the states."""
    with AnyReader([bag]) as reader:
        messages = [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages()]
    return [
        m.frame_id if hasattr(m, "frame_id") else m.policy_id if hasattr(m, "policy_id") else m.pose.pose.position.x
        for m in messages
    ]


def test_a_snapshot_of_the_ring_is_what_led_to_it_and_what_follows_at_once(ros_graph):
    recorder = Recorder(ros_graph, mode="ring", ring_bytes=3500, snapshot_delay=0.5)
    recorder.begin("episode_7")
    ros_graph.wait_until(lambda: recorder.received() == 1, "the marker")
    for _ in range(40):
        recorder.sense()
    ros_graph.wait_until(lambda: recorder.received() == 41, "all messages")
    assert recorder.bags() == []
    ros_graph.answer("after", Header, lambda _message: recorder.sense())
    follower = ros_graph.node.create_publisher(Header, "after", STATUS)
    ros_graph.wait_for_reader(follower)
    threading.Timer(0.1, lambda: follower.publish(Header())).start()
    answer = ros_graph.call(Trigger, "flight_recorder/snapshot")
    (bag,) = recorder.bags()
    assert answer.success and answer.message == f"written to {bag}"
    marker, *numbers = recorded(bag)
    assert marker == "episode_7" and numbers == [float(k) for k in range(41)][-len(numbers) :]
    assert 2 <= len(numbers) <= 5, "3500 bytes of odometry"
    answer = ros_graph.call(Trigger, "flight_recorder/snapshot")
    assert answer.success and "no message came" in answer.message
    ros_graph.deactivate(recorder.name)
    assert not ros_graph.call(Trigger, "flight_recorder/snapshot").success
    assert ros_graph.stop(recorder.name) == 0


def test_a_snapshot_of_a_recording_completes_its_bag_and_bags_name_the_policies(ros_graph):
    recorder = Recorder(ros_graph, snapshot_delay=0.0)
    recorder.sense("a")
    recorder.sense("b")
    ros_graph.wait_until(lambda: recorder.received() == 4, "all messages")
    assert ros_graph.call(Trigger, "flight_recorder/snapshot").success
    (bag,) = recorder.bags()
    assert sorted(recorded(bag), key=str) == [0.0, 1.0, "a", "b"]
    data = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]["custom_data"]
    assert json.loads(data["saferule.policies"]) == ["a", "b"]
    assert [(s["from"], s["to"]) for s in json.loads(data["saferule.swaps"])] == [("a", "b")]
    assert ros_graph.stop(recorder.name) == 0


def test_a_full_disk_ends_the_recording_with_an_error_and_readable_bags(ros_graph):
    recorder = Recorder(ros_graph)
    limit = 3_000_000  # some seconds
    pid = ros_graph.process_id(recorder.name)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))

    def complaint() -> str:
        found = [r.status[0] for r in recorder.reports if r.status[0].level == Level.ERROR.value]
        return found[-1].message if found else ""

    while not complaint():
        for _ in range(50):
            recorder.sense()
        time.sleep(0.05)
    assert "File too large" in complaint() and "are complete" in complaint()
    (bag,) = recorder.bags()
    numbers = recorded(bag)
    assert f"{len(numbers)} messages up to then are complete" in complaint()
    assert len(numbers) > 50 and numbers == sorted(numbers)
    assert ros_graph.is_active(recorder.name), "it goes on telling"
    answer = ros_graph.call(Trigger, "flight_recorder/snapshot")
    assert not answer.success and "are complete" in answer.message
    assert ros_graph.stop(recorder.name) == 0


def test_nothing_is_lost_at_1_khz(tmp_path):
    count = measure(tmp_path, seconds=3.0, bag_seconds=1.0)
    assert (count.published, count.recorded, count.missing, count.twice) == (3000, 3000, (), 0)
    assert count.bags >= 2


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({}, "expected the path of a folder"),
        ({"out_dir": "logs", "storage": "tape"}, "expected mcap or sqlite3"),
        ({"out_dir": "logs", "mode": "tape"}, "expected record or ring"),
    ],
)
def test_wrong_parameters_are_refused_with_the_reason(ros_graph, parameters, complaint):
    path = ros_graph.folder / "point.yaml"
    path.write_text(POINT_SPEC, encoding="utf-8")
    recorder = ros_graph.start("flight_recorder", spec=path, **parameters)
    assert not ros_graph.change_state(recorder, 1)
    ros_graph.wait_until(lambda: complaint in ros_graph.log(recorder), f"{complaint} in the log")
    assert ros_graph.stop(recorder) == 0
