"""How soon the robot stops: after a broken limit, a monitor that froze or died, and sensors that went away.

Counted in control ticks, on a machine that may be busy: a tick that gave a policy's command after the fault counts.
"""

import time

import pytest

pytest.importorskip("rclpy")

from figures import record, spread, times
from rig import Rig

from saferule.msg import PolicyStatus

pytestmark = pytest.mark.timed

MONITOR_TIMEOUT_S = 0.5
RATE_HZ = 20.0


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with Rig(tmp_path_factory.mktemp("stops"), RATE_HZ) as rig:
        rig.start("cost_monitor")
        rig.start("policy_executor", monitor_timeout=MONITOR_TIMEOUT_S)
        rig.robot.begin_episode("episode_0")
        yield rig
        rig.check_commands()


@pytest.fixture(autouse=True)
def driving(rig):
    """Each test begins with a policy that drives."""
    rig.robot.mend()
    rig.rearm()


def ticks_until_safe(rig, fault, patience_s=10.0):
    """Cause a fault; return how many ticks it took to the first safe command, and how long [s]."""
    seen, begun = len(rig.robot.commands), time.monotonic()
    fault()
    rig.wait_until(lambda: any(c.x == 0.0 for c in rig.robot.commands[seen:]), "a safe command", patience_s)
    new = [c for c in rig.robot.commands[seen:] if c.at > begun]
    first = next(number for number, command in enumerate(new, 1) if command.x == 0.0)
    return first, new[first - 1].at - begun


def test_a_stop_stays_until_somebody_resumes(rig):
    ticks_until_safe(rig, lambda: setattr(rig.robot, "x", 7.0))
    rig.robot.x = 0.0
    seen = len(rig.robot.commands)
    rig.wait_for_ticks(10)
    assert {c.x for c in rig.robot.commands[seen:]} == {0.0}
    assert rig.robot.state == PolicyStatus.STATE_STOPPED


def test_a_monitor_that_froze_stops_the_robot(rig):
    allowed = MONITOR_TIMEOUT_S * RATE_HZ + 2
    ticks = []
    for _ in range(times(1, 20)):
        rig.rearm()
        try:
            taken, _ = ticks_until_safe(rig, lambda: rig.freeze("cost_monitor"))
            rig.wait_until(lambda: rig.robot.state == PolicyStatus.STATE_STOPPED, "a latched stop", 10.0)
        finally:
            rig.thaw("cost_monitor")
        rig.wait_for_ticks(10)
        assert rig.robot.stopped, "the monitor is back; nobody has resumed"
        ticks.append(taken)
    record("frozen monitor to stop", {"monitor_timeout_ticks": MONITOR_TIMEOUT_S * RATE_HZ, "ticks": spread(ticks)})
    assert max(ticks) <= allowed


def test_sensors_that_went_away_stop_the_robot_when_the_last_one_is_too_old(rig):
    max_age_ticks = 0.35 * RATE_HZ
    ticks = []
    for _ in range(times(1, 20)):
        rig.robot.mute = False
        rig.rearm()
        taken, _ = ticks_until_safe(rig, lambda: setattr(rig.robot, "mute", True))
        ticks.append(taken)
    record("silent sensor to safe command", {"max_age_ticks": max_age_ticks, "ticks": spread(ticks)})
    assert max(ticks) <= max_age_ticks + 2


def test_sensors_that_are_old_or_not_finite_are_not_driven_on(rig):
    for fault in ({"delay_s": 0.5}, {"x": float("nan")}, {"x": float("inf")}):
        for name, value in fault.items():
            before = getattr(rig.robot, name)
            ticks_until_safe(rig, lambda name=name, value=value: setattr(rig.robot, name, value))
            seen = len(rig.robot.commands)
            rig.wait_for_ticks(5)
            assert {c.x for c in rig.robot.commands[seen:]} == {0.0}
            setattr(rig.robot, name, before)
        rig.rearm()


def test_lost_and_late_states_within_the_limits_do_not_stop_the_robot(rig):
    """Every second state is lost and all are a tenth of a second late: the newest one is still young enough."""
    rig.robot.loss, rig.robot.delay_s = 0.5, 0.1
    seen = len(rig.robot.commands)
    rig.wait_for_ticks(times(30, 300))
    assert all(c.x != 0.0 for c in rig.robot.commands[seen:])


def test_an_executor_that_froze_goes_on_with_what_is_new(rig):
    """While it is frozen nobody commands; afterwards it knows how many periods it missed and drives on fresh input."""
    missed, frozen_s = rig.robot.statuses[-1].missed_ticks, 1.0
    rig.freeze("policy_executor")
    time.sleep(frozen_s)
    seen, statuses = len(rig.robot.commands), len(rig.robot.statuses)
    rig.thaw("policy_executor")
    rig.wait_until(lambda: len(rig.robot.statuses) > statuses + 2, "its status")
    assert rig.robot.statuses[-1].missed_ticks - missed >= frozen_s * RATE_HZ - 4
    if rig.robot.state != PolicyStatus.STATE_RUNNING:
        rig.rearm()
    rig.wait_until(lambda: len(rig.robot.commands) > seen + 10 and rig.is_driving(), "it to drive")
