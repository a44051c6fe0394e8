"""A repair whose worker or server dies at a random moment: the robot drives on, and nothing is left behind."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from figures import record, times
from point_logs import drive
from rig import Rig
from std_srvs.srv import Trigger

from saferule.msg import UnlearnRequest, UnlearnResult
from saferule.srv import Unlearn
from saferule_core.data.bags import write_bags
from saferule_core.store.checking import check_store
from saferule_ros.client import UnlearnClient

pytestmark = pytest.mark.timed

RATE_HZ = 20.0


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with Rig(tmp_path_factory.mktemp("repairs"), RATE_HZ, max_steps=20, limit=3.0) as rig:
        for name, seed, reckless in (("retain", 1, 0.2), ("forget", 2, 1.0)):
            write_bags(drive(rig.spec, 12, seed, reckless), rig.spec, rig.folder / name, episodes_per_bag=12)
        rig.start("policy_executor", "unlearning_server")
        rig.wait_until(rig.is_driving, "the policy to drive")
        yield rig
        rig.check_commands()


@pytest.fixture
def request_to_repair(rig):
    retain, forget = ([str(bag) for bag in (rig.folder / name).iterdir()] for name in ("retain", "forget"))
    return UnlearnRequest(
        forget_bags=forget, retain_bags=retain, method="finetune", confidence=0.9, cost_limit=20.0,
        validation_episodes=200, swap=True,
    )  # fmt: skip


def descendants(pid):
    """Return the processes that a process has started, and those that they have started."""
    found = [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    return found + [below for child in found for below in descendants(child)]


def is_running(pid):
    """Return whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def assert_unharmed(rig, seen, active):
    rig.wait_for_ticks(3)
    odd = [status.message for status in rig.robot.statuses if status.message][-3:]
    assert all(command.x != 0.0 for command in rig.robot.commands[seen:]), f"the policy drove all the time: {odd}"
    check_store(rig.store)
    assert rig.store.active() == active


def test_a_worker_that_was_killed_is_a_failed_request_and_no_more(rig, request_to_repair):
    draw, seen, active = random.Random(1), len(rig.robot.commands), rig.store.active()
    for _ in range(times(1, 10)):
        results, begun = [], threading.Event()
        client = UnlearnClient(rig.node)
        asking = threading.Thread(
            target=lambda client=client, results=results, begun=begun: results.append(
                client.repair(request_to_repair, lambda _feedback: begun.set())
            )
        )
        asking.start()
        rig.wait_until(begun.is_set, "feedback of the repair")
        time.sleep(draw.uniform(0.0, 4.0))
        started = descendants(rig.pid("unlearning_server"))
        if started:
            os.kill(started[0], signal.SIGKILL)
        asking.join(60.0)
        assert results and results[0].status in (UnlearnResult.STATUS_FAILED, UnlearnResult.STATUS_REFUSED)
        rig.wait_until(lambda started=started: not any(map(is_running, started)), "all that it started to end")
        assert_unharmed(rig, seen, active)


def test_a_server_that_was_killed_takes_its_worker_along(rig, request_to_repair):
    draw, seen, active, kills = random.Random(2), len(rig.robot.commands), rig.store.active(), times(1, 10)
    held_up = 0
    for _ in range(kills):
        answer = rig.call(Unlearn, "unlearn", Unlearn.Request(request=request_to_repair))
        assert answer.accepted, answer.message
        rig.wait_until(lambda: descendants(rig.pid("unlearning_server")), "a worker")
        time.sleep(draw.uniform(0.0, 5.0))
        started = descendants(rig.pid("unlearning_server"))
        rig.kill("unlearning_server")
        rig.wait_until(lambda started=started: not any(map(is_running, started)), "all that it started to end", 30.0)
        # A process that died in DDS's shared memory may hold up the sensors of the others for a moment.
        safe = [command for command in rig.robot.commands[seen:] if command.x == 0.0]
        held_up, seen = held_up + bool(safe), len(rig.robot.commands)
        if safe:
            rig.call(Trigger, "policy_executor/resume")
        rig.wait_until(rig.is_driving, "the policy to drive")
        assert_unharmed(rig, len(rig.robot.commands), active)
        rig.start("unlearning_server")
    record("kills during a repair", {"workers": kills, "servers": kills, "of_these_with_a_safe_command": held_up})
    assert held_up <= 1 + kills // 10


def test_a_server_its_worker_and_a_recorder_that_freeze_are_not_missed(rig, request_to_repair):
    rig.start("flight_recorder")
    active, frozen_s = rig.store.active(), 1.5
    for _ in range(times(1, 10)):
        ask = Unlearn.Request(request=request_to_repair)
        rig.wait_until(lambda ask=ask: rig.call(Unlearn, "unlearn", ask).accepted, "the server to be free")
        rig.wait_until(lambda: descendants(rig.pid("unlearning_server")), "a worker")
        server, recorder = rig.pid("unlearning_server"), rig.pid("flight_recorder")
        frozen = [server, *descendants(server), recorder]
        seen = len(rig.robot.commands)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(frozen_s)
            driven = len(rig.robot.commands) - seen
        finally:
            for pid in frozen:
                if is_running(pid):
                    os.kill(pid, signal.SIGCONT)
        assert driven >= 0.5 * frozen_s * RATE_HZ
        assert_unharmed(rig, seen, active)
        rig.call(Trigger, "unlearning_server/cancel")
        rig.wait_until(lambda frozen=frozen: not any(map(is_running, frozen[1:-1])), "its worker to end", 30.0)
        rig.wait_until(lambda: '"done"' in rig.call(Trigger, "unlearning_server/status").message, "the end of it")
