"""What a caller of the unlearn action can do wrong: the robot goes on with its policy, the answer says what to do.

A point without physics drives behind real nodes, over DDS; its policy and its bags are made here in seconds.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

import rclpy.action.client
from lifecycle_msgs.msg import Transition
from point_logs import drive
from rclpy.executors import InvalidHandle, SingleThreadedExecutor
from ros_testing import RosGraph
from sites import Site, make_site
from std_srvs.srv import Trigger

from saferule.action import Unlearn
from saferule.msg import CostStatus, PolicyStatus, TimeRange, UnlearnRequest, UnlearnResult
from saferule.srv import ListPolicies, Rollback, SwapPolicy
from saferule.srv import Unlearn as UnlearnService
from saferule_core.checkpoints import Checkpoints
from saferule_core.data.bags import write_bags
from saferule_core.spec import parse_spec
from saferule_core.store import Card, PolicyStore, bundle
from saferule_ros.client import NoAnswer, UnlearnClient
from saferule_ros.managed_node import spin_once


@dataclasses.dataclass
class Robot(Site):
    """A site with a bag and a policy that belong to another robot."""

    foreign: str
    other_policy: str


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    site = make_site(folder)
    spec = site.load()
    elsewhere = parse_spec(spec.text.replace("topic: odom", "topic: lidar_odom"))
    (foreign,) = write_bags(drive(elsewhere, 2, seed=3), elsewhere, folder / "foreign", episodes_per_bag=2)
    store = PolicyStore(site.store)
    other_spec = parse_spec(spec.text.replace("limit: 3.0", "limit: 2.0"))
    other = store.add(bundle.load_agent(store.path("active")), other_spec, Card(seed=0))
    return Robot(**vars(site), foreign=str(foreign), other_policy=other)


def start_server(graph, site, **parameters):
    """Start an unlearning_server; its worker gets the usual priority, as nothing here has to keep time."""
    usual = {"spec": site.spec, "store": site.store, "work_dir": graph.folder / "work", "worker_niceness": 0}
    return graph.start("unlearning_server", **{**usual, **parameters})


@pytest.fixture(scope="module")
def graph(tmp_path_factory, site):
    with RosGraph(tmp_path_factory.mktemp("graph")) as graph:
        robot = graph.start("sim_robot", spec=site.spec, real_time_factor=2.0)
        # No cost monitor runs here: where a test speaks in its place, it falls silent afterwards.
        executor = graph.start(
            "policy_executor", spec=site.spec, store=site.store, use_sim_time=True, monitor_timeout=0.0
        )
        server = start_server(graph, site, swap_timeout=5.0, work_dir=site.work, use_sim_time=True)
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


def worker_of(graph, server):
    """Return the process of the worker that a server has started."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            place = Path("/proc") / pid
            parent = int(place.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            if parent == graph.process_id(server) and b"saferule_core.cli" in place.joinpath("cmdline").read_bytes():
                return int(pid)
    raise AssertionError("no worker")


def assert_drives_on(graph, statuses, policy_id):
    """The robot still runs with this policy, and goes on ticking."""
    seen = len(statuses)
    graph.wait_until(lambda: len(statuses) > seen + 5, "further ticks")
    assert (statuses[-1].policy_id, statuses[-1].state) == (policy_id, PolicyStatus.STATE_RUNNING)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"forget_bags": ["/nowhere/bag"]}, UnlearnResult.STATUS_BAD_REQUEST, "/nowhere/bag: expected a rosbag2 bag"),
        ({"method": "magic"}, UnlearnResult.STATUS_BAD_REQUEST, "expected one of .*safe_rule.*found 'magic'"),
        ({"min_reward_kept": 1.5, "cost_limit": 0.001}, UnlearnResult.STATUS_REFUSED, "efused"),
    ],
)  # fmt: skip
def test_a_refused_request_leaves_the_robot_alone(graph, statuses, client, request_for, change, status, words):
    incumbent = statuses[-1].policy_id
    result = client.repair(request_for(**change), lambda _feedback: None)
    assert result.status == status, result.message
    assert re.search(words, result.message), result.message
    assert_drives_on(graph, statuses, incumbent)


def test_an_answer_that_comes_while_the_goal_is_still_being_sent_is_not_lost(client, request_for, monkeypatch):
    make = rclpy.action.client.Future

    def slowly():
        time.sleep(1.0)  # the server answers meanwhile
        return make()

    monkeypatch.setattr(rclpy.action.client, "Future", slowly)
    result = client.repair(request_for(forget_bags=["/nowhere/bag"]), lambda _feedback: None, answer_timeout_s=5.0)
    assert result.status == UnlearnResult.STATUS_BAD_REQUEST


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
    assert re.search("cancelled while (loading|unlearning|validating)", result.message), result.message
    assert_drives_on(graph, statuses, incumbent)


def test_a_swap_is_called_off_while_the_candidate_runs_beside_the_incumbent(tmp_path_factory, site, request_for):
    with RosGraph(tmp_path_factory.mktemp("shadow")) as graph:
        robot = graph.start("sim_robot", spec=site.spec, real_time_factor=2.0)
        executor = graph.start(
            "policy_executor", spec=site.spec, store=site.store, use_sim_time=True, monitor_timeout=0.0, shadow_s=3000.0
        )
        server = start_server(graph, site)
        graph.configure(executor, server, robot)
        graph.activate(executor, server, robot)
        statuses, client = graph.collect("policy_status", PolicyStatus), UnlearnClient(graph.node)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(client.repair(request_for(), lambda _feedback: None)))
        asking.start()
        graph.wait_until(lambda: statuses and statuses[-1].shadow_id, "the shadow")
        incumbent, candidate = statuses[-1].policy_id, statuses[-1].shadow_id
        client.cancel()
        asking.join(60.0)
        (result,) = answers
        assert result.status == UnlearnResult.STATUS_CANCELLED, result.message
        assert "cancelled while swapping" in result.message and result.candidate_id == candidate
        seen = len(statuses)
        graph.wait_until(lambda: len(statuses) > seen + 5, "further ticks")
        assert (statuses[-1].policy_id, statuses[-1].shadow_id) == (incumbent, "")
        assert PolicyStore(site.store).active() == incumbent


def test_a_damaged_card_is_said_and_does_not_end_the_server(graph, site):
    card = Path(site.store) / "policies" / site.other_policy / "card.json"
    whole = card.read_bytes()
    try:
        card.write_bytes(b"{")
        assert not graph.call(ListPolicies, "unlearning_server/list_policies").policy_ids
    finally:
        card.write_bytes(whole)
    assert site.other_policy in graph.call(ListPolicies, "unlearning_server/list_policies").policy_ids


def test_what_is_detected_is_told_in_feedback_and_result(client, request_for, site):
    told = []
    request = request_for(
        forget_bags=[], retain_bags=[*site.retain, *site.forget], detect=True, detect_max_share=0.2, swap=False
    )
    result = client.repair(request, lambda feedback: told.append((feedback.phase, list(feedback.detected))))
    assert result.status == UnlearnResult.STATUS_ACCEPTED, result.message
    assert result.detected and all(re.fullmatch(r"/.*/bag_00.: episode_\d+: .+", line) for line in result.detected)
    assert Unlearn.Feedback.PHASE_DETECTING in [phase for phase, _ in told]
    assert ([], list(result.detected)) == (told[0][1], told[-1][1])


def test_an_episode_is_forgotten_by_the_time_at_which_it_was_driven(client, request_for, site):
    bag = site.retain[0]
    beginning = TimeRange(bag=bag, start=0.0, end=0.1, from_beginning=True)
    result = client.repair(request_for(forget_bags=[], forget_ranges=[beginning], swap=False), lambda _feedback: None)
    assert result.status == UnlearnResult.STATUS_ACCEPTED, result.message
    kept = json.loads((Path(site.work) / result.request_id / "result.json").read_text())
    assert kept["forget_set"].startswith("1 (20 steps)") and kept["retain_set"].startswith("23 (")


def test_a_request_that_waits_is_served_after_the_first(tmp_path_factory, site, request_for):
    with RosGraph(tmp_path_factory.mktemp("queue")) as graph:
        server = start_server(graph, site, queue_length=1)
        graph.configure(server)
        graph.activate(server)
        heard, results = {}, {}

        def ask(name, client, request):
            results[name] = client.repair(request, lambda feedback: heard.setdefault(name, []).append(feedback.phase))

        first, second = UnlearnClient(graph.node), UnlearnClient(graph.node)
        asking = [
            threading.Thread(target=ask, args=("first", first, request_for(swap=False, validation_episodes=2000))),
            threading.Thread(target=ask, args=("second", second, request_for(swap=False))),
        ]
        asking[0].start()
        graph.wait_until(lambda: "first" in heard, "feedback of the first request")
        asking[1].start()
        graph.wait_until(lambda: Unlearn.Feedback.PHASE_WAITING in heard.get("second", ()), "the second to wait")
        third = UnlearnClient(graph.node).repair(request_for(swap=False), lambda _feedback: None)
        first.cancel()
        for thread in asking:
            thread.join(120.0)
        assert third.status == UnlearnResult.STATUS_BAD_REQUEST and "queue_length" in third.message
        assert results["first"].status == UnlearnResult.STATUS_CANCELLED
        assert results["second"].status == UnlearnResult.STATUS_ACCEPTED, results["second"].message


def test_the_server_decides_which_folders_are_read(tmp_path_factory, site, request_for):
    with RosGraph(tmp_path_factory.mktemp("roots")) as graph:
        roots = f"['{site.folder / 'retain'}']"
        server = start_server(graph, site, bag_roots=roots)
        graph.configure(server)
        graph.activate(server)
        result = UnlearnClient(graph.node).repair(request_for(swap=False), lambda _feedback: None)
        assert result.status == UnlearnResult.STATUS_BAD_REQUEST
        assert "forget/bag_000: expected a path inside" in result.message
        assert not [path for path in (graph.folder / "work").iterdir() if path.name != ".lock"]


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
    """The whole way: accepted, swapped, listed, and rolled back by the service."""
    incumbent, phases = statuses[-1].policy_id, []
    result = client.repair(request_for(), lambda feedback: phases.append(feedback.phase))
    assert result.status == UnlearnResult.STATUS_SWAPPED, result.message
    assert phases == sorted(phases) and len(set(phases)) >= 4
    assert_drives_on(graph, statuses, result.candidate_id)
    driven = next(number for number, status in enumerate(statuses) if status.policy_id == result.candidate_id)
    before, after = statuses[driven - 1], statuses[driven]
    assert before.policy_id == incumbent and after.swaps == before.swaps + 1
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


def test_only_nodes_that_need_it_listen_to_the_clock(graph):
    """At 100 Hz it would cost the server a good part of a core, for nothing."""
    listeners = {info.node_name for info in graph.node.get_subscriptions_info_by_topic("/clock")}
    assert "policy_executor" in listeners and not listeners & {"unlearning_server", "sim_robot"}


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


def test_after_a_restart_a_request_goes_on_where_the_server_died(tmp_path_factory, site, request_for):
    """The first server is killed while it validates; the second says so, and goes on when it is asked."""
    work = site.folder / "restart"
    with RosGraph(tmp_path_factory.mktemp("restart")) as graph:
        server = start_server(graph, site, work_dir=work)
        graph.configure(server)
        graph.activate(server)
        request = UnlearnService.Request(request=request_for(swap=False, validation_episodes=60))
        request_id = graph.call(UnlearnService, "unlearn", request).request_id
        graph.wait_until(lambda: len(Checkpoints(work / request_id).records("incumbent")) > 2, "driven episodes")
        graph.stop(server, signal.SIGKILL)
        driven = (work / request_id / "incumbent.jsonl").read_bytes()
    with RosGraph(tmp_path_factory.mktemp("restarted")) as graph:
        server = start_server(graph, site, work_dir=work)
        graph.configure(server)
        graph.activate(server)
        assert Checkpoints(work / request_id).failure.phase == "validating"
        status = graph.call(Trigger, "unlearning_server/status").message
        assert json.loads(status)["broken_off"] == {request_id: "validating: unlearning_server was stopped or killed"}
        phases = []
        client, asked = UnlearnClient(graph.node), UnlearnRequest(resume=request_id, swap=False)
        result = client.repair(asked, lambda feedback: phases.append(feedback.phase))
        assert result.status == UnlearnResult.STATUS_ACCEPTED, result.message
        assert result.request_id == request_id and Unlearn.Feedback.PHASE_UNLEARNING not in phases
        assert (work / request_id / "incumbent.jsonl").read_bytes().startswith(driven)
        again = client.repair(asked, lambda _feedback: None)
        assert again.status == UnlearnResult.STATUS_BAD_REQUEST
        assert "expected the id of a request that broke off (none)" in again.message


def test_a_worker_that_is_killed_ends_the_request_and_nothing_else(graph, statuses, client, request_for, site):
    incumbent, ids, killed = statuses[-1].policy_id, PolicyStore(site.store).ids(), []

    def kill(feedback):
        if feedback.phase == Unlearn.Feedback.PHASE_UNLEARNING and not killed:
            killed.append(worker_of(graph, "unlearning_server"))
            os.kill(killed[0], signal.SIGKILL)

    result = client.repair(request_for(method="safe_rule", seed=11), kill)
    assert result.status == UnlearnResult.STATUS_FAILED, result.message
    assert re.search("while (unlearning|validating): the worker was killed .SIGKILL", result.message), result.message
    assert f"resume: {result.request_id} goes on" in result.message
    left = Path(site.work) / result.request_id
    assert not list(left.glob(".*")) and not (left / "scratch").exists()
    assert not list((Path(site.store) / "policies").glob(".incoming*"))
    assert set(ids) <= set(PolicyStore(site.store).ids())
    assert_drives_on(graph, statuses, incumbent)


def test_a_request_that_the_service_started_is_cancelled_by_the_service(graph, request_for):
    request = UnlearnService.Request(request=request_for(validation_episodes=2000, swap=False))
    request_id = graph.call(UnlearnService, "unlearn", request).request_id
    assert graph.call(Trigger, "unlearning_server/cancel").success

    def ended():
        status = json.loads(graph.call(Trigger, "unlearning_server/status").message)
        return status["state"] == "done" and "cancelled while" in status["message"]

    graph.wait_until(ended, f"the end of {request_id}")
    assert not graph.call(Trigger, "unlearning_server/cancel").success


def test_a_server_that_is_deactivated_keeps_what_was_done_and_goes_on_by_itself(tmp_path_factory, site, request_for):
    work = site.folder / "deactivated"
    with RosGraph(tmp_path_factory.mktemp("deactivated")) as graph:
        server = start_server(graph, site, work_dir=work, resume_interrupted=True)
        graph.configure(server)
        graph.activate(server)
        request = UnlearnService.Request(request=request_for(swap=False, validation_episodes=40))
        folder = work / graph.call(UnlearnService, "unlearn", request).request_id
        graph.wait_until(lambda: Checkpoints(folder).phase == "validating", "validation")
        graph.deactivate(server)
        graph.wait_until(lambda: Checkpoints(folder).failure is not None, "the reason on disk")
        assert "unlearning_server was deactivated while validating" in Checkpoints(folder).failure.message
        graph.activate(server)
        graph.wait_until((folder / "result.json").exists, "the result of the same request")
        assert json.loads((folder / "result.json").read_text())["accepted"]


def test_two_servers_do_not_share_a_folder(graph, tmp_path_factory, site):
    with RosGraph(tmp_path_factory.mktemp("second")) as other:
        server = start_server(other, site, work_dir=site.work)
        assert not other.change_state(server, Transition.TRANSITION_CONFIGURE)
        assert "no other unlearning_server uses" in other.log(server)


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
