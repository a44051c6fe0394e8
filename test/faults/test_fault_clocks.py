"""ROS time that jumps, runs backwards, stands still or is of another clock than the sensors: bounded commands always.

After each fault the policy drives again without anybody restarting a node; where the loop latched a stop, by `rearm`.
"""

import time

import pytest

pytest.importorskip("rclpy")

from figures import record, times
from rig import Rig

from saferule_core.control.stops import MONITOR_STOP

pytestmark = pytest.mark.timed

HOUR_S = 3600.0
RATE_HZ = 20.0


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with Rig(tmp_path_factory.mktemp("clocks"), RATE_HZ, own_clock=True) as rig:
        rig.start("cost_monitor", "policy_executor")
        rig.robot.begin_episode("episode_0")
        rig.rearm()
        yield rig
        rig.check_commands()


@pytest.mark.parametrize("jump_s", [0.3, HOUR_S, -0.3, -HOUR_S])
def test_a_jump_of_the_clock_is_survived(rig, jump_s):
    worst = 0.0
    for _ in range(times(1, 10)):
        seen, begun = len(rig.robot.commands), time.monotonic()
        rig.robot.offset_s += jump_s
        rig.wait_until(lambda seen=seen: len(rig.robot.commands) >= seen + 3, "ticks after the jump", 20.0)
        worst = max(worst, rig.robot.commands[seen + 2].at - begun)
        if not rig.is_driving():
            rig.rearm()
    record("clock jump", {"jump_s": jump_s, "three_ticks_later_after_periods": round(worst * RATE_HZ, 1)})


@pytest.mark.parametrize("jump_s", [-0.3, -0.9])
def test_after_a_small_jump_back_the_monitor_is_not_blind(rig, jump_s):
    """A limit that is broken just then stops the robot long before the new time has come as far as the old one."""
    rig.rearm()
    rig.robot.offset_s += jump_s
    rig.robot.x = 7.0
    ticks = len(rig.robot.statuses)
    rig.wait_until(lambda: MONITOR_STOP in [s.message for s in rig.robot.statuses[ticks:]], "the monitor's stop", 20.0)
    taken = [s.message for s in rig.robot.statuses[ticks:]].index(MONITOR_STOP)
    assert taken <= 5, "a tick to notice the jump, a state of the new time, two ticks to stop, one in turn"
    rig.robot.x = 0.0
    rig.rearm()


def test_a_clock_that_stands_still_stops_the_ticks_and_goes_on(rig):
    """Nobody commands while ROS time stands; this is what a robot's own watchdog is for."""
    rig.robot.frozen_clock = True
    time.sleep(0.3)
    seen = len(rig.robot.commands)
    time.sleep(0.7)
    assert len(rig.robot.commands) <= seen + 1
    rig.robot.frozen_clock = False
    rig.wait_for_ticks(3)
    if not rig.is_driving():
        rig.rearm()


def test_sensors_of_another_clock_are_not_driven_on(rig):
    """A state from the far future or past is not the present one, however new its message is."""
    for delay_s in (-HOUR_S, HOUR_S):
        rig.robot.delay_s = delay_s
        rig.wait_until(lambda: rig.robot.stopped, "the safe command", 20.0)
        rig.wait_for_ticks(5)
        assert rig.robot.stopped
        rig.robot.delay_s = 0.0
        rig.wait_for_ticks(5)
        rig.rearm()


def test_a_simulation_that_begins_anew_sets_the_clock_back(rig):
    """What a killed and restarted simulator does: time begins again at the start."""
    rig.robot.offset_s -= rig.robot.now_ns() / 1e9 - 1.0
    rig.wait_for_ticks(3)
    if not rig.is_driving():
        rig.rearm()
