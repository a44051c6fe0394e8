"""The worked example of docs/DATA.md is a robot description that loads, and reads the bag that the page describes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from saferule_core.cli import main
from saferule_core.data.bags import read_bags
from saferule_core.data.message_types import empty_message, standard_types
from saferule_core.spec import parse_spec
from saferule_core.store import PolicyStore

PAGE = Path(__file__).resolve().parents[1] / "docs" / "DATA.md"
MS, SECONDS, BEGIN = 1_000_000, 3, 1_700_000_000_000_000_000
TOPICS = {
    "/odom": ("nav_msgs/msg/Odometry", 50),
    "/scan": ("sensor_msgs/msg/LaserScan", 10),
    "/cmd_vel": ("geometry_msgs/msg/TwistStamped", 10),
    "/battery_state": ("sensor_msgs/msg/BatteryState", 1),
}


@pytest.fixture(scope="module")
def rover():
    """The description on the page, as text."""
    return re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]


@pytest.fixture(scope="module")
def spec(rover):
    return parse_spec(rover, "rover.yaml")


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


def record_day(path, y=0.0):
    """Three seconds along the corridor, at y [m], at 0.5 m/s; in the last second something is 0.25 m in front."""
    types = standard_types()
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
                message.pose.pose.position.y, message.pose.pose.orientation.w = y, 1.0
            elif topic == "/scan":
                message.ranges = np.full(360, 0.25 if passed > 1.95 else 4.0, np.float32)
            elif topic == "/cmd_vel":
                message.twist.linear.x, message.twist.angular.z = 0.4, 0.0
            writer.write(connections[topic], now, types.serialize_cdr(message, TOPICS[topic][0]))
    return path


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return record_day(tmp_path_factory.mktemp("logs") / "day_1")


def test_a_bag_of_such_a_robot_becomes_steps(spec, bag):
    data = read_bags([bag], spec).transitions
    assert len(data) == SECONDS * 10 and data.episode_count == 1
    expected = {"y": 0.0, "heading_sin": 0.0, "heading_cos": 1.0, "speed": 0.5, "front_0": 0.4}
    for name, value in expected.items():
        assert data.observations[0, spec.feature_names.index(name)] == pytest.approx(value), name
    assert data.actions[5] == pytest.approx([0.0, 0.0])  # the commands are in the middle of their bounds
    np.testing.assert_allclose(data.rewards[1:-1], 0.05, atol=1e-6)
    assert np.flatnonzero(data.costs).tolist() == list(range(19, 30))  # of the states from 2 s on


def words_of(page, verb):
    """The words of the page's own command, without `saferule`."""
    (line,) = re.findall(rf"^    saferule {verb} .*", page, re.MULTILINE)
    return line.split()[1:]


@pytest.fixture(scope="module")
def folder(rover, tmp_path_factory):
    """Where the commands of the page find what they name: rover.yaml, and logs/day_1 to day_3."""
    here = tmp_path_factory.mktemp("commands")
    (here / "logs").mkdir()
    (here / "rover.yaml").write_text(rover)
    for day in (1, 2, 3):
        record_day(here / "logs" / f"day_{day}", 0.1 * day)
    return here


def test_its_commands_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    page = PAGE.read_text(encoding="utf-8")
    assert main([*words_of(page, "train"), "--steps", "3", "--progress", "json"]) == 0
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert trained["steps"] == 2 * SECONDS * 10
    assert PolicyStore("store").card("active").details["cost"] == "recomputed"
    assert main([*words_of(page, "repair"), "--progress", "none"]) == 2
    assert "rover.yaml: simulation: expected a simulated robot" in capsys.readouterr().err
    quick = ["--method", "finetune", "--option", "steps=3", "--progress", "json"]
    assert main([*words_of(page, "unlearn"), *quick]) == 0
    candidate = json.loads(capsys.readouterr().out.splitlines()[-1])["candidate_id"]
    assert PolicyStore("store").resolve("active") == trained["policy_id"]
    assert main(["policies", "activate", candidate, "--store", "store", "--reason", "tested by hand"]) == 0


def test_without_a_label_a_logged_cost_cannot_be_asked_for(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = words_of(PAGE.read_text(encoding="utf-8"), "train")
    assert main([*words, "--cost", "logged", "--progress", "none"]) == 2
    assert "cost.logged: expected the topic of the cost label, found none" in capsys.readouterr().err


def test_the_scan_may_be_a_period_and_a_half_old(spec):
    (said,) = re.findall(r"([\d.]+) s for a 10 Hz scan", PAGE.read_text(encoding="utf-8"))
    (front,) = [signal for signal in spec.source_signals() if signal.name == "front"]
    assert float(said) == front.max_age == 1.5 / TOPICS["/scan"][1]


def test_the_beams_in_front_are_computed_as_the_page_says():
    page = PAGE.read_text(encoding="utf-8")
    (formula,) = re.findall(r"`(round\(.*?\))`", page)
    found = eval(formula, {"angle": 0.0, "angle_min": -np.pi, "angle_increment": np.pi / 180, "round": round})  # noqa: S307
    assert found == 180
