"""Bags written from serialized messages: complete, readable, split where episodes end."""

import json
import resource
import shutil
from contextlib import contextmanager

import pytest
import yaml
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from saferule_core.data.mcap_file import McapFile
from saferule_core.data.recording import RESERVED_BYTES, Recording, typestore_of
from saferule_core.data.storage import Damaged
from saferule_core.errors import DataError

TYPES = get_typestore(Stores.ROS2_HUMBLE)
TOPICS = {"odom": "std_msgs/msg/Float64", "/episode": "std_msgs/msg/String"}
DEFINITIONS = {
    "std_msgs/msg/Float64": "float64 data\n",
    "std_msgs/msg/String": "string data\n",
    "own_msgs/msg/Pair": "builtin_interfaces/Time stamp\nPart[2] parts\nstd_msgs/Float64[] values\nbyte[<=4] flags\n",
    "own_msgs/msg/Part": "uint8 KIND=3\nuint8 kind\n",
}
SECOND = 1_000_000_000


def number(value: float) -> bytes:
    return bytes(TYPES.serialize_cdr(TYPES.types["std_msgs/msg/Float64"](data=value), "std_msgs/msg/Float64"))


def name(value: str) -> bytes:
    return bytes(TYPES.serialize_cdr(TYPES.types["std_msgs/msg/String"](data=value), "std_msgs/msg/String"))


def record(folder, seconds: int, episode: int, **options) -> Recording:
    """Record one number per second, and a marker at the beginning of each episode of that many seconds."""
    recording = Recording(folder, TOPICS, DEFINITIONS.__getitem__, boundary_topic="/episode", **options)
    for second in range(seconds):
        if second % episode == 0:
            recording.write("/episode", name(f"episode_{second // episode}"), SECOND * (1 + second))
        recording.write("odom", number(float(second)), SECOND * (1 + second))
    recording.close()
    recording.close()
    return recording


def contents(recording: Recording) -> list[list[tuple[str, object]]]:
    """Return what each bag holds: topic and value, in order."""
    found = []
    for path in sorted(recording.folder.iterdir()):
        with Reader(path) as reader:
            messages = reader.messages()
            found.append([(c.topic, TYPES.deserialize_cdr(data, c.msgtype).data) for c, _, data in messages])
            assert reader.message_count == len(found[-1])
            assert reader.start_time % SECOND == 0
    return found


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recording_is_read_back(tmp_path, storage):
    recording = record(tmp_path, seconds=3, episode=2, storage=storage, latched=frozenset({"/episode"}))
    assert contents(recording) == [
        [("/episode", "episode_0"), ("/odom", 0.0), ("/odom", 1.0), ("/episode", "episode_1"), ("/odom", 2.0)]
    ]
    assert recording.messages == 5
    assert storage in (recording.folder / "bag_000" / "metadata.yaml").read_text()


def test_bags_are_split_where_an_episode_begins(tmp_path):
    bags = contents(record(tmp_path, seconds=20, episode=4, max_seconds=6.0))
    assert [bag[0][1] for bag in bags] == ["episode_0", "episode_2", "episode_4"]
    assert sum(map(len, bags)) == 25


def test_a_bag_never_grows_to_more_than_twice_its_limit(tmp_path):
    bags = contents(record(tmp_path, seconds=20, episode=100, max_seconds=4.0))
    assert [len(bag) for bag in bags] == [9, 8, 4]


def test_bags_are_split_by_size(tmp_path):
    bags = contents(record(tmp_path, seconds=20, episode=5, max_bytes=12 * 7))
    assert len(bags) == 2


def test_recordings_of_the_same_second_get_folders_of_their_own(tmp_path):
    folders = {record(tmp_path, seconds=1, episode=1).folder for _ in range(3)}
    assert len(folders) == 3 and all(folder.name.startswith("20") for folder in folders)


def test_own_message_types_are_put_together_from_their_definitions():
    types = typestore_of({"own_msgs/msg/Pair"}, DEFINITIONS.__getitem__)
    text, _ = types.generate_msgdef("own_msgs/msg/Pair", ros_version=2)
    assert "MSG: own_msgs/Part" in text and "MSG: std_msgs/Float64" in text
    assert types.hash_rihs01("std_msgs/msg/Float64") == TYPES.hash_rihs01("std_msgs/msg/Float64")


def test_an_unknown_storage_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected one of mcap, sqlite3, found 'tape'"):
        record(tmp_path, seconds=1, episode=1, storage="tape")


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="expected to make a folder"):
        record(tmp_path / "file", seconds=1, episode=1)


def test_a_bag_that_cannot_be_written_is_reported(tmp_path):
    recording = Recording(tmp_path, TOPICS, DEFINITIONS.__getitem__)
    shutil.rmtree(recording.folder)
    recording.folder.write_text("in the way")
    with pytest.raises(DataError, match="expected a bag to write to"):
        recording.write("odom", number(1.0), SECOND)


@contextmanager
def largest_file(size: int):
    """Let no file grow beyond `size`: writing then fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("flush_every", [50, 10**9])
def test_what_was_recorded_before_the_disk_was_full_can_be_read(tmp_path, storage, flush_every):
    recording = Recording(tmp_path, TOPICS, DEFINITIONS.__getitem__, storage=storage)
    text, written = name("x" * 5000), 0
    with largest_file(3 * 2**20), pytest.raises(DataError, match="messages up to then are complete") as caught:
        for written in range(10_000):
            recording.write("/episode", text, SECOND * (1 + written))
            if written % flush_every == flush_every - 1:
                recording.flush()
    kept = sum(map(len, contents(recording)))
    assert kept == recording.messages and f"{kept} messages" in str(caught.value)
    if storage == "mcap":
        assert written - kept <= (110 if flush_every == 50 else 220)  # two flushes, or 1 MiB of 5 kB
    elif flush_every == 50:
        assert written - kept <= 50  # what was committed stays
    else:
        assert kept == 0 and not list(recording.folder.iterdir())  # all of it was one transaction
    assert written > 400  # 2 MiB of 5 kB: what was kept is most of what fits
    with pytest.raises(DataError, match="are complete"):
        recording.write("odom", number(1.0), SECOND * 20_000)
    recording.close()


def test_a_full_disk_at_the_very_beginning_leaves_no_bag(tmp_path):
    recording = Recording(tmp_path, TOPICS, DEFINITIONS.__getitem__)
    with largest_file(10), pytest.raises(DataError, match="0 messages up to then"):
        recording.write("odom", number(1.0), SECOND)
    assert list(recording.folder.iterdir()) == []
    with largest_file(RESERVED_BYTES - 1), pytest.raises(DataError, match="expected room for a recording"):
        Recording(tmp_path, TOPICS, DEFINITIONS.__getitem__)


def test_a_disk_that_is_nearly_full_ends_the_recording_cleanly(tmp_path):
    recording = Recording(tmp_path, TOPICS, DEFINITIONS.__getitem__, min_free_bytes=10**18)
    recording.write("odom", number(1.0), SECOND)
    with pytest.raises(DataError, match="expected at least 1000000000000000000 bytes of room on the disk"):
        recording.flush()
    assert contents(recording) == [[("/odom", 1.0)]]


def test_what_was_flushed_survives_a_crash(tmp_path):
    recording = Recording(tmp_path, TOPICS, DEFINITIONS.__getitem__)
    for second in range(3):
        recording.write("odom", number(float(second)), SECOND * (1 + second))
        recording.flush()
    recording.write("odom", number(9.0), 9 * SECOND)
    file = McapFile(recording.folder / "bag_000" / "bag_000.mcap", tolerant=True)
    wanted = [key for key, channel in file.channels.items() if channel.topic == "/odom"]
    found = []
    with pytest.raises(Damaged, match="cut off"):
        for block in file.blocks(wanted):
            found += list(block.logged)
    assert found == [SECOND, 2 * SECOND, 3 * SECOND]


def test_a_snapshot_completes_the_running_bag(tmp_path):
    recording = Recording(tmp_path, TOPICS, DEFINITIONS.__getitem__)
    assert recording.snapshot() == []
    for second in range(4):
        recording.write("odom", number(float(second)), SECOND * (1 + second))
        if second == 2:
            assert recording.snapshot() == [recording.folder / "bag_000"]
    recording.close()
    assert [len(bag) for bag in contents(recording)] == [3, 1]


def test_a_bag_says_which_policies_drove_in_it(tmp_path):
    recording = Recording(tmp_path, TOPICS, DEFINITIONS.__getitem__, max_seconds=3.0)
    for second, policy in enumerate(["", "a", "a", "b", "b", "c"]):
        recording.policy(policy, SECOND * second)
        recording.write("/episode", name("e"), SECOND * (1 + second))
    recording.close()
    notes = []
    for path in sorted(recording.folder.glob("bag_*/metadata.yaml")):
        data = yaml.safe_load(path.read_text())["rosbag2_bagfile_information"]["custom_data"]
        notes.append({key: json.loads(value) for key, value in data.items()})
    first, second = notes
    assert first["saferule.policies"] == ["a", "b"] and second["saferule.policies"] == ["b", "c"]
    assert first["saferule.swaps"] == [{"time_ns": 3 * SECOND, "from": "a", "to": "b"}]
