"""Many swaps in a row while the machine is busy: no control period is missed, no command is half of one policy.

The load is a process per core at the priority of unlearning's worker, and a stream of swaps that are refused.
"""

import bisect
import math
import shutil
import statistics
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy")

from figures import record, spread, times
from rig import ACTIONS, Rig
from ros_testing import nanoseconds

from saferule_core.store import bundle
from saferule_ros.worker import LOWEST_PRIORITY, stand_back

pytestmark = pytest.mark.timed

RATE_HZ = 20.0
BURN = "while True: sum(i * i for i in range(10000))"


@pytest.fixture
def load():
    """Two busy processes that stand back as the worker does."""
    burners = [subprocess.Popen([sys.executable, "-S", "-c", BURN], start_new_session=True) for _ in range(2)]
    for burner in burners:
        stand_back(burner.pid, LOWEST_PRIORITY)
    yield burners
    for burner in burners:
        burner.kill()
        burner.wait()


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with Rig(tmp_path_factory.mktemp("swaps"), RATE_HZ) as rig:
        rig.start("policy_executor")
        rig.wait_until(rig.is_driving, "the policy to drive")
        yield rig
        rig.check_commands()


def test_swaps_in_a_row_under_load_miss_no_tick(rig, load):
    """In blocks, each beside as many ticks without a swap: what a busy machine does to single blocks is no swap's."""
    blocks, idle, seconds = [], [], []
    for _ in range(times(3, 10)):
        before = rig.robot.statuses[-1]
        rig.wait_for_ticks(times(16, 100))
        idle.append(rig.robot.statuses[-1].missed_ticks - before.missed_ticks)
        blocks.append(swap_in_a_row(rig, times(16, 100), seconds))
    record("swaps under load", {
        "swaps": len(seconds), "missed_ticks_in_blocks_of_swaps": sum(blocks),
        "missed_ticks_in_blocks_without": sum(idle),
        "longest_assignment_s": max(status.last_swap_duration for status in rig.robot.statuses),
        "request_to_answer_s": spread(seconds),
    })  # fmt: skip
    assert statistics.median(blocks) == 0


def swap_in_a_row(rig, count, seconds):
    """Swap `count` times, check each tick, and return how many were missed meanwhile; adds each swap's time [s]."""
    names, answers = ["second", "first"], []
    rig.wait_for_ticks(2)
    first = rig.robot.statuses[-1]
    for number in range(count):
        begun = time.monotonic()
        answers.append(rig.swap(rig.policies[names[number % 2]]))
        seconds.append(time.monotonic() - begun)
        rig.wait_for_ticks(number % 2)
    rig.wait_for_ticks(3)
    statuses = [status for status in list(rig.robot.statuses) if status.ticks >= first.ticks]
    last = statuses[-1]
    assert all(answer.success for answer in answers), answers
    assert last.swaps - first.swaps == count
    assert [status.ticks for status in statuses] == list(range(first.ticks, last.ticks + 1)), "every tick is heard of"
    assert drivers(statuses) == promised(first, answers, rig), "each drives from the tick that the answer names"
    forces = {rig.policies[name]: action * rig.spec.action[0].high for name, action in ACTIONS.items()}
    commands = sorted((command.stamp_ns, command.x) for command in list(rig.robot.commands))
    told = []
    for status in statuses[:-1]:  # a tick stamps its command just before its status
        command = commands[bisect.bisect_right(commands, (nanoseconds(status.header.stamp), math.inf)) - 1]
        told.append((command[1], forces[status.policy_id]))
    assert all(abs(found - wanted) < 1e-5 for found, wanted in told), "each command is wholly of the policy that drives"
    return last.missed_ticks - first.missed_ticks


def drivers(statuses):
    """Return tick -> policy, where it changes."""
    changes = {}
    for status in statuses:
        if not changes or status.policy_id != list(changes.values())[-1]:
            changes[status.ticks] = status.policy_id
    return changes


def promised(first, answers, rig):
    """Return the same by the answers to the swaps; of two before the same tick the later one counts."""
    chosen = {first.ticks: first.policy_id}
    for answer, number in zip(answers, range(len(answers)), strict=True):
        chosen[answer.tick] = rig.policies[("second", "first")[number % 2]]
    changes = {}
    for tick, policy in chosen.items():
        if not changes or policy != list(changes.values())[-1]:
            changes[tick] = policy
    return changes


def test_a_policy_with_a_broken_byte_is_refused_and_the_other_drives_on(rig, load):
    """The robot asks for a policy that lies damaged in the store; each swap in between still works."""
    damaged = rig.store.path(rig.policies["second"])
    whole = rig.folder / "whole"
    shutil.copytree(damaged, whole)
    rig.swap(rig.policies["first"])
    rig.wait_for_ticks(2)
    refused = 0
    damaged.chmod(0o755)
    for name in (*bundle.CONTENT_FILES, "SHA256SUMS"):
        path = damaged / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.chmod(0o644)
        path.write_bytes(data)
        answer = rig.swap(rig.policies["second"])
        refused += not answer.success
        assert name in answer.message or rig.policies["second"][:12] in answer.message, answer.message
        path.write_bytes((whole / name).read_bytes())
    rig.wait_for_ticks(2)
    assert refused == len(bundle.CONTENT_FILES) + 1
    assert rig.robot.statuses[-1].policy_id == rig.policies["first"] and rig.is_driving()
    assert rig.swap(rig.policies["second"]).success, "mended, it drives"
