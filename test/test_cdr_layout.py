"""Fields decoded in bulk are what rosbags decodes message by message; what does not fit is never guessed at."""

from operator import attrgetter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.serde import SerdeError

from saferule_core.data.cdr_layout import Layout
from saferule_core.data.message_types import empty_message, standard_types, types_of
from saferule_core.errors import DataError, SpecError

ODD = (
    "bool flag\nstring[] names\nfloat64 value\nuint8[3] few\nPart[] parts\nint16 small\nPart[2] pair\nstring last\n"
    "float32[] late\nuint64 number\nint8[] bytes\n"
    + "=" * 80 + "\nMSG: own_msgs/Part\nuint8 kind\nfloat64 weight\nstring text\nint16[] marks\n"
)  # fmt: skip
STANDARD = (
    "nav_msgs/msg/Odometry", "sensor_msgs/msg/JointState", "sensor_msgs/msg/Imu", "sensor_msgs/msg/LaserScan",
    "geometry_msgs/msg/TwistStamped", "std_msgs/msg/Float64MultiArray", "std_msgs/msg/String", "std_msgs/msg/Empty",
    "tf2_msgs/msg/TFMessage", "sensor_msgs/msg/NavSatFix", "sensor_msgs/msg/BatteryState",
    "trajectory_msgs/msg/JointTrajectory", "diagnostic_msgs/msg/DiagnosticArray", "geometry_msgs/msg/PoseStamped",
)  # fmt: skip
TYPES = types_of((("own_msgs/msg/Odd", MessageDefinition(MessageDefinitionFormat.MSG, ODD)),))
CASES = [(standard_types(), kind) for kind in STANDARD] + [(TYPES, "own_msgs/msg/Odd")]


def filled(types, kind, rng):
    """Return a message of random content; sequences and texts of random lengths."""
    message = empty_message(types, kind)
    for name, node in types.fielddefs[kind][1]:
        setattr(message, name, value_of(types, node, rng))
    return message


def value_of(types, node, rng):
    what, detail = node
    if what == Nodetype.NAME:
        return filled(types, detail, rng)
    if what == Nodetype.BASE:
        if detail[0] == "string":
            return "".join(rng.choice(list("abc/ä€"), rng.integers(0, 9)))
        if detail[0] == "bool":
            return bool(rng.integers(2))
        return numbers(detail[0], 1, rng)[0].item()
    (inner, inner_detail), length = detail
    count = length if what == Nodetype.ARRAY else int(rng.integers(0, 5))
    if inner == Nodetype.BASE and inner_detail[0] != "string":
        return numbers(inner_detail[0], count, rng)
    return [value_of(types, (inner, inner_detail), rng) for _ in range(count)]


def numbers(name, count, rng):
    dtype = np.dtype({"char": "uint8", "byte": "int8", "octet": "uint8"}.get(name, name))
    if dtype.kind == "f":
        return rng.normal(size=count).astype(dtype)
    return rng.integers(0, 100, count).astype(dtype)


def leaves(types, kind, prefix=""):
    """Return the paths of all numbers, texts and arrays of numbers that are outside of sequences."""
    found = []
    for name, (what, detail) in types.fielddefs[kind][1]:
        if what == Nodetype.NAME:
            found += leaves(types, detail, f"{prefix}{name}.")
        elif what == Nodetype.BASE or (what == Nodetype.ARRAY and detail[0][0] == Nodetype.BASE):
            found.append(prefix + name)
    return found


def packed(messages, gap=3):
    """Return bytes with all messages in them, rubbish between, and where each is."""
    data, start = b"\xff" * gap, []
    for message in messages:
        start.append(len(data))
        data += bytes(message) + b"\xff" * gap
    size = [len(message) for message in messages]
    return np.frombuffer(data, np.uint8), np.array(start), np.array(size)


@pytest.mark.parametrize(("types", "kind"), CASES, ids=[kind for _, kind in CASES])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 7))
def test_bulk_is_what_rosbags_decodes(types, kind, seed, count):
    rng = np.random.default_rng(seed)
    messages = [filled(types, kind, rng) for _ in range(count)]
    fields = leaves(types, kind)
    layout = Layout(types, kind, fields)
    good, stamps, columns = layout.decode(*packed([types.serialize_cdr(message, kind) for message in messages]))
    assert good.all()
    for path in fields:
        wanted = [attrgetter(path)(message) for message in messages]
        np.testing.assert_array_equal(columns[path], np.array(wanted), err_msg=path)
    if layout.stamp:
        stamp = [attrgetter(layout.stamp)(message) for message in messages]
        assert stamps.tolist() == [part.sec * 10**9 + part.nanosec for part in stamp]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), case=st.sampled_from(CASES), cut=st.integers(1, 40), grown=st.booleans())
def test_a_message_of_another_length_is_never_good_unless_rosbags_takes_it(seed, case, cut, grown):
    types, kind = case
    rng = np.random.default_rng(seed)
    data = bytes(types.serialize_cdr(filled(types, kind, rng), kind))
    data = data + bytes(cut) if grown else data[:-cut]
    good, _, _ = Layout(types, kind, leaves(types, kind)).decode(*packed([data]))
    try:
        types.deserialize_cdr(data, kind)
    except (SerdeError, IndexError):
        assert not good.any()


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), case=st.sampled_from(CASES))
def test_changed_bytes_give_what_rosbags_gives_or_nothing(data, seed, case):
    types, kind = case
    rng = np.random.default_rng(seed)
    raw = bytearray(types.serialize_cdr(filled(types, kind, rng), kind))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    fields = [path for path in leaves(types, kind) if path in Layout(types, kind, leaves(types, kind)).columns]
    good, _, columns = Layout(types, kind, fields).decode(*packed([bytes(raw)]))
    try:
        message = types.deserialize_cdr(bytes(raw), kind)
    except (SerdeError, IndexError):
        return
    if good[0]:
        for path in fields:
            np.testing.assert_array_equal(columns[path][0], attrgetter(path)(message), err_msg=path)


def test_elements_slices_whole_sequences_and_quaternions():
    types, kind = standard_types(), "sensor_msgs/msg/JointState"
    rows = []
    for row in range(4):
        message = empty_message(types, kind)
        message.header.frame_id, message.name = "x" * row, ["joint"] * row
        message.position, message.velocity = np.arange(5.0) + row, np.arange(3.0) * row
        rows.append(types.serialize_cdr(message, kind))
    fields = ("position[1]", "position[2:4]", "velocity")
    good, _, columns = Layout(types, kind, fields).decode(*packed(rows))
    assert good.all()
    assert columns["position[1]"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert columns["position[2:4]"].tolist() == [[2.0, 3.0], [3.0, 4.0], [4.0, 5.0], [5.0, 6.0]]
    assert columns["velocity"].tolist() == [[0.0, row, 2.0 * row] for row in range(4)]
    kind = "geometry_msgs/msg/PoseStamped"
    message = empty_message(types, kind)
    message.pose.orientation.x, message.pose.orientation.w = 0.6, 0.8
    _, _, columns = Layout(types, kind, ("pose.orientation",)).decode(*packed([types.serialize_cdr(message, kind)]))
    assert columns["pose.orientation"].tolist() == [[0.6, 0.0, 0.0, 0.8]]


def test_big_endian_and_short_sequences_are_left_to_rosbags():
    types, kind = standard_types(), "std_msgs/msg/Float64MultiArray"
    message = empty_message(types, kind)
    message.data = np.arange(3.0)
    little = types.serialize_cdr(message, kind)
    big = types.serialize_cdr(message, kind, little_endian=False)
    good, _, _ = Layout(types, kind, ("data[0:3]",)).decode(*packed([little, big, b"", b"\x00\x01"]))
    assert good.tolist() == [True, False, False, False]
    good, _, _ = Layout(types, kind, ("data[3]",)).decode(*packed([little]))
    assert not good.any()


@pytest.mark.parametrize("path", ["pose.pose.place", "pose.pose", "pose.covariance[36]", "pose.pose.position.x[0]"])
def test_fields_that_are_no_numbers_are_refused(path):
    with pytest.raises(SpecError):
        Layout(standard_types(), "nav_msgs/msg/Odometry", (path,))


def test_a_part_without_a_definition_is_named():
    text = "Missing part\nfloat64 value\n"
    types = types_of((("own_msgs/msg/Broken", MessageDefinition(MessageDefinitionFormat.MSG, text)),))
    with pytest.raises(DataError, match="own_msgs/msg/Broken: expected a definition of its part own_msgs/msg/Missing"):
        Layout(types, "own_msgs/msg/Broken", ("value",))
