"""From a broken limit to the safe command, over DDS through the cost monitor.

In ROS time of a robot's own clock both nodes tick on the same message, so this counts ticks and not the machine's load.
"""

import random
import time

import pytest

pytest.importorskip("rclpy")

from figures import record, spread, times
from rig import Rig
from ros_testing import nanoseconds
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from saferule_ros.messages import LATCHED

pytestmark = pytest.mark.timed

RATE_HZ = 20.0


def test_a_broken_limit_stops_the_robot_within_two_ticks(tmp_path):
    draw, ticks, periods = random.Random(0), [], []
    with Rig(tmp_path, RATE_HZ, own_clock=True) as rig:
        rig.start("cost_monitor", "policy_executor")
        rig.robot.begin_episode("episode_0")
        for _ in range(times(10, 300)):
            rig.robot.mend()
            rig.rearm()
            time.sleep(draw.uniform(0.0, 0.1))
            seen, rig.robot.violated_ns = len(rig.robot.commands), 0
            rig.robot.x = 7.0
            rig.wait_until(lambda seen=seen: any(c.x == 0.0 for c in rig.robot.commands[seen:]), "a safe command")
            safe = next(command for command in rig.robot.commands[seen:] if command.x == 0.0)
            ticks.append(1 + round((safe.stamp_ns - rig.robot.violated_ns) / rig.spec.period_ns))
            periods.append((safe.at - rig.robot.violated_at) * RATE_HZ)
        rig.check_commands()
    record("violation to stop", {
        "rate_hz": RATE_HZ, "ticks": spread(ticks), "of_one_tick": ticks.count(1), "of_two_ticks": ticks.count(2),
        "control_periods_on_the_wall_clock": spread(periods),
    })  # fmt: skip
    assert min(ticks) >= 1, "no stop without a reason"
    assert max(ticks) <= 2


def test_on_timers_of_its_own_the_safe_command_does_not_wait_for_the_next_tick(tmp_path):
    stops = times(3, 30)
    with Rig(tmp_path, RATE_HZ) as rig:
        monitor = rig.node.create_publisher(Bool, "safety_stop", LATCHED)
        rig.start("policy_executor")
        rig.wait_until(rig.is_driving, "the policy to drive")
        first = nanoseconds(rig.robot.statuses[-1].header.stamp)
        for _ in range(stops):
            monitor.publish(Bool(data=True))
            rig.wait_until(lambda: rig.robot.stopped, "a safe command")
            monitor.publish(Bool(data=False))
            rig.wait_until(lambda: rig.call(Trigger, "policy_executor/resume").success, "the executor to resume")
            rig.wait_until(rig.is_driving, "the policy to drive")
        ticks = len(rig.robot.statuses)
        rig.wait_until(lambda: len(rig.robot.statuses) > ticks + 1, "the status of a later tick")
        of_ticks = [nanoseconds(status.header.stamp) for status in rig.robot.statuses]
        between = [c for c in rig.robot.commands if first < c.stamp_ns < of_ticks[-1] and c.stamp_ns not in of_ticks]
    assert [command.x for command in between] == [0.0] * stops, "one command per stop that is no tick's, the safe one"
