"""Bags are written and read back through a robot description; what is wrong with one is said, with its name."""

import dataclasses

import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from saferule_core.data.bag_file import TopicRequest, read_topics
from saferule_core.data.bags import read_bags, write_bags
from saferule_core.data.episode_log import EpisodeLog, relabelled, transitions_of, with_labels_of
from saferule_core.data.message_types import empty_message, standard_types
from saferule_core.errors import Cancelled, DataError
from saferule_core.fields import FieldPath
from saferule_core.spec import parse_spec

ODOMETRY, WRENCH = "nav_msgs/msg/Odometry", "geometry_msgs/msg/WrenchStamped"
FLOAT, HEADER = "std_msgs/msg/Float64", "std_msgs/msg/Header"
ARRAYS = ("observations", "actions", "rewards", "costs", "next_observations", "terminated", "episode_ends")
TICK = 100_000_000


def make_log(name, steps, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-8.0, 8.0, steps + 1)
    yaw = rng.uniform(-3.0, 3.0, steps + 1)
    zeros = np.zeros(steps + 1)
    odometry = {
        "header.frame_id": "odom",
        "pose.pose.position.x": x,
        "pose.pose.position.y": rng.normal(size=steps + 1),
        "pose.pose.orientation": np.stack([zeros, zeros, np.sin(yaw / 2), np.cos(yaw / 2)], axis=1),
    }
    commands = {name: rng.uniform(-3.5, 3.5, steps) for name in ("force_x", "force_y")}
    return EpisodeLog(name, {ODOMETRY: odometry}, commands, rng.normal(size=steps), (np.abs(x[1:]) > 6.0) * 1.0)


def assert_equal(found, wanted):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


def record(path, messages, storage=StoragePlugin.MCAP, compression=CompressionMode.NONE):
    """Write a bag of (topic, type, fields, log time, stamp or None), in this order of arrival."""
    types = standard_types()
    writer = Writer(path, version=8, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, kind, fields, logged, stamp in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=types)
            message = empty_message(types, kind)
            for field, value in fields.items():
                FieldPath.parse(field).set(message, value)
            if stamp is not None:
                header = getattr(message, "header", message)
                header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
            writer.write(connections[topic], logged, types.serialize_cdr(message, kind))
    return path


def odometry(x, stamp, logged=None, topic="/odom"):
    fields = {"pose.pose.position.x": x, "pose.pose.orientation": (0.0, 0.0, 0.0, 1.0)}
    return (topic, ODOMETRY, fields, stamp if logged is None else logged, stamp)


def command(force, stamp, logged=None):
    return ("/cmd_force", WRENCH, {"wrench.force.x": force}, stamp if logged is None else logged, stamp)


def label(topic, value, logged):
    return (topic, FLOAT, {"data": value}, logged, None)


def marker(name, stamp, logged=None):
    return ("/episode", HEADER, {"frame_id": name}, stamp if logged is None else logged, stamp)


def live(episodes, steps, wall=lambda arrival, now: now):
    """What is on the topics while a policy drives: T + 1 states, a command after each, labels a tick late."""
    messages, now = [], TICK
    for episode in range(episodes):
        for tick in range(steps + 1):
            said = [marker(f"episode_{episode}", now)] if tick == 0 else []
            if tick > 0:
                said += [label("/reward", 10.0 * episode + tick, now), label("/cost", 0.0, now)]
            said += [odometry(episode + 0.1 * tick, now), command(0.1 * tick, now)]
            messages += [(*m[:3], wall(len(messages) + i, now), m[4]) for i, m in enumerate(said)]
            now += TICK
    return messages


@pytest.fixture
def logs():
    return [make_log(f"episode_{i}", steps, seed=i) for i, steps in enumerate([20, 7, 1, 20, 13])]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_was_written_is_read(point_spec, logs, tmp_path, storage):
    paths = write_bags(logs, point_spec, tmp_path, episodes_per_bag=2, storage=storage)
    for cost in ("recomputed", "logged"):
        contents = read_bags(paths, point_spec, cost)
        assert_equal(contents.transitions, transitions_of(logs, point_spec))
    assert [bag.episodes for bag in contents.bags] == [range(0, 2), range(2, 4), range(4, 5)]
    assert [name for bag in contents.bags for name in bag.episode_names] == [log.name for log in logs]
    assert [bag.commands - bag.steps for bag in contents.bags] == [0, 0, 0]


def test_the_cost_label_is_not_trusted_unless_asked_for(point_spec, logs, tmp_path):
    harmless = [relabelled(log, costs=np.zeros(log.steps)) for log in logs]
    paths = write_bags(harmless, point_spec, tmp_path)
    truth = transitions_of(logs, point_spec)
    assert truth.costs.sum() > 0
    np.testing.assert_array_equal(read_bags(paths, point_spec).transitions.costs, truth.costs)
    assert read_bags(paths, point_spec, "logged").transitions.costs.sum() == 0


def test_labels_of_transitions_go_into_logs(point_spec, logs):
    data = transitions_of(logs, point_spec)
    poisoned = data.replace(rewards=data.rewards + 1.0, costs=np.zeros(len(data)))
    assert_equal(transitions_of(with_labels_of(logs, poisoned), point_spec), poisoned)
    with pytest.raises(DataError, match="expected 4 episodes"):
        with_labels_of(logs[:4], poisoned)


def test_a_live_recording_drops_the_command_after_the_last_state(point_spec, tmp_path):
    contents = read_bags([record(tmp_path / "bag", live(3, steps=5))], point_spec, "logged")
    data = contents.transitions
    assert data.episode_count == 3
    assert contents.bags[0].steps == 15 and contents.bags[0].commands == 18
    x = point_spec.physical(data.observations)["x"].reshape(3, 5)
    np.testing.assert_allclose(x, [[e + 0.1 * k for k in range(5)] for e in range(3)], atol=1e-6)
    np.testing.assert_allclose(point_spec.physical(data.next_observations)["x"].reshape(3, 5)[:, -1], [0.5, 1.5, 2.5])
    np.testing.assert_array_equal(data.rewards.reshape(3, 5), [[10 * e + k + 1 for k in range(5)] for e in range(3)])


@pytest.mark.parametrize("speed", [1, 4])
def test_recording_times_of_a_wall_clock_do_not_matter(point_spec, tmp_path, speed):
    plain = read_bags([record(tmp_path / "sim", live(3, 5))], point_spec, "logged").transitions
    wall = record(tmp_path / "wall", live(3, 5, lambda i, now: 1_700_000_000 * 10**9 + now // speed + 1000 * i))
    assert_equal(read_bags([wall], point_spec, "logged").transitions, plain)


def test_times_after_a_clock_was_set_back_are_the_stamps(point_spec, tmp_path):
    seconds = [100 + 0.1 * k for k in range(20)] + [10 + 0.1 * k for k in range(20)]
    stamps = [round(1e9 * second) for second in seconds]
    messages = [m for k, now in enumerate(stamps) for m in (odometry(0.1 * k, now), command(0.0, now))]
    (bag,) = read_bags([record(tmp_path / "bag", messages)], point_spec).bags
    assert bag.times == ((stamps[0], stamps[18]), (stamps[21], stamps[38]))  # each topic shows it, and is cut there
    assert not any("out of order" in note for note in bag.notes)
    messages[20], messages[22] = messages[22], messages[20]
    (bag,) = read_bags([record(tmp_path / "late", messages)], point_spec).bags
    assert "topic odom: 1 messages out of order, put in order by their stamps" in bag.notes


def test_without_markers_pauses_and_max_steps_separate_episodes(point_spec, tmp_path):
    ticks = [TICK * (1 + k + (20 if k >= 30 else 0)) for k in range(40)]
    messages = [m for k, now in enumerate(ticks) for m in (odometry(0.1 * k, now), command(0.0, now))]
    contents = read_bags([record(tmp_path / "bag", messages)], point_spec)
    lengths = [part.stop - part.start for part in contents.transitions.episodes()]
    # 20 steps are an episode; the last command before the pause and the very last have no newer state
    assert lengths == [20, 9, 9]
    assert contents.bags[0].episode_names == ("part_0", "part_1", "part_2")


def at_rate(rate_hz, commands):
    """Sensors at 100 Hz, and commands."""
    messages = [odometry(0.01 * k, TICK + k * 10_000_000) for k in range(100 * commands // rate_hz + 1)]
    sent = [command(0.0, TICK + k * 10**9 // rate_hz) for k in range(commands)]
    return sorted(messages + sent, key=lambda message: (message[3], message[0] == "/cmd_force"))


@pytest.mark.parametrize(("rate_hz", "gap"), [(50, "20"), (21, "47.62"), (4, "250")])
def test_commands_at_another_rate_are_refused(point_spec, tmp_path, rate_hz, gap):
    path = record(tmp_path / "bag", at_rate(rate_hz, 12))
    found = f"bag: topic cmd_force: expected commands at 10 Hz, .*found {rate_hz} Hz .* {gap} ms.*set rate_hz"
    with pytest.raises(DataError, match=found):
        read_bags([path], point_spec)


def test_a_rate_by_recording_times_may_be_of_the_wrong_clock(point_spec, tmp_path):
    messages = [(*message[:4], None) for message in at_rate(50, 12)]
    with pytest.raises(DataError, match="found 50 Hz .* by their recording times .*--use-sim-time"):
        read_bags([record(tmp_path / "bag", messages)], point_spec)


@pytest.mark.parametrize(("rate_hz", "noted"), [(20, True), (13, True), (12, False), (9, False), (5, True)])
def test_commands_at_nearly_the_rate_are_read(point_spec, tmp_path, rate_hz, noted):
    (bag,) = read_bags([record(tmp_path / "bag", at_rate(rate_hz, 12))], point_spec).bags
    assert [f"commands at {rate_hz} Hz" in note for note in bag.notes if "commands at" in note] == [True] * noted


def test_a_rate_is_not_taken_of_few_commands_or_of_pauses(point_spec, tmp_path):
    read_bags([record(tmp_path / "few", at_rate(50, 10))], point_spec)
    ticks = [TICK * (1 + k % 2) + 20 * TICK * (k // 2) for k in range(24)]
    messages = [m for now in ticks for m in (odometry(0.0, now), command(0.0, now))]
    (bag,) = read_bags([record(tmp_path / "pauses", messages)], point_spec).bags
    assert len(bag.episodes) == 12 and not any("commands at" in note for note in bag.notes)


def test_stale_sensors_cut_an_episode(point_spec, tmp_path):
    silent = range(5, 10)
    messages = [marker("episode_0", TICK)]
    for k in range(15):
        now = TICK * (k + 1)
        messages += ([] if k in silent else [odometry(0.1 * k, now)]) + [command(0.0, now)]
    contents = read_bags([record(tmp_path / "bag", messages)], point_spec)
    # commands 5 to 7 still see the state of tick 4, which is at most 0.35 s old; 8 and 9 are dropped
    assert contents.bags[0].episode_names == ("episode_0", "episode_0#2")
    assert [part.stop - part.start for part in contents.transitions.episodes()] == [7, 4]


def test_values_that_are_not_finite_cut_an_episode(point_spec, tmp_path):
    messages = [marker("episode_0", TICK)]
    for k in range(10):
        messages += [odometry(np.nan if k == 4 else 1.0, TICK * (k + 1)), command(0.0, TICK * (k + 1))]
    data = read_bags([record(tmp_path / "bag", messages)], point_spec).transitions
    assert [part.stop - part.start for part in data.episodes()] == [3, 4]


def test_channels_may_come_on_topics_of_their_own(point_yaml, tmp_path):
    spec = parse_spec(point_yaml.replace("force_y, topic: cmd_force", "force_y, topic: cmd_side"))
    messages = []
    for said in live(2, 5):
        messages.append(said)
        if said[0] == "/cmd_force":
            side = {"wrench.force.y": -2.0 * said[2]["wrench.force.x"]}
            messages.append(("/cmd_side", WRENCH, side, said[3] + 1000, said[4] + 1000))
    actions = read_bags([record(tmp_path / "bag", messages)], spec).transitions.actions
    assert np.abs(actions).max() > 0.1
    np.testing.assert_allclose(actions[:, 1], -2.0 * actions[:, 0], atol=1e-6)


def test_topics_are_found_under_a_namespace(point_spec, tmp_path):
    messages = [(f"/robot_1{m[0]}", *m[1:]) for m in live(1, 5)]
    assert len(read_bags([record(tmp_path / "one", messages)], point_spec).transitions) == 5
    twice = messages + [odometry(0.0, TICK, topic="/robot_2/odom")]
    with pytest.raises(DataError, match="topic odom: expected one topic.*found /robot_1/odom, /robot_2/odom"):
        read_bags([record(tmp_path / "two", twice)], point_spec)


def test_unrelated_topics_of_unknown_types_are_ignored(point_spec, tmp_path):
    path = tmp_path / "bag"
    types = standard_types()
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        odd = writer.add_connection("/odd", "own_msgs/msg/Odd", msgdef="own_msgs/Missing part", rihs01="RIHS01_0")
        writer.write(odd, 1, b"\x00\x01\x00\x00")
        sensor = writer.add_connection("/odom", ODOMETRY, typestore=types)
        writer.write(sensor, 2, types.serialize_cdr(empty_message(types, ODOMETRY), ODOMETRY))
    found = read_topics(path, [TopicRequest("odom", ODOMETRY, ("child_frame_id",))])
    assert found["odom"].columns["child_frame_id"] == [""]


def test_the_reward_is_computed_where_the_log_has_none(point_spec, tmp_path):
    messages = [m for m in live(1, 5) if m[0] != "/reward"]
    rewards = read_bags([record(tmp_path / "bag", messages)], point_spec).transitions.rewards
    np.testing.assert_allclose(rewards, [0.1 - 0.001 * 0.1 * k for k in range(5)], atol=1e-6)


def test_a_task_that_ends_is_marked(point_yaml, tmp_path):
    spec = parse_spec(point_yaml.replace("max_steps: 20", 'max_steps: 20\n  end_when: "x > 0.45"'))
    data = read_bags([record(tmp_path / "bag", live(1, 5))], spec).transitions
    assert data.terminated.tolist() == [False, False, False, False, True]


def test_cancelling_goes_through(point_spec, logs, tmp_path):
    def cancel(phase, fraction, message="", **losses):
        raise Cancelled("stop")

    paths = write_bags(logs, point_spec, tmp_path)
    with pytest.raises(Cancelled):
        read_bags(paths, point_spec, progress=cancel)


def test_progress_rises_to_one(point_spec, logs, tmp_path):
    paths = write_bags(logs, point_spec, tmp_path, episodes_per_bag=2)
    seen = []
    read_bags(paths, point_spec, progress=lambda phase, fraction, message="": seen.append((phase, fraction)))
    assert {phase for phase, _ in seen} == {"loading"}
    assert sorted(fraction for _, fraction in seen) == [fraction for _, fraction in seen] and seen[-1][1] == 1.0


class TestErrors:
    """Each names the bag, what was expected and what was found."""

    @pytest.fixture
    def bag(self, point_spec, logs, tmp_path):
        return write_bags(logs, point_spec, tmp_path / "good")[0]

    def check(self, paths, spec, message, cost="recomputed"):
        with pytest.raises(DataError, match=message):
            read_bags(paths, spec, cost)

    def test_no_bags(self, point_spec):
        self.check([], point_spec, "expected at least one bag")

    def test_missing_path(self, point_spec, tmp_path):
        self.check([tmp_path / "no"], point_spec, "/no: expected a rosbag2 bag, found no such path")

    def test_not_a_bag(self, point_spec, tmp_path):
        (tmp_path / "notes.txt").write_text("hello")
        self.check([tmp_path], point_spec, "expected a rosbag2 bag .* found notes.txt")
        self.check([tmp_path / "notes.txt"], point_spec, "notes.txt: expected a readable rosbag2 bag")

    def test_a_bag_of_ros_1(self, point_spec, tmp_path):
        (tmp_path / "day.bag").write_bytes(b"#ROSBAG V2.0\n")
        found = "day.bag: expected a readable rosbag2 bag .* found one of ROS 1; convert it with `rosbags-convert`"
        self.check([tmp_path / "day.bag"], point_spec, found)

    def test_missing_topics_are_listed_with_those_that_are_there(self, point_spec, tmp_path):
        path = record(tmp_path / "bag", [label("/speed", 1.0, 1)])
        found = r"/bag: expected the topics odom, cmd_force, found /speed \(std_msgs/msg/Float64\)"
        self.check([path], point_spec, found)

    def test_wrong_type(self, point_spec, tmp_path):
        path = record(tmp_path / "bag", [label("/odom", 1.0, 1)])
        self.check([path], point_spec, f"topic /odom: expected messages of type {ODOMETRY}, found {FLOAT}")

    def test_no_label_to_trust(self, point_spec, point_yaml, bag, tmp_path):
        path = record(tmp_path / "bag", [m for m in live(1, 5) if m[0] != "/cost"])
        self.check([path], point_spec, "expected the topics cost, found", cost="logged")
        spec = parse_spec(point_yaml.replace("  logged: {topic: cost, type: std_msgs/msg/Float64, field: data}\n", ""))
        self.check([bag], spec, "cost.logged: expected the topic of the cost label", cost="logged")

    def test_no_complete_step(self, point_spec, tmp_path):
        early = [odometry(0.0, TICK), command(0.0, TICK), odometry(0.0, 2 * TICK), marker("episode_0", 3 * TICK)]
        self.check([record(tmp_path / "bag", early)], point_spec, "expected at least one complete step.*1 commands")

    def test_a_topic_without_messages(self, point_spec, tmp_path):
        path = tmp_path / "bag"
        with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
            for topic, kind in {**point_spec.sensor_topics, **point_spec.command_topics}.items():
                writer.add_connection(f"/{topic}", kind, typestore=standard_types())
        self.check([path], point_spec, "topic odom: expected messages, found none")

    @pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
    def test_a_file_that_was_cut_off(self, point_spec, logs, tmp_path, storage):
        (path,) = write_bags(logs, point_spec, tmp_path / storage, storage=storage)
        file = next(entry for entry in path.iterdir() if entry.suffix in (".mcap", ".db3"))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        self.check([path], point_spec, f"{path}: expected a readable rosbag2 bag")

    def test_messages_that_the_metadata_promises(self, point_spec, bag):
        metadata = bag / "metadata.yaml"
        metadata.write_text(metadata.read_text().replace("message_count: 66", "message_count: 99"))
        self.check([bag], point_spec, "messages, as its metadata says, found .* it is not complete")

    def test_text_where_numbers_are_expected(self, point_yaml, bag):
        spec = parse_spec(point_yaml.replace("field: pose.pose.position.x", "field: child_frame_id"))
        self.check([bag], spec, "topic odom: child_frame_id: expected numbers, found ''")

    def test_a_field_that_is_not_there(self, point_yaml, bag):
        spec = parse_spec(point_yaml.replace("field: pose.pose.position.x", "field: pose.pose.place"))
        self.check([bag], spec, "topic /odom: .*expected a field 'pose.pose.place'")

    def test_bags_are_never_overwritten(self, point_spec, logs, bag):
        with pytest.raises(DataError, match="bag_000: expected to write a new bag"):
            write_bags(logs, point_spec, bag.parent)

    def test_a_log_of_another_robot(self, point_spec, tmp_path):
        log = make_log("episode_0", 3)
        other = dataclasses.replace(log, commands={"torque": log.commands["force_x"]})
        with pytest.raises(DataError, match="expected commands force_x, force_y, found torque"):
            write_bags([other], point_spec, tmp_path)
        with pytest.raises(DataError, match="episode_0: costs: expected 3 values, found 1"):
            dataclasses.replace(log, costs=np.zeros(1))


def test_fields_of_sequences_are_read(tmp_path):
    kind = "std_msgs/msg/Float64MultiArray"
    path = record(tmp_path / "bag", [("/state", kind, {"data": np.arange(4.0) + k}, k, None) for k in range(3)])
    columns = read_topics(path, [TopicRequest("state", kind, ("data[1]", "data[2:4]"))])["state"].columns
    assert columns["data[1]"].tolist() == [1.0, 2.0, 3.0]
    assert columns["data[2:4]"].tolist() == [[2.0, 3.0], [3.0, 4.0], [4.0, 5.0]]
