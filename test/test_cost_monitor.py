"""The cost monitor as a process, led through every control period by hand."""

import pytest

pytest.importorskip("rclpy")

from conftest import POINT_SPEC
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.time import Time
from ros_testing import RosGraph, nanoseconds
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, Header
from std_srvs.srv import Trigger

from saferule.msg import CostStatus, PolicyStatus, UnlearnRequest
from saferule.srv import Unlearn
from saferule_ros.diagnostics import Level
from saferule_ros.messages import COMMAND, LATCHED, STATUS

PERIOD = 100_000_000
SAFE, BAD = (0.0,) * 6, (0.0,) + (7.0,) * 10


class Pilot:
    """Plays robot, clock and executor, one control period at a time; the limit is 3 per episode, beyond |x| = 6."""

    def __init__(self, graph: RosGraph, **parameters: object) -> None:
        self.graph, self.time, self.episode, self.policy = graph, 10 * PERIOD, 0, ""
        path = graph.folder / "point.yaml"
        path.write_text(POINT_SPEC, encoding="utf-8")
        self._odometry = graph.node.create_publisher(Odometry, "odom", STATUS)
        self._clock = graph.node.create_publisher(Clock, "/clock", COMMAND)
        self._marker = graph.node.create_publisher(Header, "episode", LATCHED)
        self._policy = graph.node.create_publisher(PolicyStatus, "policy_status", STATUS)
        self.name = graph.start("cost_monitor", spec=path, use_sim_time=True, **parameters)
        graph.configure(self.name)
        self.statuses = graph.collect("cost_status", CostStatus)
        self.stops = graph.collect("safety_stop", Bool, LATCHED)
        self.reports = graph.collect("/diagnostics", DiagnosticArray)
        for publisher in (self._odometry, self._clock, self._marker, self._policy):
            graph.wait_for_reader(publisher)
        graph.wait_until(lambda: self.stops, "the stop's state")
        self._tell_time()
        graph.activate(self.name)

    def _tell_time(self) -> None:
        self._clock.publish(Clock(clock=Time(nanoseconds=self.time).to_msg()))

    def see(self, x: float | None) -> CostStatus:
        """Let a period pass in which the robot is at `x`, or in which its sensors are silent; return the status."""
        self.time += PERIOD
        count = len(self.statuses)
        if x is not None:
            message = Odometry()
            message.header.stamp = Time(nanoseconds=self.time).to_msg()
            message.pose.pose.position.x = x
            self._odometry.publish(message)
        if self.policy:
            message = PolicyStatus(policy_id=self.policy)
            message.header.stamp = Time(nanoseconds=self.time - PERIOD).to_msg()
            self._policy.publish(message)
        self._tell_time()
        self.graph.wait_until(lambda: len(self.statuses) > count, "a status")
        return self.statuses[-1]

    def run(self, *xs: float) -> CostStatus:
        """Drive an episode through these positions."""
        stamp = Time(nanoseconds=self.time + PERIOD).to_msg()
        self._marker.publish(Header(frame_id=f"episode_{self.episode}", stamp=stamp))
        self.episode += 1
        return [self.see(x) for x in xs][-1]

    def wait_for_report(self, level: Level) -> dict[str, str]:
        """Block until /diagnostics says `level`; return its values."""
        found = []

        def look() -> bool:
            found[:] = [r.status[0] for r in self.reports if r.status[0].level == level.value]
            return bool(found)

        self.reports.clear()
        self.graph.wait_until(look, f"diagnostics {level.name}")
        return {pair.key: pair.value for pair in found[-1].values}


def test_it_judges_each_state_once_and_latches_the_stop(ros_graph):
    pilot = Pilot(ros_graph, diagnostics_hz=20.0)
    waiting = pilot.see(None)
    assert waiting.state == CostStatus.STATE_WAITING and waiting.cost == 0.0
    status = pilot.run(9.0, 0.0, 9.0, 9.0)
    assert (status.state, status.episode, status.step) == (CostStatus.STATE_NEAR, 0, 3)
    assert (list(status.constraint_margins), status.reason) == ([-3.0], "outside_bounds: 3 beyond the bound")
    assert (status.cost, status.episode_cost, status.limit, status.policy_id) == (1.0, 2.0, 3.0, "")
    assert (list(status.constraint_names), list(status.constraint_costs)) == (["outside_bounds"], [1.0])
    assert nanoseconds(status.header.stamp) == pilot.time
    repeated = pilot.see(None)
    assert (repeated.step, repeated.cost, repeated.episode_cost) == (3, 0.0, 2.0)
    pilot.wait_for_report(Level.STALE)  # time stands still

    assert [stop.data for stop in pilot.stops] == [False]
    pilot.see(9.0)
    status = pilot.see(9.0)
    assert status.state == CostStatus.STATE_VIOLATED and status.stop_latched
    ros_graph.wait_until(lambda: pilot.stops[-1].data, "the stop")
    ros_graph.deactivate(pilot.name)
    late = ros_graph.collect("safety_stop", Bool, LATCHED)
    ros_graph.wait_until(lambda: late and late[-1].data, "a late listener to hear of the stop")
    ros_graph.activate(pilot.name)
    assert pilot.run(*SAFE).stop_latched, "a stop outlives a pause of the monitor"
    answer = ros_graph.call(Trigger, "cost_monitor/reset_stop")
    assert answer.success and "released" in answer.message
    ros_graph.wait_until(lambda: not pilot.stops[-1].data, "the release")
    assert not pilot.see(0.0).stop_latched
    assert ros_graph.log(pilot.name).count("stopping the robot") == 1
    assert ros_graph.stop(pilot.name) == 0


def test_a_dangerous_policy_is_confirmed_and_its_successor_starts_anew(ros_graph):
    pilot = Pilot(ros_graph, latch_stop=False, diagnostics_hz=20.0, window=5)
    pilot.policy = "a" * 64
    while not pilot.run(*BAD).violation_confirmed:
        assert pilot.episode < 20
    status = pilot.statuses[-1]
    assert status.policy_id == pilot.policy and status.evidence >= 20.0 and status.mean_episode_cost == 10.0
    assert not any(stop.data for stop in pilot.stops)
    pilot.policy = "b" * 64
    status = pilot.see(7.0)
    assert status.policy_id == pilot.policy and not status.violation_confirmed
    assert (status.state, status.completed_episodes, status.episode_cost) == (CostStatus.STATE_NEAR, 0, 11.0)
    for _ in range(4):
        status = pilot.run(*SAFE)
    assert (status.state, status.completed_episodes, status.mean_episode_cost) == (CostStatus.STATE_OK, 3, 0.0)
    log = ros_graph.log(pilot.name)
    assert log.count("exceeds the limit") == 1 and log.count("within the limit again") == 1
    assert log.count("has cost 4, its limit is 3; it drives on") == pilot.episode - 4
    assert ros_graph.stop(pilot.name) == 0


def test_diagnostics_follow_the_state(ros_graph):
    pilot = Pilot(ros_graph, latch_stop=False, diagnostics_hz=5.0)
    for x, level in ((0.0, Level.OK), (7.0, Level.WARN)):
        pilot.run(0.0, x, x, x, x)
        pilot.reports.clear()
        while not any(report.status[0].level == level.value for report in pilot.reports):
            pilot.see(x)
    status = pilot.reports[-1].status[0]
    assert status.name == "cost_monitor: safety cost" and status.hardware_id == "point"
    assert {pair.key: pair.value for pair in status.values}["limit"] == "3"
    assert ros_graph.stop(pilot.name) == 0


def test_a_broken_limit_asks_for_a_snapshot_and_starts_what_the_operator_allowed(ros_graph):
    snapshots, requests = [], []

    def snapshot(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        snapshots.append(request)
        response.success, response.message = True, "written to snapshot_000"
        return response

    def unlearn(request: Unlearn.Request, response: Unlearn.Response) -> Unlearn.Response:
        requests.append(request.request)
        response.message = "another request is being worked on"
        return response

    ros_graph.node.create_service(Trigger, "box/snapshot", snapshot)
    ros_graph.node.create_service(Unlearn, "unlearn", unlearn)
    bags = {"suspect_bags": ["logs/bad"], "retain_bags": ["logs/good", "logs/better"]}
    pilot = Pilot(ros_graph, latch_stop=False, recorder="box", on_violation="start", **bags)
    proposals = ros_graph.collect("unlearn_proposal", UnlearnRequest, LATCHED)
    pilot.policy = "a" * 64
    pilot.run(*SAFE)
    assert not proposals and not snapshots
    while not requests:
        pilot.run(*BAD)
    ros_graph.wait_until(lambda: proposals and len(snapshots) > 0, "a proposal and a snapshot")
    assert list(proposals[0].forget_bags) == list(requests[0].forget_bags) == ["logs/bad"]
    assert list(proposals[0].retain_bags) == ["logs/good", "logs/better"] and not proposals[0].swap
    pilot.run(*BAD)
    words = "unlearning refused: another request is being worked on"
    ros_graph.wait_until(lambda: words in ros_graph.log(pilot.name), "the server's answer in the log")
    ros_graph.wait_until(lambda: "snapshot: written to snapshot_000" in ros_graph.log(pilot.name), "the recorder's")
    assert len(proposals) == len(requests) == 1, "a policy is accused once"
    assert ros_graph.stop(pilot.name) == 0


def test_what_led_to_a_violation_is_on_disk(ros_graph):
    """The recorder keeps the last seconds in memory; the monitor makes it write them."""
    path = ros_graph.folder / "point.yaml"
    path.write_text(POINT_SPEC, encoding="utf-8")
    logs = ros_graph.folder / "logs"
    ring = {"mode": "ring", "ring_seconds": 60.0, "snapshot_delay": 0.3}
    recorder = ros_graph.start("flight_recorder", spec=path, out_dir=logs, use_sim_time=True, **ring)
    ros_graph.configure(recorder)
    pilot = Pilot(ros_graph)
    ros_graph.activate(recorder)

    def written() -> list:
        """Return topic and message of all that is on disk."""
        bags = [metadata.parent for metadata in logs.rglob("metadata.yaml")]
        if not bags:
            return []
        with AnyReader(bags) as reader:
            return [(c.topic, reader.deserialize(data, c.msgtype)) for c, _, data in reader.messages()]

    while not {"/odom", "/cost_status", "/episode"} <= {topic for topic, _ in written()}:  # until all are connected
        pilot.run(*SAFE)
        assert ros_graph.call(Trigger, "flight_recorder/snapshot").success and pilot.episode < 50
    before = len(written())
    pilot.run(*SAFE)
    assert pilot.run(0.0, 9.0, 8.0, 7.0, 6.5).stop_latched
    while "snapshot: written to" not in ros_graph.log(pilot.name):  # time goes on: each tick dates what came before it
        assert pilot.time < 2000 * PERIOD, ros_graph.log(pilot.name) + ros_graph.log(recorder)
        pilot.see(0.0)
    messages = written()
    messages = messages[before:]
    states = [m.state for topic, m in messages if topic == "/cost_status"]
    assert CostStatus.STATE_OK in states and CostStatus.STATE_VIOLATED in states
    assert {9.0, 8.0, 7.0, 6.5} <= {m.pose.pose.position.x for topic, m in messages if topic == "/odom"}
    assert f"episode_{pilot.episode - 1}" in [m.frame_id for topic, m in messages if topic == "/episode"]
    assert True in [m.data for topic, m in messages if topic == "/safety_stop"]
    assert ros_graph.stop(pilot.name) == 0 and ros_graph.stop(recorder) == 0


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"spec": "nowhere.yaml"}, "nowhere.yaml: expected a readable YAML file"),
        ({"on_violation": "panic"}, "on_violation of cost_monitor: expected one of none, propose, start, found"),
    ],
)
def test_wrong_parameters_are_refused_with_the_reason(ros_graph, parameters, complaint):
    path = ros_graph.folder / "point.yaml"
    path.write_text(POINT_SPEC, encoding="utf-8")
    monitor = ros_graph.start("cost_monitor", **{"spec": path, **parameters})
    assert not ros_graph.change_state(monitor, 1)
    ros_graph.wait_until(lambda: complaint in ros_graph.log(monitor), f"{complaint} in the log")
    assert ros_graph.stop(monitor) == 0
