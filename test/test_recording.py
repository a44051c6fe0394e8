"""Bags written from serialized messages: complete, readable, split where episodes end."""

import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from saferule_core.data.recording import Recording, typestore_of
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
    recording.folder.rmdir()
    recording.folder.write_text("in the way")
    with pytest.raises(DataError, match="expected a bag to write to"):
        recording.write("odom", number(1.0), SECOND)
