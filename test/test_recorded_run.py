"""A recorded run gives the policy the same observations, bit by bit, as it had while it drove."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer

from saferule_core.control import Controller
from saferule_core.data.bags import read_bags
from saferule_core.data.message_types import empty_message, standard_types
from saferule_core.signals import fill_commands
from saferule_core.spec import parse_spec

SPEC = parse_spec("""
name: rover
rate_hz: 10.0
episode: {max_steps: 100}
observation:
  - {name: x, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.x, scale: 0.37, max_age: 0.35}
  - {name: heading, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.orientation,
     transform: yaw_sin_cos, max_age: 0.25}
  - {name: attitude, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.orientation,
     transform: quaternion, max_age: 0.25}
  - {name: arm, topic: joints, type: sensor_msgs/msg/JointState, field: "position[1:3]", offset: 0.1, max_age: 0.2}
  - {name: charge, topic: charge, type: std_msgs/msg/Float64, field: data, clip: [-2.0, 2.0], max_age: 1.5}
  - {name: strain, expression: "exp(sin(x)) * hypot(arm_0, charge) + atan2(heading_sin, tanh(x))"}
action:
  - {name: speed, topic: cmd, type: geometry_msgs/msg/TwistStamped, field: twist.linear.x, low: -2, high: 2, unit: m/s}
cost: {limit: 1.0, constraints: [{name: far, expression: "abs(x) > 9.0"}]}
reward: {expression: "x - previous.x"}
""")
PERIODS_MS = {"odom": 20, "joints": 7, "charge": 400}
TICK_MS, MS = 100, 1_000_000
TYPES = standard_types()


class Watching:
    """A policy that keeps what it saw."""

    def __init__(self):
        self.seen = []

    def act(self, observations, memory=None):
        self.seen.append(observations[0].copy())
        return np.tanh(observations[:, :1])


def sensor(topic, now_ns, rng):
    """Return a message of random content; the battery has no header."""
    message = empty_message(TYPES, SPEC.sensor_topics[topic])
    if topic == "charge":
        message.data = rng.normal()
        return message
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns, 10**9)
    if topic == "joints":
        message.name, message.position = ["base", "shoulder", "elbow"], rng.normal(size=3)
    else:
        message.pose.pose.position.x = rng.normal()
        for axis in "xyzw":
            setattr(message.pose.pose.orientation, axis, rng.normal())
    return message


def stream(rng, milliseconds, dropped, overtaken):
    """Return (arrival time, topic, message) of sensors, in order of arrival; some are lost, some are overtaken.

    A late message is still there before the next tick: what comes later is known to a log only.
    """
    events = []
    for topic, period in PERIODS_MS.items():
        for at in range(1000 + int(rng.integers(period)), 1000 + milliseconds, period):
            if rng.random() < dropped:
                continue
            message = sensor(topic, at * MS, rng)
            late = topic != "charge" and at % TICK_MS and rng.random() < overtaken
            delay = int(rng.integers(TICK_MS - at % TICK_MS)) if late else 0
            events.append((at + delay, len(events), topic, message))
    return [(at * MS, topic, message) for at, _, topic, message in sorted(events, key=lambda event: event[:2])]


def drive_and_record(path, events, milliseconds, storage):
    """Let a controller drive on `events`, and record everything as it happens; return what the policy saw, by tick."""
    policy = Watching()
    controller = Controller(SPEC, policy, "watching")
    seen = {}
    with Writer(path, version=8, storage_plugin=storage) as writer:
        kinds = {**SPEC.sensor_topics, **SPEC.command_topics}
        connections = {name: writer.add_connection(f"/{name}", kind, typestore=TYPES) for name, kind in kinds.items()}

        def write(topic, message, now_ns):
            connection = connections[topic]
            writer.write(connection, now_ns, TYPES.serialize_cdr(message, connection.msgtype))

        waiting = list(events)
        for now_ns in range(1000 * MS, (1000 + milliseconds) * MS, TICK_MS * MS):
            while waiting and waiting[0][0] <= now_ns:
                at, topic, message = waiting.pop(0)
                controller.update(topic, message, at)
                write(topic, message, at)
            before = len(policy.seen)
            tick = controller.tick(now_ns)
            if len(policy.seen) > before:
                seen[now_ns] = policy.seen[-1]
            for topic, message in fill_commands(SPEC, tick.command, lambda kind: empty_message(TYPES, kind)).items():
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns, 10**9)
                write(topic, message, now_ns)
    return seen


def is_subsequence(part, whole):
    """Return whether `part` is in `whole` in this order."""
    rest = iter(whole)
    return all(any(entry == other for other in rest) for entry in part)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), dropped=st.sampled_from([0.0, 0.3, 0.6]), overtaken=st.sampled_from([0.0, 0.4]))
def test_offline_observations_are_the_live_ones(tmp_path_factory, seed, dropped, overtaken):
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("run") / "bag"
    storage = list(StoragePlugin)[int(rng.integers(2))]
    live = drive_and_record(path, stream(rng, 3000, dropped, overtaken), 3000, storage)
    assume(len(live) > 5)
    data = read_bags([path], SPEC).transitions
    assert is_subsequence([row.tobytes() for row in data.observations], [row.tobytes() for row in live.values()])
    # the last tick of each stretch may lead nowhere, and be no step; all others are steps
    stretches = sum(now - TICK_MS * MS not in live for now in live)
    assert 0 <= len(live) - len(data) <= stretches


def test_messages_out_of_order_are_noted(tmp_path):
    rng = np.random.default_rng(3)
    drive_and_record(tmp_path / "bag", stream(rng, 1000, 0.0, 0.4), 1000, StoragePlugin.MCAP)
    notes = read_bags([tmp_path / "bag"], SPEC).bags[0].notes
    assert any("topic odom: " in note and "out of order" in note for note in notes)


def test_nothing_of_before_a_clock_was_set_back_is_used_after_it(tmp_path):
    rng = np.random.default_rng(0)
    first = stream(rng, 2000, 0.0, 0.0)
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        kinds = {**SPEC.sensor_topics, **SPEC.command_topics}
        connections = {name: writer.add_connection(f"/{name}", kind, typestore=TYPES) for name, kind in kinds.items()}
        for run in range(2):
            for at, name, message in first:
                if name == "odom":
                    message.pose.pose.position.x = 5.0 * run + 1e-9 * at * 1e-3
                writer.write(connections[name], at, TYPES.serialize_cdr(message, kinds[name]))
                if name == "odom" and (at // MS) % 100 < 20:
                    command = empty_message(TYPES, kinds["cmd"])
                    command.header.stamp.sec, command.header.stamp.nanosec = divmod(at, 10**9)
                    writer.write(connections["cmd"], at, TYPES.serialize_cdr(command, kinds["cmd"]))
    contents = read_bags([tmp_path / "bag"], SPEC)
    data, (bag,) = contents.transitions, contents.bags
    assert data.episode_count == 2
    x = SPEC.physical(data.observations)["x"]
    following = SPEC.physical(data.next_observations)["x"]
    np.testing.assert_allclose(x > 2.5, np.repeat([False, True], np.diff(data.episode_bounds)))
    np.testing.assert_allclose(following > 2.5, x > 2.5)
    assert bag.times[0] == bag.times[1] and bag.times[0][0] < 2 * 10**9 < bag.times[0][1] < 3 * 10**9
    assert any("the clock was set back" in note for note in bag.notes)
    assert not any("out of order" in note for note in bag.notes)
    assert any("no header stamp: charge" in note for note in bag.notes)
