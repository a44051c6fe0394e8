"""MCAP files as other writers make them, and ours as another reader sees them.

The package `mcap` is the format's own; it is no requirement of saferule, and its tests are left out where it is not.
"""

import struct
import zlib

import lz4.frame
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.reader import zstd
from test_bags import make_log
from test_recording import DEFINITIONS

from saferule_core.data.bag_file import TopicRequest, read_topics
from saferule_core.data.bag_metadata import read_metadata
from saferule_core.data.bags import write_bags
from saferule_core.data.mcap_file import CHANNEL, CHUNK, DATA_END, FOOTER, HEADER, MAGIC, MESSAGE, SCHEMA, STATISTICS
from saferule_core.data.mcap_records import decompressed, records
from saferule_core.data.message_types import empty_message, standard_types
from saferule_core.data.recording import Recording
from saferule_core.errors import DataError

FLOAT, STRING = "std_msgs/msg/Float64", "std_msgs/msg/String"
REQUESTS = [TopicRequest("speed", FLOAT, ("data",)), TopicRequest("mode", STRING, ("data",))]
COUNT = 50
PACKERS = {"": bytes, "lz4": lz4.frame.compress, "zstd": zstd.compress}


def messages():
    """Yield topic, type, serialized message."""
    types = standard_types()
    for number in range(COUNT):
        for topic, kind, value in (("/speed", FLOAT, float(number)), ("/mode", STRING, "ab"[: number % 3])):
            message = empty_message(types, kind)
            message.data = value
            yield topic, kind, bytes(types.serialize_cdr(message, kind))


def check(path):
    """Compare a bag with what `messages` gives."""
    found = read_topics(path, REQUESTS)
    assert found["speed"].columns["data"].tolist() == list(range(COUNT))
    assert found["mode"].columns["data"] == ["ab"[: number % 3] for number in range(COUNT)]


@pytest.fixture
def parts(tmp_path):
    """The contents of an MCAP file's records, those in chunks included, by opcode; without doubles."""
    types = standard_types()
    writer = Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connections = {r.topic: writer.add_connection(f"/{r.topic}", r.type, typestore=types) for r in REQUESTS}
        for number, (topic, _, data) in enumerate(messages()):
            writer.write(connections[topic.strip("/")], number, data)
    data = (tmp_path / "bag" / "bag.mcap").read_bytes()
    found = {}
    for op, begin, end in records(data[len(MAGIC) : -len(MAGIC)]):
        content = data[len(MAGIC) + begin : len(MAGIC) + end]
        if op == CHUNK:
            size, (length,) = struct.unpack_from("<Q", content, 16)[0], struct.unpack_from("<I", content, 28)
            name, packed = content[32 : 32 + length].decode(), memoryview(content)[32 + length + 8 :]
            inner = decompressed(name, packed, size)
            for op_inside, first, last in records(inner):
                found.setdefault(op_inside, {})[inner[first:last]] = None
        else:
            found.setdefault(op, {})[content] = None
    return {op: list(contents) for op, contents in found.items()}


def as_records(op, contents):
    return b"".join(struct.pack("<BQ", op, len(content)) + content for content in contents)


def mcap_bytes(parts, compression, summary):
    """Return a file with two chunks and the opcodes `summary` in its summary."""
    data = MAGIC + as_records(HEADER, parts[HEADER])
    half = len(parts[MESSAGE]) // 2
    for number, some in enumerate((parts[MESSAGE][:half], parts[MESSAGE][half:])):
        heads = b"".join(as_records(op, parts[op]) for op in (SCHEMA, CHANNEL)) if number == 0 else b""
        inner = heads + as_records(MESSAGE, some)
        name, packed = compression.encode(), PACKERS[compression](inner)
        chunk = struct.pack("<QQQII", 0, 2 * COUNT, len(inner), zlib.crc32(inner), len(name)) + name
        data += as_records(CHUNK, [chunk + struct.pack("<Q", len(packed)) + packed])
    data += as_records(DATA_END, [bytes(4)])
    begin = len(data)
    for op in summary:
        data += as_records(op, parts[op])
    return data + as_records(FOOTER, [struct.pack("<QQI", begin if summary else 0, 0, 0)]) + MAGIC


@pytest.mark.parametrize("compression", PACKERS)
def test_chunks_of_every_compression_are_read(parts, tmp_path, compression):
    (tmp_path / "made.mcap").write_bytes(mcap_bytes(parts, compression, (SCHEMA, CHANNEL, STATISTICS)))
    check(tmp_path / "made.mcap")


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_damaged_chunk_is_refused(parts, tmp_path, compression):
    data = bytearray(mcap_bytes(parts, compression, (SCHEMA, CHANNEL, STATISTICS)))
    data[data.index(compression.encode()) + 200] ^= 0x10
    (tmp_path / "made.mcap").write_bytes(data)
    with pytest.raises(DataError, match="made.mcap: expected a readable rosbag2 bag .* damaged: expected a chunk"):
        read_topics(tmp_path / "made.mcap", REQUESTS)


@pytest.mark.parametrize(
    "summary",
    [(), (STATISTICS,), (CHANNEL,), (CHANNEL, STATISTICS), (SCHEMA, STATISTICS), (CHANNEL, SCHEMA, STATISTICS)],
)
def test_what_a_summary_does_not_repeat_is_found_in_the_data(parts, tmp_path, summary):
    (tmp_path / "made.mcap").write_bytes(mcap_bytes(parts, "zstd", summary))
    check(tmp_path / "made.mcap")


@pytest.mark.parametrize("repeat", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("chunks", ["NONE", "LZ4", "ZSTD", None])
def test_files_of_the_formats_own_writer_are_read(tmp_path, chunks, repeat):
    writer_module = pytest.importorskip("mcap.writer", reason="the package mcap is not installed")
    compression = writer_module.CompressionType[chunks or "NONE"]
    writer = writer_module.Writer(
        str(tmp_path / "own.mcap"), chunk_size=1000, compression=compression, use_chunking=chunks is not None,
        repeat_channels=repeat[0], repeat_schemas=repeat[1], enable_data_crcs=True,
    )  # fmt: skip
    writer.start(profile="ros2")
    texts, channels = {FLOAT: b"float64 data\n", STRING: b"string data\n"}, {}
    for number, (topic, kind, data) in enumerate(messages()):
        if topic not in channels:
            schema = writer.register_schema(kind, "ros2msg", texts[kind])
            channels[topic] = writer.register_channel(topic, "cdr", schema)
        writer.add_message(channels[topic], number, data, number)
    writer.finish()
    check(tmp_path / "own.mcap")


@pytest.mark.parametrize("ours", ["written", "recorded", "flushed"])
def test_our_files_are_right_for_the_formats_own_reader(point_spec, tmp_path, ours):
    """With all its checksums, by its index and from front to back."""
    reader_module = pytest.importorskip("mcap.reader", reason="the package mcap is not installed")
    if ours == "written":
        (path,) = write_bags([make_log("episode_0", 200)], point_spec, tmp_path)
    else:
        recording = Recording(tmp_path, {"speed": FLOAT, "mode": STRING}, DEFINITIONS.__getitem__)
        for number, (topic, _, data) in enumerate(messages()):
            recording.write(topic.strip("/"), data, number)
            if ours == "flushed" and number % 7 == 0:
                recording.flush()
        recording.close()
        (path,) = recording.folder.iterdir()
    metadata, found = read_metadata(path), []
    for kind in (reader_module.SeekingReader, reader_module.NonSeekingReader):
        with metadata.files[0].open("rb") as stream:
            read = kind(stream, validate_crcs=True).iter_messages(log_time_order=False)
            found.append([(channel.topic, message.log_time, message.data) for _, channel, message in read])
    assert found[0] == found[1] and len(found[0]) == metadata.messages > COUNT
    if ours != "written":
        assert [(topic, data) for topic, _, data in found[0]] == [(topic, data) for topic, _, data in messages()]
