"""Messages become physical values and back; here with plain objects in place of messages."""

from types import SimpleNamespace as Message

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saferule_core.errors import InputError, SpecError, StaleInputError
from saferule_core.fields import TRANSFORMS, FieldPath, yaw_of
from saferule_core.signals import (
    RateLimiter,
    SignalReader,
    fill_commands,
    fill_sensors,
    physical_of_raw,
    read_commands,
    stamp_of,
)


def odometry(x=0.0, y=0.0, sec=0, nanosec=0):
    pose = Message(position=Message(x=x, y=y, z=0.0), orientation=Message(x=0.0, y=0.0, z=0.0, w=1.0))
    return Message(header=Message(stamp=Message(sec=sec, nanosec=nanosec)), pose=Message(pose=pose))


def wrench(_kind=""):
    return Message(wrench=Message(force=Message(x=0.0, y=0.0, z=0.0)))


def test_reader_gives_all_signals(point_spec):
    reader = SignalReader(point_spec)
    reader.update("odom", odometry(x=3.0, y=4.0, sec=5), received_ns=0)
    physical = reader.physical(now_ns=5_200_000_000)
    assert physical["x"] == 3.0
    assert physical["radial_error"] == -2.0
    assert (physical["heading_sin"], physical["heading_cos"]) == (0.0, 1.0)


def test_silence_and_old_messages_are_stale_and_say_so(point_spec):
    reader = SignalReader(point_spec)
    with pytest.raises(StaleInputError, match="topic odom: expected a nav_msgs/msg/Odometry, none came yet"):
        reader.physical(0)
    reader.update("odom", odometry(sec=5), received_ns=0)
    with pytest.raises(StaleInputError, match=r"not older than 0\.35 s, found 0\.400 s"):
        reader.physical(5_400_000_000)


def test_a_stamp_from_the_future_does_not_outlive_its_sensor(point_spec):
    reader = SignalReader(point_spec)
    reader.update("odom", odometry(sec=5), received_ns=0)
    assert reader.physical(now_ns=4_700_000_000)["x"] == 0.0
    with pytest.raises(StaleInputError, match="found -0.9"):
        reader.physical(now_ns=4_100_000_000)


def test_a_late_message_is_ignored_unless_the_newest_one_is_of_a_time_before_the_clock_was_set_back(point_spec):
    reader = SignalReader(point_spec)
    assert reader.update("odom", odometry(1.0, sec=10, nanosec=900_000_000), 10_950_000_000)
    assert not reader.update("odom", odometry(2.0, sec=10, nanosec=800_000_000), 10_950_000_000)
    assert reader.update("odom", odometry(3.0, sec=10, nanosec=100_000_000), 10_120_000_000)
    assert reader.physical(10_120_000_000)["x"] == 3.0


def test_not_a_number_is_refused(point_spec):
    reader = SignalReader(point_spec)
    reader.update("odom", odometry(x=float("nan"), sec=1), 0)
    with pytest.raises(InputError, match="signal x"):
        reader.physical(1_000_000_000)


def test_unstamped_messages_count_from_arrival():
    assert stamp_of(Message(data=1.0), 42) == 42
    assert stamp_of(odometry(sec=1, nanosec=5), 42) == 1_000_000_005


def test_a_message_without_the_field_is_a_spec_error(point_spec):
    with pytest.raises(SpecError, match=r"pose\.pose\.position\.x"):
        SignalReader(point_spec).update("odom", Message(data=0.0), 0)


def test_commands_survive_the_message(point_spec):
    messages = fill_commands(point_spec, {"force_x": 1.5, "force_y": -2.0}, wrench)
    assert read_commands(point_spec, "cmd_force", messages["cmd_force"]) == {"force_x": 1.5, "force_y": -2.0}


def test_rate_limit_bounds_the_change_per_tick(point_spec):
    limiter = RateLimiter(point_spec)
    assert limiter.limit({"force_x": 3.5, "force_y": 3.5}) == {"force_x": 3.5, "force_y": 1.0}
    assert limiter.limit({"force_x": -3.5, "force_y": 3.5})["force_y"] == 2.0


def test_raw_fields_of_a_robot_give_the_same_values_as_its_messages(point_spec):
    raw = {
        "nav_msgs/msg/Odometry": {
            "pose.pose.position.x": 3.0,
            "pose.pose.position.y": 4.0,
            "pose.pose.orientation": (0.0, 0.0, np.sin(0.3), np.cos(0.3)),
        }
    }
    reader = SignalReader(point_spec)
    for topic, message in fill_sensors(point_spec, raw, lambda _kind: odometry()).items():
        reader.update(topic, message, 1)
    assert reader.physical(1) == pytest.approx(physical_of_raw(point_spec, raw))


def test_a_robot_that_lacks_a_field_is_named(point_spec):
    with pytest.raises(SpecError, match="expected the robot to give nav_msgs/msg/Odometry pose.pose.position.x"):
        physical_of_raw(point_spec, {})


@given(yaw=st.floats(-3.1, 3.1))
def test_yaw_of_a_planar_rotation(yaw):
    assert yaw_of((0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2))) == pytest.approx(yaw, abs=1e-9)


def test_slices_and_elements_of_sequences():
    message = Message(data=[1.0, 2.0, 3.0])
    assert FieldPath.parse("data[1]").get(message) == 2.0
    assert FieldPath.parse("data[0:2]").get(message) == [1.0, 2.0]
    FieldPath.parse("data[2:5]").set(message, [7.0, 8.0, 9.0])
    assert message.data == [1.0, 2.0, 7.0, 8.0, 9.0]
    with pytest.raises(SpecError, match="expected 9 elements, found 5"):
        FieldPath.parse("data[8]").get(message)


def test_both_quaternions_of_an_attitude_give_the_same_one():
    transform = TRANSFORMS["quaternion"].function
    one = (0.1, -0.2, 0.3, 0.927)
    other = tuple(-value for value in one)
    message = Message(**dict(zip("xyzw", other, strict=True)))
    assert transform(one) == transform(other) == transform(message) == one
    np.testing.assert_array_equal(np.transpose(transform(np.array([one, other]))), [one, one])
