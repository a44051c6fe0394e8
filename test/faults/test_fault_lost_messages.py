"""Messages between the nodes that are lost or late although both sides live: the monitor speaks through a relay.

The relay is the test's: what it does not pass on has been said, and was not heard.
"""

import pytest

pytest.importorskip("rclpy")

from rig import Rig
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from test_fault_stops import MONITOR_TIMEOUT_S, RATE_HZ, ticks_until_safe

from saferule.msg import CostStatus, PolicyStatus
from saferule_ros.messages import LATCHED, STATUS

pytestmark = pytest.mark.timed


class Relay:
    """Passes on what comes on `said/<topic>`; while it is not open it keeps that instead."""

    def __init__(self, rig, topic, kind, quality):
        self.open, self.kept = True, []
        self._publisher = rig.node.create_publisher(kind, topic, quality)
        rig.node.create_subscription(kind, f"said/{topic}", self._on_message, quality)

    def _on_message(self, message):
        if self.open:
            self._publisher.publish(message)
        else:
            self.kept.append(message)

    def lose(self):
        """Pass nothing on from now on."""
        self.open = False
        self.kept.clear()

    def catch_up(self):
        """Pass on the newest of what was kept, and all that comes."""
        self.open = True
        self._publisher.publish(self.kept[-1])


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with Rig(tmp_path_factory.mktemp("lost"), RATE_HZ) as rig:
        rig.heartbeat = Relay(rig, "cost_status", CostStatus, STATUS)
        rig.stop_wish = Relay(rig, "safety_stop", Bool, LATCHED)
        rig.start("cost_monitor", remap=("cost_status:=said/cost_status", "safety_stop:=said/safety_stop"))
        rig.start("policy_executor", monitor_timeout=MONITOR_TIMEOUT_S)
        rig.robot.begin_episode("episode_0")
        yield rig
        rig.check_commands()


@pytest.fixture(autouse=True)
def driving(rig):
    """Each test begins with a policy that drives."""
    rig.robot.mend()
    rig.heartbeat.open = rig.stop_wish.open = True
    rig.rearm()


def test_a_heartbeat_that_is_lost_stops_the_robot(rig):
    taken, _ = ticks_until_safe(rig, rig.heartbeat.lose)
    assert taken <= MONITOR_TIMEOUT_S * RATE_HZ + 2
    rig.wait_until(lambda: rig.robot.state == PolicyStatus.STATE_STOPPED, "a latched stop", 10.0)
    assert "found silence" in rig.robot.statuses[-1].message and rig.heartbeat.kept, "the monitor is alive"
    assert not rig.call(Trigger, "policy_executor/resume").success
    rig.heartbeat.catch_up()
    rig.wait_for_ticks(10)
    assert rig.robot.stopped, "it is heard again; nobody has resumed"


def test_a_heartbeat_that_is_lost_for_a_moment_does_not(rig):
    seen = len(rig.robot.commands)
    for _ in range(3):
        rig.heartbeat.lose()
        rig.wait_for_ticks(4)
        rig.heartbeat.catch_up()
        rig.wait_for_ticks(4)
    assert all(c.x != 0.0 for c in rig.robot.commands[seen:])


def test_a_stop_that_is_lost_is_obeyed_all_the_same_as_the_heartbeat_tells_of_it(rig):
    rig.stop_wish.lose()
    ticks_until_safe(rig, lambda: setattr(rig.robot, "x", 7.0))
    assert any(wish.data for wish in rig.stop_wish.kept)
    rig.robot.x = 0.0
    rig.wait_for_ticks(5)
    assert rig.robot.state == PolicyStatus.STATE_STOPPED


def test_a_release_that_is_lost_keeps_the_robot_stopped_until_the_next_one(rig):
    ticks_until_safe(rig, lambda: setattr(rig.robot, "x", 7.0))
    rig.robot.x = 0.0
    rig.wait_for_ticks(3)
    rig.stop_wish.lose()
    assert rig.call(Trigger, "cost_monitor/reset_stop").success
    rig.wait_until(lambda: rig.stop_wish.kept, "the release", 10.0)
    refused = rig.call(Trigger, "policy_executor/resume")
    assert not refused.success and "reset_stop" in refused.message
    rig.wait_for_ticks(5)
    assert rig.robot.stopped
    rig.stop_wish.open = True
    rig.rearm()
