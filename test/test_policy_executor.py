"""The executor as a process: what a policy is told, and what its loop does when clock, inputs or monitor misbehave."""

import contextlib
import itertools
import os
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from conftest import POINT_SPEC
from executor_bench import EXECUTOR, PERIOD_NS, Bench, constant_agent
from geometry_msgs.msg import WrenchStamped
from lifecycle_msgs.msg import Transition
from nav_msgs.msg import Odometry
from rclpy.callback_groups import ReentrantCallbackGroup
from ros_testing import ROOT, RosGraph, nanoseconds, write_yaml_of_point_robot
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from saferule.msg import PolicyStatus
from saferule_core import agents
from saferule_core.agents.memory import Memory
from saferule_core.control.statistics import LATENESS_EDGES_S
from saferule_core.data.ranges import ObservationRanges
from saferule_core.probation import Probation
from saferule_core.signals import SignalReader
from saferule_core.spec import load_spec
from saferule_core.store import Card, PolicyStore
from saferule_core.store.standing import marks_of
from saferule_ros.handover import Handover, HandoverError
from saferule_ros.messages import STATUS
from saferule_ros.policy_executor import schedule

pytestmark = pytest.mark.timed

STEPS, EPISODES = 20, 2


def test_commands_are_those_of_a_memory_that_begins_with_each_episode(ros_graph, tmp_path, point_yaml):
    path = write_yaml_of_point_robot(tmp_path / "point.yaml", point_yaml)
    spec, store = load_spec(path), PolicyStore(tmp_path / "store")
    torch.manual_seed(0)
    agent = agents.build("decision_transformer", spec.obs_dim, spec.action_dim, {"context": 6})
    store.activate(store.add(agent, spec, Card(seed=0, created="2026-01-01")))
    robot = ros_graph.start("sim_robot", spec=path, real_time_factor=2.0, episodes=EPISODES)
    executor = ros_graph.start("policy_executor", spec=path, store=store.root, use_sim_time=True)
    states, commands = ros_graph.collect("odom", Odometry), ros_graph.collect("cmd_force", WrenchStamped)
    ros_graph.configure(robot, executor)
    ros_graph.wait_for_readers("odom", 2)
    ros_graph.wait_for_readers("episode", 1)
    ros_graph.activate(executor, robot)
    ros_graph.wait_until(lambda: f"drove {EPISODES} episodes" in ros_graph.log(robot), "the drive's end")

    seen = {nanoseconds(state.header.stamp): state for state in states}
    begins = sorted(seen)[:: STEPS + 1]
    reader, memory, chosen, sent = SignalReader(spec), Memory(5, spec.obs_dim, spec.action_dim), [], []
    for command in commands:
        now = nanoseconds(command.header.stamp)
        if now not in seen:  # before the first state, and when the robot stood still after the last
            continue
        if now in begins:
            memory.clear()
        applied = {"force_x": command.wrench.force.x, "force_y": command.wrench.force.y}
        if not sent and applied["force_x"] == 0.0:  # the first state came after the first tick
            continue
        reader.update("odom", seen[now], now)
        observation = spec.observe(reader.physical(now))[None]
        chosen.append(spec.command(agent.act(observation, memory)[0])["force_x"])
        sent.append(applied["force_x"])
        memory.add(observation, spec.normalise_action(applied)[None])
    assert len(sent) > EPISODES * STEPS
    np.testing.assert_allclose(sent, chosen, atol=1e-4)


# -- one period after the other ------------------------------------------------------------------------------------


@dataclass
class Site:
    """Policies that always act the same in a store, and the running executor; `alike` acts nearly as `first` does."""

    bench: Bench
    store: PolicyStore
    first: str
    second: str
    alike: str
    third: str


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    path = write_yaml_of_point_robot(folder / "point.yaml", POINT_SPEC)
    spec, store = load_spec(path), PolicyStore(folder / "store")
    ranges = ObservationRanges((-0.5,) + (-9.0,) * 4, (0.5,) + (9.0,) * 4)
    made = [
        store.add(constant_agent(spec, value), spec, Card(seed=0, created="2026-01-01", ranges=ranges))
        for value in (0.5, -0.5, 0.49, 0.3)
    ]
    with RosGraph(folder) as graph:
        graph.start("policy_executor", spec=path, store=store.root, use_sim_time=True, monitor_timeout=0.3)
        yield Site(Bench(graph), store, *made)


@pytest.fixture
def site(placed):
    """The first policy drives."""
    placed.store.activate(placed.first, force=True)
    placed.bench.begin()
    yield placed
    placed.bench.end()


def test_the_loop_measures_itself(site):
    status = site.bench.steps(5)[-1]
    assert sum(status.lateness_histogram) == status.ticks
    assert len(status.lateness_histogram) == len(LATENESS_EDGES_S) + 1
    assert (status.missed_ticks, status.clock_jumps) == (0, 0)
    assert 0.0 < status.mean_inference <= status.worst_inference < status.worst_compute
    assert 1 <= status.worst_tick <= status.ticks
    assert list(status.input_names) == ["x", "y", "heading"] and max(status.input_ages) < 0.35


def test_a_pause_makes_no_ticks_and_nothing_is_missed(site):
    bench = site.bench
    ticks = bench.step().ticks
    for _ in range(5):
        bench.publish_clock()  # time is told, and stands still
        time.sleep(0.05)
    status = bench.step()
    assert (status.ticks, status.missed_ticks, status.state) == (ticks + 1, 0, PolicyStatus.STATE_RUNNING)
    assert status.interval > 0.2


def test_a_jump_back_makes_no_burst_and_the_loop_waits_for_sensors_of_the_new_time(site):
    bench = site.bench
    ticks = bench.steps(20)[-1].ticks
    bench.now_ns -= 15 * PERIOD_NS
    bench.publish_clock()  # the timer is set to a period later
    time.sleep(0.05)
    status = bench.step(sensors=False)
    assert (status.state, status.ticks, bench.force()) == (PolicyStatus.STATE_WAITING, ticks + 1, 0.0)
    status = bench.until(PolicyStatus.STATE_RUNNING, "the policy to drive in the new time")
    assert (status.missed_ticks, status.clock_jumps) == (0, 1)
    assert status.ticks <= ticks + 4


def test_a_jump_ahead_makes_one_tick_and_not_a_burst(site):
    bench = site.bench
    ticks = bench.steps(5)[-1].ticks
    bench.now_ns += 100 * PERIOD_NS
    assert bench.step(sensors=False).ticks == ticks + 1
    assert bench.step().ticks == ticks + 2


def test_the_monitors_stop_latches_until_it_is_released_and_somebody_resumes(site):
    bench = site.bench
    bench.stop(True)
    assert "cost monitor" in bench.until(PolicyStatus.STATE_STOPPED, "the stop").message
    assert bench.force() == 0.0
    refused = bench.resume()
    assert not refused.success and "reset_stop" in refused.message
    bench.stop(False)
    assert {status.state for status in bench.steps(5)} == {PolicyStatus.STATE_STOPPED}
    assert bench.resume().success
    assert bench.step().state == PolicyStatus.STATE_RUNNING


def test_a_monitor_that_falls_silent_stops_the_robot_but_a_pause_does_not(site):
    bench = site.bench
    bench.monitor(site.first)
    bench.step()
    time.sleep(0.4)
    assert bench.step().state == PolicyStatus.STATE_RUNNING
    status = bench.until(PolicyStatus.STATE_STOPPED, "the stop")
    assert "silence" in status.message and bench.force() == 0.0
    assert "silent" in bench.resume().message
    bench.monitor(site.first)
    bench.step()
    assert bench.resume().success


def test_observations_beyond_the_training_data_are_told(site):
    status = site.bench.steps(2, x=30.0)[-1]
    assert status.state == PolicyStatus.STATE_RUNNING
    assert "x 3" in status.message and status.ood_ticks >= 1


def test_a_swap_is_blended_over_its_ticks(site):
    bench = site.bench
    answer = bench.swap(site.second, blend_ticks=30)
    assert answer.success, answer.message
    bench.steps(31)
    first = next(nanoseconds(status.header.stamp) for status in bench.statuses if status.policy_id == site.second)
    forces = [sent.wrench.force.x for sent in bench.commands if nanoseconds(sent.header.stamp) >= first]
    assert all(-3.5 * 0.51 < after <= before for before, after in itertools.pairwise(forces))
    assert bench.force() == pytest.approx(-3.5 / 2, abs=1e-3)


def test_a_candidate_that_acts_otherwise_is_refused_by_its_shadow(site):
    bench = site.bench
    answer = bench.swap(site.second, shadow_s=0.5)
    assert not answer.success and "the incumbent's" in answer.message
    told = [status for status in bench.statuses if status.shadow_id == site.second]
    assert told and told[-1].shadow_worst == pytest.approx(1.0, abs=1e-3)
    assert bench.step().policy_id == site.first


def test_a_shadow_is_alone_and_ends_with_the_deactivation(site):
    bench = site.bench
    first = bench.ask_for_swap(site.alike, shadow_s=600.0)
    bench.graph.wait_until(lambda: bench.step().shadow_ticks > 2, "the shadow to run")
    second = bench.swap(site.second)
    assert not second.success and "another policy" in second.message
    bench.graph.deactivate("policy_executor")
    bench.graph.wait_until(first.done, "the answer")
    assert not first.result().success and "deactivated" in first.result().message
    endless = bench.ask_for_swap(site.first, probation_s=float("inf"))
    bench.graph.wait_until(endless.done, "the answer")
    assert "probation_s: expected a finite number" in endless.result().message
    inactive = bench.ask_for_swap(site.alike, shadow_s=1.0)
    bench.graph.wait_until(inactive.done, "the answer")
    assert "a robot that drives" in inactive.result().message
    bench.graph.activate("policy_executor")


def test_a_candidate_that_acts_alike_takes_over_after_its_shadow(site):
    before = site.bench.step().ticks
    answer = site.bench.swap(site.alike, shadow_s=0.5)
    assert answer.success, answer.message
    assert answer.tick >= before + 5


@contextlib.contextmanager
def handover_of(site, timeout_s=30.0):
    group = ReentrantCallbackGroup()
    handover = Handover(site.bench.graph.node, site.store, EXECUTOR, timeout_s=timeout_s, callback_group=group)
    yield handover
    handover.close()


def test_the_handover_passes_the_terms_of_a_probation_on(site):
    with handover_of(site) as handover:
        tick = handover.swap(site.second, "test", probation_s=60.0, probation_limit=2.0)
    status = site.bench.step()
    assert (status.policy_id, status.last_swap_tick) == (site.second, tick)
    assert status.probation_id == site.second and 50.0 < status.probation_left <= 60.0


def test_episodes_of_a_robot_that_is_held_do_not_pass_a_probation(site):
    bench, store = site.bench, site.store
    with handover_of(site) as handover:
        handover.swap(site.third, "test")
        store.activate(site.third, force=True)
        handover.begin_probation(Probation(site.third, site.first, incumbent_cost=0.0, cost_limit=3.0, episodes=2))
        bench.graph.wait_for_readers("cost_status", 2)
        bench.graph.call(Trigger, f"{EXECUTOR}/hold")
        for completed in range(5):
            bench.step()
            bench.monitor(site.third, completed_episodes=completed, mean_episode_cost=0.0)
        bench.monitor(site.third, completed_episodes=6, mean_episode_cost=9.0, violation_confirmed=True)
        bench.graph.wait_until(lambda: bench.step().policy_id == site.first, "the first policy to drive again")
    assert "rejected" in bench.swap(site.third).message


def test_the_handover_waits_for_a_shadow_of_any_length(site):
    """Whose length the executor's parameter may say, and whose time is the robot's: here it takes several time-outs."""
    bench = site.bench
    with handover_of(site, timeout_s=0.3) as handover, ThreadPoolExecutor(1) as aside:
        answer = aside.submit(handover.swap, site.alike, "test", shadow_s=3.0)
        begun = time.monotonic()
        bench.graph.wait_until(lambda: bench.step().shadow_ticks > 2, "the shadow to run")
        while time.monotonic() - begun < 2.0:
            bench.publish_clock()  # time stands still, the answer does not come
            time.sleep(0.05)
        bench.graph.wait_until(lambda: bench.step() and answer.done(), "the end of the shadow")
    assert answer.result() == bench.step().last_swap_tick
    assert bench.statuses[-1].policy_id == site.alike


def test_a_handover_is_called_off_while_the_candidate_runs_beside_the_incumbent(site):
    bench = site.bench
    with handover_of(site) as handover, ThreadPoolExecutor(1) as aside:
        answer = aside.submit(handover.swap, site.alike, "test", shadow_s=600.0)
        bench.graph.wait_until(lambda: bench.step().shadow_ticks > 2, "the shadow to run")
        handover.call_off(site.first, "cancelled")
        with pytest.raises(HandoverError, match="called off: cancelled"):
            answer.result(timeout=60.0)
    status = bench.step()
    assert (status.policy_id, status.shadow_id, status.state) == (site.first, "", PolicyStatus.STATE_RUNNING)


def test_a_probation_without_a_limit_of_its_own_has_a_tighter_one_than_the_robot(site):
    bench = site.bench
    assert bench.swap(site.alike, probation_s=600.0).success
    for step, cost in enumerate((0.0, 1.0, 1.0, 0.5)):  # 2.5 of the 3 that the description allows; 0.8 of those are 2.4
        assert bench.step().policy_id == site.alike
        bench.monitor(site.alike, step=step, cost=cost)
    bench.graph.wait_until(lambda: bench.step().policy_id == site.first, "the first policy to drive again")


def test_a_violation_on_probation_swaps_back_and_the_store_follows(site):
    bench, store = site.bench, site.store
    answer = bench.swap(site.second, probation_s=600.0, probation_limit=2.0)
    assert answer.success, answer.message
    store.activate(site.second, force=True)
    assert bench.step().probation_id == site.second
    for step, cost in enumerate((0.0, 1.0, 1.0, 1.0)):
        bench.monitor(site.second, step=step, cost=cost)
    bench.graph.wait_until(lambda: bench.step().policy_id == site.first, "the first policy to drive again")
    assert (bench.statuses[-1].rejected_id, bench.statuses[-1].reverts) == (site.second, 1)
    bench.graph.wait_until(lambda: store.active() == site.first, "the store to follow")
    marks = marks_of(store.history.verified())[site.second]
    assert any(mark.kind == "rejected" and "failed its probation" in mark.why for mark in marks)
    assert "rejected" in bench.swap(site.second).message


# -- without simulated time: ticks follow a steady clock, stamps the system's -----------------------------------------

BREAKS = """
from saferule_ros.policy_executor import PolicyExecutor, run

class Breaking(PolicyExecutor):
    def _report(self, tick):
        if tick.inference_s and tick.number > 5:
            raise RuntimeError("a defect")

run(Breaking, "policy_executor")
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "error"])
def test_an_executor_that_ends_leaves_the_safe_command(ros_graph, tmp_path, how, point_yaml):
    path = write_yaml_of_point_robot(tmp_path / "point.yaml", point_yaml)
    spec, store = load_spec(path), PolicyStore(tmp_path / "store")
    store.activate(store.add(constant_agent(spec, 0.5), spec, Card(seed=0, created="2026-01-01")))
    parameters = f"-p spec:={path} -p store:={store.root} -p input_timeout:=60.0".split()
    program = ["-c", BREAKS] if how == "error" else ["-m", "saferule_ros.policy_executor"]
    ros_graph.start_command("policy_executor", [sys.executable, *program, "--ros-args", *parameters])
    bench = Bench(ros_graph)
    ros_graph.configure("policy_executor")
    ros_graph.wait_for_readers("odom", 1)
    ros_graph.activate("policy_executor")

    def driven():
        return [sent for sent in bench.commands if sent.wrench.force.x == pytest.approx(3.5 / 2, abs=1e-3)]

    patience = time.monotonic() + 60.0
    while len(driven()) < 7 and bench.states()[-1:] != [PolicyStatus.STATE_INACTIVE] and time.monotonic() < patience:
        bench.now_ns = time.time_ns()
        bench.publish_odometry()
        time.sleep(0.01)
    assert driven(), ros_graph.log("policy_executor")
    assert (ros_graph.stop("policy_executor", signal.SIGINT if how == "error" else how) == 0) == (how != "error")
    while bench.states()[-1:] != [PolicyStatus.STATE_INACTIVE] and time.monotonic() < patience:
        time.sleep(0.01)
    assert (bench.states()[-1], bench.force()) == (PolicyStatus.STATE_INACTIVE, 0.0)
    summary = re.search(r"(\d+) ticks: (\d+) periods missed", ros_graph.log("policy_executor"))
    assert summary and int(summary[1]) >= 5


WATCHED = """
import gc
import torch
from saferule_ros.policy_executor import PolicyExecutor, run

class Watched(PolicyExecutor):
    def _report(self, tick):
        super()._report(tick)
        if tick.number == 5:
            self.get_logger().info(f"in a tick: collector {gc.isenabled()}, {torch.get_num_threads()} threads")

    def cleanup(self):
        super().cleanup()
        self.get_logger().info(f"afterwards: collector {gc.isenabled()}")

run(Watched, "policy_executor")
"""


def test_a_tick_is_free_of_garbage_collection_and_a_shutdown_leaves_the_safe_command(ros_graph, tmp_path, point_yaml):
    path = write_yaml_of_point_robot(tmp_path / "point.yaml", point_yaml)
    spec, store = load_spec(path), PolicyStore(tmp_path / "store")
    store.activate(store.add(constant_agent(spec, 0.5), spec, Card(seed=0, created="2026-01-01")))
    parameters = f"-p spec:={path} -p store:={store.root} -p use_sim_time:=true".split()
    ros_graph.start_command("policy_executor", [sys.executable, "-c", WATCHED, "--ros-args", *parameters])
    bench = Bench(ros_graph)
    bench.begin()
    bench.steps(6)
    assert bench.force() == pytest.approx(3.5 / 2, abs=1e-3)
    assert ros_graph.change_state("policy_executor", Transition.TRANSITION_ACTIVE_SHUTDOWN)
    ros_graph.wait_until(lambda: bench.force() == 0.0, "the safe command")
    assert bench.states()[-1] == PolicyStatus.STATE_INACTIVE
    log = ros_graph.log("policy_executor")
    assert "in a tick: collector False, 1 threads" in log and "afterwards: collector True" in log
    assert ros_graph.stop("policy_executor") == 0


def test_a_message_that_does_not_fit_is_ignored_and_the_age_of_the_others_tells(ros_graph, tmp_path):
    """Joint states of a gripper come on the topic that the arm's come on."""
    spec, store = load_spec(ROOT / "config" / "panda_reach.yaml"), PolicyStore(tmp_path / "store")
    store.activate(store.add(constant_agent(spec, 0.5), spec, Card(seed=0, created="2026-01-01")))
    ros_graph.start("policy_executor", spec=spec.source, store=store.root)
    statuses = ros_graph.collect("policy_status", PolicyStatus)
    (topic,) = [name for name, kind in spec.sensor_topics.items() if kind == "sensor_msgs/msg/JointState"]
    joints = ros_graph.node.create_publisher(JointState, topic, STATUS)
    ros_graph.configure("policy_executor")
    ros_graph.wait_for_readers(topic, 1)
    ros_graph.activate("policy_executor")
    joints.publish(JointState(name=["finger_1", "finger_2"], position=[0.0, 0.0], velocity=[0.0, 0.0]))
    ros_graph.wait_until(lambda: "such messages are ignored" in ros_graph.log("policy_executor"), "a warning")
    seen = len(statuses)
    ros_graph.wait_until(lambda: len(statuses) > seen + 5, "further ticks")
    assert statuses[-1].state == PolicyStatus.STATE_WAITING
    assert ros_graph.stop("policy_executor") == 0


def test_a_thread_in_a_hurry_does_not_pass_it_on():
    classes = []

    def work():
        try:
            schedule(1)
        except OSError:
            return
        child = threading.Thread(target=lambda: classes.append(os.sched_getscheduler(0)))
        child.start()
        child.join()
        classes.append(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)
        schedule(0)
        classes.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if not classes:
        pytest.skip("this user may not use real-time scheduling")
    assert classes == [os.SCHED_OTHER, os.SCHED_FIFO, os.SCHED_OTHER]
