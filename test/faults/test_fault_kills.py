"""kill -9 of every process at random moments, while policies are exchanged: whole policies and bounded commands always.

A thread swaps and activates policies all the time, and another one loads what is active, as an executor that starts
would. Of the nodes only the executor commands the robot; without it the robot hears nothing.
"""

import os
import random
import threading
import time

import pytest

pytest.importorskip("rclpy")

from figures import record, spread, times
from rig import ACTIONS, NotUp, Rig, add_constant_policy

from saferule.msg import PolicyStatus
from saferule_core.data.recording import RESERVED_BYTES
from saferule_core.store import bundle
from saferule_core.store.checking import check_store

pytestmark = pytest.mark.timed

RATE_HZ = 20.0
MONITOR_TIMEOUT_S = 0.5
WATCHED = {"monitor_timeout": MONITOR_TIMEOUT_S, "require_monitor": True}
"""Without `require_monitor`, a monitor that dies before the executor has ever heard it is not missed."""
NODES = ("policy_executor", "cost_monitor", "flight_recorder", "unlearning_server")


class Background(threading.Thread):
    """Does one thing over and over until the end; what it raises is kept."""

    def __init__(self, work, pause_s):
        super().__init__(daemon=True)
        self.done, self.errors, self._work, self._pause_s = 0, [], work, pause_s
        self._ended = threading.Event()

    def run(self):
        while not self._ended.wait(self._pause_s):
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody must see it
                self.errors.append(error)
            self.done += 1

    def end(self):
        self._ended.set()
        self.join(30.0)


@pytest.fixture
def rig(tmp_path):
    with Rig(tmp_path, RATE_HZ) as rig:
        rig.start("flight_recorder", "cost_monitor")
        rig.start("policy_executor", **WATCHED)
        rig.start("unlearning_server")
        rig.robot.begin_episode("episode_0")
        rig.rearm()
        yield rig


def restart(rig, node):
    """Start a node as what supervises nodes on a robot does; say so where that takes a second try."""
    parameters = WATCHED if node == "policy_executor" else {}
    try:
        rig.start(node, **parameters)
        return ""
    except NotUp as error:
        if not rig.has_ended(node):
            rig.kill(node)
        rig.start(node, **parameters)
        return str(error).splitlines()[0]


def test_kills_at_random_moments_leave_whole_policies_and_bounded_commands(rig):
    draw, kills = random.Random(0), int(os.environ.get("SAFERULE_KILLS", times(4, 200)))
    silent_monitor, without_executor, stops_of_others, second_tries = [], [], [], []
    chosen = [NODES[number % len(NODES)] for number in range(kills)]
    draw.shuffle(chosen)
    policies = list(rig.policies.values())

    def exchange():
        """Let another policy drive and make it the active one, as the unlearning server does after a repair."""
        if len(policies) < 12:
            policies.append(add_constant_policy(rig.store, rig.spec, draw.choice(list(ACTIONS.values()))))
        wanted = draw.choice(policies)
        if rig.ask_for(wanted, 1.0):
            rig.store.activate(wanted, reason="test")

    reader = Background(lambda: bundle.load_policy(rig.store.root / "active", rig.spec), 0.01)
    swapper = Background(exchange, 0.1)
    reader.start()
    swapper.start()
    for node in chosen:
        time.sleep(draw.uniform(0.0, 0.3))
        rig.kill(node)
        killed_at, heard = time.monotonic(), len(rig.robot.commands)
        if node == "cost_monitor":
            rig.wait_until(lambda: rig.robot.stopped, "the robot to stop without its monitor", 20.0)
            after = [c for c in rig.robot.commands[heard:] if c.at > killed_at]
            silent_monitor.append(1 + sum(c.x != 0.0 for c in after))
        elif node != "policy_executor":
            rig.wait_for_ticks(3)
            if not rig.is_driving():  # DDS may be held up for a moment by a process that died in its shared memory
                stops_of_others.append(rig.robot.statuses[-1].message)
                assert rig.robot.stopped
        if trouble := restart(rig, node):
            second_tries.append(trouble)
        if node == "policy_executor":
            rig.wait_until(lambda heard=heard: len(rig.robot.commands) > heard + 1, "commands again")
            without_executor.append(rig.robot.commands[heard + 1].at - killed_at)
        if not rig.is_driving():
            rig.rearm()
        check_store(rig.store)
    swapper.end()
    reader.end()
    rig.store.record("looked at")
    check, missing = check_store(rig.store), [p for p in policies if p not in rig.store.ids()]
    record("kills", {
        "kills": kills, "commands": len(rig.robot.commands), "commands_outside_bounds": rig.robot.outside_bounds(),
        "commands_of_no_policy": rig.robot.of_no_policy(rig.forces), "swaps_and_activations": swapper.done,
        "loads_of_the_active_policy": reader.done, "half_written_versions_visible": len(reader.errors),
        "versions": check.policies, "versions_lost": len(missing),
        "kills_of_recorder_and_server": sum(node in NODES[2:] for node in chosen),
        "of_these_with_a_stop": len(stops_of_others), "starts_that_took_a_second_try": second_tries,
        "ticks_to_stop_without_monitor": spread(silent_monitor), "seconds_without_executor": spread(without_executor),
    })  # fmt: skip
    rig.check_commands()
    assert (reader.errors, missing, swapper.errors) == ([], [], [])
    assert reader.done > kills and swapper.done > kills // 2
    assert len(stops_of_others) <= 1 + kills // 20, stops_of_others
    assert len(second_tries) <= max(1, kills // 50), second_tries
    assert max(silent_monitor, default=0) <= MONITOR_TIMEOUT_S * RATE_HZ + 2


def test_behind_a_command_filter_a_robot_without_executor_is_told_to_stop(tmp_path):
    """Of itself a dead executor says nothing; the filter notices its silence and sends the safe command."""
    timeout_s, ticks = 0.3, []
    with Rig(tmp_path, RATE_HZ) as rig:
        rig.start("command_filter", command_timeout=timeout_s)
        for _ in range(times(1, 20)):
            rig.start("policy_executor", remap=("cmd_force:=unfiltered/cmd_force",))
            rig.wait_until(rig.is_driving, "the policy to drive")
            rig.kill("policy_executor")
            killed_at = time.monotonic()
            rig.wait_until(lambda: rig.robot.stopped, "the safe command", 20.0)
            ticks.append((rig.robot.commands[-1].at - killed_at) * RATE_HZ)
        rig.check_commands()
    record("dead executor to safe command of the filter", {
        "command_timeout_periods": timeout_s * RATE_HZ, "periods": spread(ticks),
    })  # fmt: skip


def test_a_command_filter_that_died_or_froze_is_missed_by_the_robot_alone(tmp_path):
    """No command passes: the robot's own watchdog has to act. A filter that is back needs nobody's help."""
    with Rig(tmp_path, RATE_HZ) as rig:
        rig.start("command_filter", command_timeout=0.3)
        rig.start("policy_executor", remap=("cmd_force:=unfiltered/cmd_force",))
        rig.wait_until(rig.is_driving, "the policy to drive")
        for fault, mend in ((rig.kill, rig.start), (rig.freeze, rig.thaw)):
            fault("command_filter")
            told, ticks = len(rig.robot.commands), len(rig.robot.statuses)
            rig.wait_until(lambda ticks=ticks: len(rig.robot.statuses) > ticks + 10, "the executor to go on")
            assert len(rig.robot.commands) <= told + 1, "at most the one that was on its way"
            assert rig.robot.state == PolicyStatus.STATE_RUNNING, "nobody tells the executor"
            mend("command_filter")
            rig.wait_until(lambda told=told: len(rig.robot.commands) > told + 10 and rig.is_driving(), "it to drive")
        rig.check_commands()


def test_a_recorder_without_disk_does_not_hold_up_the_robot(tmp_path):
    """The kernel refuses to let its files grow: recording ends with a reason, driving does not."""
    with Rig(tmp_path, RATE_HZ) as rig:
        rig.start("policy_executor", "cost_monitor")
        rig.start("flight_recorder", file_limit=RESERVED_BYTES, max_bag_bytes=10**6)
        rig.wait_until(rig.is_driving, "the policy to drive")
        full = "File too large"
        rig.wait_until(lambda: full in rig.log("flight_recorder") or rig.has_ended("flight_recorder"), "a full disk")
        rig.wait_for_ticks(20)
        assert rig.is_driving()
        rig.check_commands()
        assert full in rig.log("flight_recorder")
