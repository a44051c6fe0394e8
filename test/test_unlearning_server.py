"""What a caller of the unlearn action can do wrong: the robot goes on with its policy, the answer says what to do.

A point without physics drives behind real nodes, over DDS; its policy and its bags are made here in seconds.
"""

import dataclasses
import re
import signal
import threading

import pytest

pytest.importorskip("rclpy")

import rclpy
from conftest import POINT_SPEC
from point_logs import SIMULATION, drive
from rclpy.executors import InvalidHandle, SingleThreadedExecutor
from ros_testing import RosGraph
from std_srvs.srv import Trigger

from saferule.msg import CostStatus, PolicyStatus, UnlearnRequest, UnlearnResult
from saferule.srv import ListPolicies, Rollback, SwapPolicy
from saferule.srv import Unlearn as UnlearnService
from saferule_core import agents
from saferule_core.data.bags import read_bags, write_bags
from saferule_core.spec import load_spec, parse_spec
from saferule_core.store import Card, PolicyStore
from saferule_ros.client import NoAnswer, UnlearnClient
from saferule_ros.managed_node import spin_once

pytestmark = pytest.mark.ros


@dataclasses.dataclass
class Site:
    """A folder with description, bags and policy store, as a robot would have it."""

    spec: str
    store: str
    retain: list
    forget: list
    foreign: str
    work: str
    other_policy: str


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    path = folder / "point.yaml"
    path.write_text(POINT_SPEC + SIMULATION, encoding="utf-8")
    spec = load_spec(path)
    retain = write_bags(drive(spec, 24, seed=1, reckless=0.2), spec, folder / "retain", episodes_per_bag=12)
    forget = write_bags(drive(spec, 6, seed=2, reckless=1.0), spec, folder / "forget", episodes_per_bag=6)
    elsewhere = parse_spec(spec.text.replace("topic: odom", "topic: lidar_odom"))
    foreign = write_bags(drive(elsewhere, 2, seed=3), elsewhere, folder / "foreign", episodes_per_bag=2)
    data = read_bags([*retain, *forget], spec).transitions
    agent = agents.train("return_conditioned", data, cost_limit=3.0, seed=0, steps=200)
    store = PolicyStore(folder / "store")
    store.activate(store.add(agent, spec, Card(seed=0)))
    other_spec = parse_spec(spec.text.replace("limit: 3.0", "limit: 2.0"))
    other = store.add(agent, other_spec, Card(seed=0))
    return Site(
        str(path), str(folder / "store"), [str(bag) for bag in retain], [str(bag) for bag in forget],
        str(foreign[0]), str(folder / "work"), other,
    )  # fmt: skip


def start_server(graph, site, **parameters):
    """Start an unlearning_server; its worker gets the usual priority, as nothing here has to keep time."""
    paths = {"spec": site.spec, "store": site.store, "work_dir": site.work}
    return graph.start("unlearning_server", **paths, worker_niceness=0, **parameters)


@pytest.fixture(scope="module")
def graph(tmp_path_factory, site):
    with RosGraph(tmp_path_factory.mktemp("graph")) as graph:
        robot = graph.start("sim_robot", spec=site.spec, real_time_factor=2.0)
        # No cost monitor runs here: where a test speaks in its place, it falls silent afterwards.
        executor = graph.start(
            "policy_executor", spec=site.spec, store=site.store, use_sim_time=True, monitor_timeout=0.0
        )
        server = start_server(graph, site, swap_timeout=5.0)
        graph.configure(executor, server, robot)
        graph.activate(executor, server, robot)
        yield graph


@pytest.fixture(scope="module")
def statuses(graph):
    statuses = graph.collect("policy_status", PolicyStatus)
    graph.wait_until(lambda: bool(statuses), "the executor's status")
    return statuses


@pytest.fixture
def client(graph):
    return UnlearnClient(graph.node)


@pytest.fixture
def request_for(site):
    """A request that is sound as long as nothing is changed in it; quick, as no test here is about learning."""

    def make(**changes):
        fields = {
            "forget_bags": site.forget, "retain_bags": site.retain, "method": "finetune", "seed": 1,
            "min_reward_kept": 0.0, "confidence": 0.9, "validation_episodes": 3, "swap": True, "cost_limit": 20.0,
        }  # fmt: skip
        return UnlearnRequest(**{**fields, **changes})

    return make


def assert_drives_on(graph, statuses, policy_id):
    """The robot still runs with this policy, and goes on ticking."""
    seen = len(statuses)
    graph.wait_until(lambda: len(statuses) > seen + 5, "further ticks")
    assert (statuses[-1].policy_id, statuses[-1].state) == (policy_id, PolicyStatus.STATE_RUNNING)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"forget_bags": ["/nowhere/bag"]}, UnlearnResult.STATUS_BAD_REQUEST, "/nowhere/bag: expected a rosbag2 bag"),
        ({"forget_bags": []}, UnlearnResult.STATUS_BAD_REQUEST, "name the bags to forget"),
        ({"retain_bags": []}, UnlearnResult.STATUS_BAD_REQUEST, "retain set: expected at least one bag"),
        ({"method": "magic"}, UnlearnResult.STATUS_BAD_REQUEST, "expected one of .*safe_rule.*found 'magic'"),
        ({"confidence": 2.0}, UnlearnResult.STATUS_BAD_REQUEST, "confidence"),
        ({"min_reward_kept": 1.5, "cost_limit": 0.001}, UnlearnResult.STATUS_REFUSED, "efused"),
    ],
)  # fmt: skip
def test_a_refused_request_leaves_the_robot_alone(graph, statuses, client, request_for, change, status, words):
    incumbent = statuses[-1].policy_id
    result = client.repair(request_for(**change), lambda _feedback: None)
    assert result.status == status, result.message
    assert re.search(words, result.message), result.message
    assert_drives_on(graph, statuses, incumbent)


def test_forgetting_everything_that_is_retained_is_refused(graph, statuses, client, request_for, site):
    incumbent = statuses[-1].policy_id
    result = client.repair(request_for(forget_bags=site.retain), lambda _feedback: None)
    assert result.status == UnlearnResult.STATUS_BAD_REQUEST
    assert "nothing is left to learn from" in result.message
    assert_drives_on(graph, statuses, incumbent)


def test_a_bag_without_the_needed_topics_is_named(graph, statuses, client, request_for, site):
    incumbent = statuses[-1].policy_id
    result = client.repair(request_for(forget_bags=[site.foreign]), lambda _feedback: None)
    assert result.status == UnlearnResult.STATUS_BAD_REQUEST
    assert site.foreign in result.message and "odom" in result.message
    assert_drives_on(graph, statuses, incumbent)


def test_a_policy_for_another_description_is_not_swapped_in(graph, statuses, site):
    incumbent = statuses[-1].policy_id
    request = SwapPolicy.Request(policy_id=site.other_policy, reason="test")
    answer = graph.call(SwapPolicy, "policy_executor/swap_policy", request)
    assert not answer.success
    assert "another robot description" in answer.message
    assert_drives_on(graph, statuses, incumbent)


def test_cancel_stops_the_worker_and_changes_nothing(graph, statuses, client, request_for):
    incumbent = statuses[-1].policy_id
    result = client.repair(request_for(validation_episodes=2000), lambda _feedback: client.cancel())
    assert result.status == UnlearnResult.STATUS_CANCELLED, result.message
    assert_drives_on(graph, statuses, incumbent)


def test_one_request_at_a_time_and_status_tells_how_it_goes(graph, client, request_for):
    begun, results = threading.Event(), []
    request = request_for(validation_episodes=2000)
    first = threading.Thread(target=lambda: results.append(client.repair(request, lambda _feedback: begun.set())))
    first.start()
    graph.wait_until(begun.is_set, "feedback of the first request")
    second = UnlearnClient(graph.node).repair(request_for(), lambda _feedback: None)
    by_service = graph.call(UnlearnService, "unlearn", UnlearnService.Request(request=request_for()))
    status = graph.call(Trigger, "unlearning_server/status")
    client.cancel()
    first.join(60.0)
    assert second.status == UnlearnResult.STATUS_BAD_REQUEST
    assert "another request is being served" in second.message
    assert not by_service.accepted and "another request" in by_service.message
    assert '"state": "running"' in status.message
    assert results[0].status == UnlearnResult.STATUS_CANCELLED


def test_swap_between_ticks_list_and_roll_back(graph, statuses, client, request_for):
    """The whole way: accepted, swapped without a missed tick, listed, and rolled back by the service."""
    incumbent, missed = statuses[-1].policy_id, statuses[-1].missed_ticks
    phases = []
    result = client.repair(request_for(), lambda feedback: phases.append(feedback.phase))
    assert result.status == UnlearnResult.STATUS_SWAPPED, result.message
    assert phases == sorted(phases) and len(set(phases)) >= 4
    assert_drives_on(graph, statuses, result.candidate_id)
    assert statuses[-1].swaps >= 1
    assert statuses[-1].missed_ticks == missed
    listed = graph.call(ListPolicies, "unlearning_server/list_policies")
    assert (listed.active_id, listed.previous_id) == (result.candidate_id, incumbent)
    assert listed.parents[list(listed.policy_ids).index(result.candidate_id)] == incumbent
    back = graph.call(Rollback, "unlearning_server/rollback", Rollback.Request(reason="test"))
    assert back.success, back.message
    assert back.active_id == incumbent
    assert_drives_on(graph, statuses, incumbent)


def test_a_policy_that_breaks_its_limit_on_probation_is_rolled_back(graph, statuses, client, request_for):
    """The test speaks as the cost monitor; the incumbent was safe in validation, so it drives again by itself."""
    incumbent = statuses[-1].policy_id
    result = client.repair(request_for(), lambda _feedback: None)
    assert result.status == UnlearnResult.STATUS_SWAPPED, result.message
    graph.wait_until(lambda: statuses[-1].policy_id == result.candidate_id, "the candidate to drive")
    monitor = graph.node.create_publisher(CostStatus, "cost_status", 10)
    verdict = CostStatus(
        policy_id=result.candidate_id, completed_episodes=2, mean_episode_cost=50.0, violation_confirmed=True
    )

    def rolled_back():
        monitor.publish(verdict)
        return statuses[-1].policy_id == incumbent

    graph.wait_until(rolled_back, "the incumbent to drive again")
    listed = "unlearning_server/list_policies"
    graph.wait_until(lambda: graph.call(ListPolicies, listed).active_id == incumbent, "the store to follow")


def test_hold_and_resume(graph, statuses):
    graph.call(Trigger, "policy_executor/hold")
    graph.wait_until(lambda: statuses[-1].state == PolicyStatus.STATE_HOLDING, "the executor to hold")
    graph.call(Trigger, "policy_executor/resume")
    graph.wait_until(lambda: statuses[-1].state == PolicyStatus.STATE_RUNNING, "the executor to go on")


def test_without_an_executor_nothing_is_unlearned(tmp_path_factory, site, request_for):
    with RosGraph(tmp_path_factory.mktemp("alone")) as alone:
        server = start_server(alone, site, swap_timeout=0.5)
        alone.configure(server)
        alone.activate(server)
        result = UnlearnClient(alone.node).repair(request_for(), lambda _feedback: None)
        assert result.status == UnlearnResult.STATUS_UNREACHABLE
        assert "start it, or send the request with swap: false" in result.message
        assert alone.stop(server) == 0


def test_an_inactive_server_says_how_to_activate_it(tmp_path_factory, site, request_for):
    with RosGraph(tmp_path_factory.mktemp("inactive")) as alone:
        alone.configure(start_server(alone, site))
        result = UnlearnClient(alone.node).repair(request_for(), lambda _feedback: None)
        assert result.status == UnlearnResult.STATUS_BAD_REQUEST
        assert "activate" in result.message


def test_a_caller_hears_that_the_server_died(tmp_path_factory, site, request_for):
    with RosGraph(tmp_path_factory.mktemp("dying")) as alone:
        server = start_server(alone, site)
        alone.configure(server)
        alone.activate(server)
        heard, ended = threading.Event(), []

        def ask():
            try:
                UnlearnClient(alone.node).repair(request_for(swap=False), lambda _feedback: heard.set())
            except NoAnswer as error:
                ended.append(str(error))

        asking = threading.Thread(target=ask)
        asking.start()
        assert heard.wait(30.0)
        alone.stop(server, signal.SIGKILL)
        asking.join(60.0)
        assert ended and "unlearning_server is gone" in ended[0]


def test_a_part_that_another_thread_destroys_does_not_end_a_node(graph):
    """A subscription's event handler is destroyed, and rclpy still finds it in the node: the moment of the race."""
    node = rclpy.create_node("restless", context=graph.node.context)
    executor = SingleThreadedExecutor(context=graph.node.context)
    executor.add_node(node)
    subscription = node.create_subscription(PolicyStatus, "policy_status", lambda _status: None, 1)
    for handler in subscription.event_handlers:
        handler.destroy()
    with pytest.raises(InvalidHandle):
        executor.spin_once(timeout_sec=0.1)
    spin_once(executor, 0.1)
    node.destroy_subscription(subscription)
    ticks = []
    node.create_timer(0.01, lambda: ticks.append(1))
    graph.wait_until(lambda: spin_once(executor, 0.1) or len(ticks) > 3, "a timer of the node")
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()
