"""From a broken limit to the safe command, over DDS through the cost monitor.

In ROS time of a robot's own clock both nodes tick on the same message, so this counts ticks and not the machine's load.
"""

import random
import time

import pytest

pytest.importorskip("rclpy")

from figures import record, spread, times
from rig import Rig

pytestmark = pytest.mark.ros

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
