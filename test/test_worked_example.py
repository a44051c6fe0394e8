"""The worked example of docs/DATA.md is a robot description that loads, and reads the bag that the page describes."""

import re
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from saferule_core.data.bags import read_bags
from saferule_core.data.message_types import empty_message, standard_types
from saferule_core.spec import parse_spec

PAGE = Path(__file__).resolve().parents[1] / "docs" / "DATA.md"
MS, SECONDS, BEGIN = 1_000_000, 3, 1_700_000_000_000_000_000
TOPICS = {
    "/odom": ("nav_msgs/msg/Odometry", 50),
    "/scan": ("sensor_msgs/msg/LaserScan", 10),
    "/cmd_vel": ("geometry_msgs/msg/TwistStamped", 10),
    "/battery_state": ("sensor_msgs/msg/BatteryState", 1),
}


@pytest.fixture(scope="module")
def spec():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return parse_spec(text, "rover.yaml")


def test_the_topics_on_the_page_are_those_of_the_description(spec):
    page = PAGE.read_text(encoding="utf-8")
    for topic, (kind, rate) in TOPICS.items():
        assert re.search(rf"{topic} +{kind} +{rate} Hz", page), topic
    used = {f"/{topic}": kind for topic, kind in {**spec.sensor_topics, **spec.command_topics}.items()}
    assert used == {topic: TOPICS[topic][0] for topic in ("/odom", "/scan", "/cmd_vel")}


def test_it_sees_what_the_page_says(spec):
    fronts = [f"front_{number}" for number in range(10)]
    assert list(spec.feature_names) == ["y", "heading_sin", "heading_cos", "speed", "turning", *fronts]
    assert [channel.name for channel in spec.action] == ["forward", "turn"] and spec.cost.limit == 5.0


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """Three seconds along the corridor at 0.5 m/s; in the last second something is 0.25 m in front."""
    path, types = tmp_path_factory.mktemp("logs") / "day_1", standard_types()
    due = sorted(
        (BEGIN + number * 1000 // rate * MS + delay, topic)
        for delay, (topic, (_, rate)) in enumerate(TOPICS.items())
        for number in range(SECONDS * rate)
    )
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=types) for topic, (kind, _) in TOPICS.items()
        }
        for now, topic in due:
            message = empty_message(types, TOPICS[topic][0])
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)
            passed = (now - BEGIN) / 1e9
            if topic == "/odom":
                message.pose.pose.position.x, message.twist.twist.linear.x = 0.5 * passed, 0.5
                message.pose.pose.orientation.w = 1.0
            elif topic == "/scan":
                message.ranges = np.full(360, 0.25 if passed > 1.95 else 4.0, np.float32)
            elif topic == "/cmd_vel":
                message.twist.linear.x, message.twist.angular.z = 0.4, 0.0
            writer.write(connections[topic], now, types.serialize_cdr(message, TOPICS[topic][0]))
    return path


def test_a_bag_of_such_a_robot_becomes_steps(spec, bag):
    data = read_bags([bag], spec).transitions
    assert len(data) == SECONDS * 10 and data.episode_count == 1
    expected = {"y": 0.0, "heading_sin": 0.0, "heading_cos": 1.0, "speed": 0.5, "front_0": 0.4}
    for name, value in expected.items():
        assert data.observations[0, spec.feature_names.index(name)] == pytest.approx(value), name
    assert data.actions[5] == pytest.approx([0.0, 0.0])  # the commands are in the middle of their bounds
    np.testing.assert_allclose(data.rewards[1:-1], 0.05, atol=1e-6)
    assert np.flatnonzero(data.costs).tolist() == list(range(19, 30))  # of the states from 2 s on
