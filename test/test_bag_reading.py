"""Every kind of bag is read whole; a bag that is not whole is refused with both numbers, unless that is allowed."""

import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.rosbag2.reader import zstd
from test_bags import ODOMETRY, command, live, odometry, record

from benchmarks.fuzz_bags import merged
from saferule_core.data.bag_file import TopicRequest, read_bag_topics, read_topics
from saferule_core.data.bag_metadata import LARGEST_METADATA, read_metadata
from saferule_core.data.bags import read_bags
from saferule_core.data.column_cache import STALE_SECONDS, UNUSED_SECONDS
from saferule_core.data.message_types import empty_message, standard_types
from saferule_core.data.reading import ReadOptions
from saferule_core.errors import DataError

ODOM = TopicRequest("odom", ODOMETRY, ("pose.pose.position.x",))
TOLERANT = ReadOptions(tolerate_truncated=True)
SAMPLES = Path(os.environ.get("SAFERULE_SAMPLE_BAGS", Path(__file__).parents[2] / "shared" / "data"))
MANY = 3000


def many(path, storage=StoragePlugin.MCAP, compression=None, version=8, count=MANY):
    """Write a bag of `count` odometry messages, large enough for several chunks."""
    types = standard_types()
    writer = Writer(path, version=version, storage_plugin=storage)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/odom", ODOMETRY, typestore=types)
        message = empty_message(types, ODOMETRY)
        for number in range(count):
            message.header.frame_id = "odom"[: number % 5]
            message.pose.pose.position.x = float(number)
            writer.write(connection, number, types.serialize_cdr(message, ODOMETRY))
    return path


def storage_file(path):
    return next(file for file in path.iterdir() if file.name != "metadata.yaml")


def x_of(path, options=TOLERANT):
    return read_topics(path, [ODOM], options=options)["odom"].columns["pose.pose.position.x"]


@pytest.mark.parametrize("version", [8, 9])
@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        (StoragePlugin.SQLITE3, None), (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE), (StoragePlugin.MCAP, None),
        (StoragePlugin.MCAP, CompressionMode.FILE), (StoragePlugin.MCAP, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
    ],
)  # fmt: skip
def test_storages_compressions_and_versions(tmp_path, storage, compression, version):
    path = many(tmp_path / "bag", storage, compression, version)
    np.testing.assert_array_equal(x_of(path, ReadOptions()), np.arange(MANY))


QUALITY = "- history: 3\\n  depth: 0\\n  reliability: 1\\n  durability: 2\\n  lifespan:\\n    sec: 10\\n    nsec: 0"
NAMED_QUALITY = "- history: keep_last\\n  depth: 10\\n  reliability: reliable\\n  durability: volatile"
METADATA = """\
rosbag2_bagfile_information:
  version: {version}
  storage_identifier: {storage}
{before}  duration:
    nanoseconds: 9
  starting_time:
    nanoseconds_since_epoch: 0
  message_count: 10
  topics_with_message_count:
    - topic_metadata:
        name: /odom
        type: nav_msgs/msg/Odometry
{topic}      message_count: 10
{after}"""
CDR = "        serialization_format: cdr\n"
PACKED = '  compression_format: ""\n  compression_mode: ""\n'
PLACES = "  relative_file_paths:\n    - {file}\n"
OLD_PLACES = PLACES.replace("{file}", "bag/{file}")
FILES = PLACES + (
    "  files:\n    - path: {file}\n      starting_time:\n        nanoseconds_since_epoch: 0\n"
    "      duration:\n        nanoseconds: 9\n      message_count: 10\n"
)
HASH = "        type_description_hash: RIHS01_3cc97dc7fb7502f8714462c526d369e35b603cfc34d946e3f2eda2766dfec6e0\n"
LISTED_QUALITY = """\
        offered_qos_profiles:
          - history: keep_last
            depth: 10
            reliability: reliable
            durability: volatile
            deadline:
              sec: 9223372036
              nsec: 854775807
            liveliness: automatic
            avoid_ros_namespace_conventions: false
"""
TEXT_QUALITY, TEXT_NAMED_QUALITY = (f'        offered_qos_profiles: "{text}"\n' for text in (QUALITY, NAMED_QUALITY))
FORMS = {
    1: (OLD_PLACES, "", ""),
    2: (OLD_PLACES, CDR, ""),
    3: (OLD_PLACES, CDR, PACKED),
    4: (PLACES, CDR + TEXT_QUALITY, PACKED),
    5: ("", CDR + TEXT_QUALITY, PACKED + FILES),
    6: ("", CDR + TEXT_QUALITY, PACKED + FILES + "  custom_data: ~\n"),
    7: ("", CDR + TEXT_QUALITY + HASH, PACKED + FILES + "  custom_data: ~\n"),
    8: ("", CDR + TEXT_NAMED_QUALITY + HASH, PACKED + FILES + "  custom_data: ~\n  ros_distro: jazzy\n"),
    9: ("", CDR + LISTED_QUALITY + HASH, PACKED + FILES + "  custom_data:\n    run: '7'\n  ros_distro: rolling\n"),
}
"""What each version of metadata.yaml has before the times, of a topic, and at the end, as rosbag2 wrote it (yaml.hpp
and the bags of its tests). Before version 4 the bag's name is before the file's."""


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("version", FORMS)
def test_metadata_in_the_form_of_every_version(tmp_path, version, storage):
    path = many(tmp_path / "bag", storage, count=10)
    before, topic, after = (part.format(file=storage_file(path).name) for part in FORMS[version])
    names = {"version": version, "storage": storage.name.lower()}
    text = METADATA.format(**names, before=before, topic=topic, after=after)
    (path / "metadata.yaml").write_text(text)
    np.testing.assert_array_equal(x_of(path, ReadOptions()), np.arange(10))
    (path / "metadata.yaml").write_text(text.replace("message_count: 10", "message_count: 11"))
    with pytest.raises(DataError, match="topic /odom: expected 11 messages, as its metadata says, found 10"):
        x_of(path, ReadOptions())


def test_versions_of_the_future_are_refused(tmp_path):
    path = many(tmp_path / "bag", count=2)
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("version: 8", "version: 10"))
    with pytest.raises(DataError, match="version: expected 1 to 9, found 10"):
        x_of(path)


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_single_file_and_a_directory_without_metadata(tmp_path, storage):
    path = many(tmp_path / "bag", storage, count=20)
    assert len(x_of(storage_file(path), ReadOptions())) == 20
    (path / "metadata.yaml").unlink()
    topics = read_bag_topics(path, [ODOM])
    assert len(topics.messages["odom"]) == 20
    assert topics.notes == (f"no metadata.yaml: {storage_file(path).name} was read as the whole bag",)
    shutil.copy(storage_file(path), path / f"second{storage_file(path).suffix}")
    with pytest.raises(DataError, match="expected metadata.yaml, which says in which order its 2 files"):
        x_of(path)


def test_a_different_quality_of_service_in_metadata_and_file_loses_nothing(tmp_path):
    path = many(tmp_path / "bag", StoragePlugin.SQLITE3, count=20)
    with sqlite3.connect(storage_file(path)) as database:
        database.execute("UPDATE topics SET offered_qos_profiles = 'whatever this recorder says'")
    assert len(x_of(path, ReadOptions())) == 20


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_counts_that_differ_from_the_metadata_are_an_error_with_both_numbers(tmp_path, storage):
    path = many(tmp_path / "bag", storage, count=20)
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 20", "message_count: 23"))
    with pytest.raises(DataError, match="topic /odom: expected 23 messages, as its metadata says, found 20"):
        x_of(path, ReadOptions())
    topics = read_bag_topics(path, [ODOM], options=TOLERANT)
    assert len(topics.messages["odom"]) == 20
    assert "topic /odom: expected 23 messages, as its metadata says, found 20" in topics.notes


def test_counts_that_differ_from_the_summary_of_a_single_file(tmp_path):
    path = storage_file(many(tmp_path / "bag", count=20))
    data = bytearray(path.read_bytes())
    place = max(data.rfind(struct.pack("<HQ", channel, 20)) for channel in range(3))
    data[place + 2] = 21
    path.write_bytes(data)
    with pytest.raises(DataError, match="expected 21 messages, as the summary of its file says, found 20"):
        x_of(path, ReadOptions())


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_what_is_left_of_a_truncated_bag_can_be_read(tmp_path, storage, whole):
    count = MANY if storage == StoragePlugin.MCAP else MANY // 3  # a deeper tree of sqlite is lost with its last pages
    path = many(tmp_path / "bag", storage, count=count)
    file = storage_file(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    target = path if whole else file
    with pytest.raises(DataError, match="found it damaged"):
        x_of(target, ReadOptions())
    topics = read_bag_topics(target, [ODOM], options=TOLERANT)
    x = topics.messages["odom"].columns["pose.pose.position.x"]
    assert count // 3 < len(x) < count
    np.testing.assert_array_equal(x, np.arange(len(x)))
    assert any(file.name in note or "expected" in note for note in topics.notes)


@pytest.mark.parametrize("listed", [True, False], ids=["with a list of files", "without"])
@pytest.mark.parametrize("compression", [CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_split_bag_is_read_as_the_whole(point_spec, tmp_path, storage, compression, listed):
    messages = live(3, 5)
    whole = record(tmp_path / "whole", messages, storage, compression)
    cut = len(messages) // 2 + 1  # within an episode, and between two messages of a tick
    parts = [
        record(tmp_path / f"part_{number}", some, storage, compression)
        for number, some in enumerate((messages[:cut], messages[cut:]))
    ]
    split = merged(parts, tmp_path / "split")
    metadata = split / "metadata.yaml"
    if not listed:
        content = yaml.safe_load(metadata.read_text())
        assert len(content["rosbag2_bagfile_information"].pop("files")) == 2
        metadata.write_text(yaml.safe_dump(content))
    found, wanted = read_bags([split], point_spec), read_bags([whole], point_spec)
    assert found.transitions.digest() == wanted.transitions.digest() and len(wanted.transitions) == 15
    assert found.bags[0].episode_names == wanted.bags[0].episode_names and found.bags[0].notes == wanted.bags[0].notes
    first, second = read_metadata(split).files
    swapped = metadata.read_text().replace(first.name, "?").replace(second.name, first.name).replace("?", second.name)
    metadata.write_text(swapped)
    assert read_metadata(split).files == (second, first), "files are read in the order of the list"
    second.unlink()
    with pytest.raises(DataError, match=f"expected the file {second.name}, as its metadata says, found no such file"):
        read_bags([split], point_spec)


def test_a_missing_file_of_a_split_bag_is_named(tmp_path):
    path = many(tmp_path / "bag", count=3)
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("- bag.mcap", "- bag.mcap\n  - bag_1.mcap"))
    with pytest.raises(DataError, match="expected the file bag_1.mcap, as its metadata says, found no such file"):
        x_of(path)


def test_rows_in_the_write_ahead_log_of_a_crashed_recorder_are_read(tmp_path):
    file = storage_file(many(tmp_path / "bag", StoragePlugin.SQLITE3, count=10))
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, 99, data FROM messages LIMIT 4")
    database.commit()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for source in (file, file.with_name(file.name + "-wal")):
        shutil.copy(source, crashed / source.name)
    database.close()
    assert len(x_of(crashed / file.name, ReadOptions())) == 14
    assert sorted(entry.name for entry in crashed.iterdir()) == [file.name, f"{file.name}-wal"]


class TestTypes:
    """Types that the bag does not define."""

    KIND = "own_msgs/msg/Speed"

    @pytest.fixture
    def bag(self, tmp_path):
        path = tmp_path / "bag"
        with Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
            speed = writer.add_connection("/speed", self.KIND, msgdef="float64 value\n", rihs01="RIHS01_0")
            for number in range(5):
                writer.write(speed, number, b"\0\1\0\0" + np.float64(number).tobytes())
        with sqlite3.connect(storage_file(path)) as database:
            database.execute("DELETE FROM message_definitions")
        return path

    @pytest.fixture
    def package(self, tmp_path):
        folder = tmp_path / "share" / "own_msgs" / "msg"
        folder.mkdir(parents=True)
        (folder / "Speed.msg").write_text("float64 value\n")
        return folder.parent

    def read(self, bag, *places):
        options = ReadOptions(message_types=tuple(map(str, places)))
        return read_topics(bag, [TopicRequest("speed", self.KIND, ("value",))], options=options)["speed"]

    def test_are_an_error_that_says_what_to_do(self, bag):
        with pytest.raises(DataError, match="found no definition of own_msgs/msg/Speed; name its .msg file or package"):
            self.read(bag)

    def test_are_found_in_a_file_a_package_or_a_folder_of_packages(self, bag, package):
        for place in (package / "msg" / "Speed.msg", package, package.parent):
            assert self.read(bag, place).columns["value"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]

    def test_errors_name_the_place(self, bag, package, tmp_path):
        with pytest.raises(DataError, match="nowhere: expected .msg files"):
            self.read(bag, tmp_path / "nowhere")
        loose = tmp_path / "Speed.msg"
        loose.write_text("float64 value\n")
        with pytest.raises(DataError, match="expected a path such as my_msgs/msg/Name.msg"):
            self.read(bag, loose)
        (package / "msg" / "Speed.msg").write_text("float64 [[[ value\n")
        with pytest.raises(DataError, match="Speed.msg: expected a message definition"):
            self.read(bag, package)

    def test_absurd_arrays_are_refused(self, bag, package):
        (package / "msg" / "Speed.msg").write_text("Part[100000000] parts\n")
        (package / "msg" / "Part.msg").write_text("float64[] values\n")
        with pytest.raises(DataError, match="sensible sizes"):
            self.read(bag, package)


def test_service_events_are_ignored(point_spec, tmp_path):
    path = record(tmp_path / "bag", live(1, 5))
    types = standard_types()
    plain = read_bags([path], point_spec).transitions
    with Reader(path) as reader, Writer(tmp_path / "more", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        event = writer.add_connection(
            "/odom/_service_event", "own_srvs/srv/Reset_Event", msgdef="own_srvs/Info info", rihs01="RIHS01_0"
        )
        copies = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=types) for c in reader.connections}
        for connection, time, data in reader.messages():
            writer.write(event, time, b"\0\1\0\0")
            writer.write(copies[connection.id], time, data)
    np.testing.assert_array_equal(read_bags([tmp_path / "more"], point_spec).transitions.rewards, plain.rewards)


class TestPlaces:
    """Where bags may lie."""

    def test_links_out_of_the_allowed_roots_are_refused(self, tmp_path):
        allowed, secret = tmp_path / "allowed", tmp_path / "secret"
        bag = many(allowed / "bag", count=3) if allowed.mkdir() is None else None
        many(secret / "bag", count=3) if secret.mkdir() is None else None
        options = ReadOptions(roots=(str(allowed),))
        assert len(x_of(bag, options)) == 3
        (allowed / "link").symlink_to(secret / "bag")
        file = storage_file(bag)
        file.rename(secret / file.name)
        file.symlink_to(secret / file.name)
        for path in (allowed / "link", bag, secret / "bag", allowed / ".." / "secret" / "bag"):
            with pytest.raises(DataError, match="expected a path inside .*allowed, found one that leads to .*secret"):
                x_of(path, options)
        assert len(x_of(bag, ReadOptions())) == 3

    def test_names_in_the_metadata_do_not_lead_elsewhere(self, tmp_path):
        path = many(tmp_path / "bag", count=3)
        many(tmp_path / "other", count=3)
        metadata = path / "metadata.yaml"
        metadata.write_text(metadata.read_text().replace("- bag.mcap", "- ../other/other.mcap"))
        with pytest.raises(DataError, match="expected the file other.mcap"):
            x_of(path)

    def test_a_link_that_leads_to_itself(self, tmp_path):
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        with pytest.raises(DataError, match="loop: expected"):
            x_of(tmp_path / "loop")


class TestTraps:
    """Files that somebody made up."""

    def test_a_view_in_place_of_a_table(self, tmp_path):
        file = storage_file(many(tmp_path / "bag", StoragePlugin.SQLITE3, count=3))
        with sqlite3.connect(file) as database:
            database.execute("ALTER TABLE messages RENAME TO kept")
            database.execute(
                "CREATE VIEW messages AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
                "SELECT id, 1 AS topic_id, id AS timestamp, zeroblob(1000) AS data FROM n"
            )
        with pytest.raises(DataError, match="expected a plain table messages"):
            x_of(file)

    def test_a_chunk_that_says_it_is_enormous(self, tmp_path):
        file = storage_file(many(tmp_path / "bag", compression=CompressionMode.STORAGE))
        data = bytearray(file.read_bytes())
        chunk = data.index(b"\x04\x00\x00\x00zstd")
        data[chunk - 12 : chunk - 4] = (1 << 45).to_bytes(8, "little")
        file.write_bytes(data)
        with pytest.raises(DataError, match="expected records of at most"):
            x_of(file, ReadOptions())

    @pytest.mark.parametrize("tolerant", [False, True])
    def test_a_packed_file_that_unpacks_to_a_thousand_times_its_size(self, tmp_path, monkeypatch, tolerant):
        monkeypatch.setattr("saferule_core.data.bag_files.ALWAYS_UNPACKED", 1 << 20)
        monkeypatch.setenv("TMPDIR", str(tmp_path / "unpacked"))
        monkeypatch.setattr("tempfile.tempdir", None)
        (tmp_path / "unpacked").mkdir()
        file = storage_file(many(tmp_path / "bag", compression=CompressionMode.FILE))
        assert len(x_of(file)) == MANY
        file.write_bytes(zstd.compress(zstd.decompress(file.read_bytes()) + bytes(50 << 20)))
        assert file.stat().st_size * 300 < 50 << 20
        monkeypatch.setattr("saferule_core.data.bag_files.LARGEST_RATIO", 300)
        with pytest.raises(DataError, match=r"expected at most \d+ bytes in bag.mcap.zstd .* found more"):
            x_of(file, ReadOptions(tolerate_truncated=tolerant))
        assert list((tmp_path / "unpacked").iterdir()) == []

    def test_metadata_that_refers_to_itself(self, tmp_path):
        path = many(tmp_path / "bag", count=3)
        (path / "metadata.yaml").write_text("rosbag2_bagfile_information: &a {version: 8, storage_identifier: *a}\n")
        with pytest.raises(DataError, match="storage_identifier: expected text"):
            x_of(path)

    @pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
    def test_a_pipe_or_a_device_in_place_of_a_file(self, tmp_path, make):
        """In a process of its own, with little memory: a reader that waits or reads on is ended."""
        names, given = ("metadata.yaml", "bag.mcap", "bag.db3", "alone.mcap", "Folder.msg", "Alone.msg"), []
        for name in names:
            storage = StoragePlugin.SQLITE3 if name == "bag.db3" else StoragePlugin.MCAP
            bag = many(tmp_path / name / "bag", storage, count=3)
            types = tmp_path / name / "own_msgs" / "msg"
            types.mkdir(parents=True)
            place = types / name if name.endswith(".msg") else bag.parent / name if name == "alone.mcap" else bag / name
            place.unlink(missing_ok=True)
            make(place)
            target = place if name == "alone.mcap" else bag
            given.append([str(target), *{"Folder.msg": [str(types.parent)], "Alone.msg": [str(place)]}.get(name, [])])
        code = (
            "import json, resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
            "from saferule_core.data.bag_file import TopicRequest, read_topics\n"
            "from saferule_core.data.reading import ReadOptions\n"
            "from saferule_core.errors import DataError\n"
            f"request = TopicRequest('odom', {ODOMETRY!r}, ('pose.pose.position.x',))\n"
            "for path, *types in json.loads(sys.argv[1]):\n"
            "    try: print(read_topics(path, [request], options=ReadOptions(message_types=tuple(types))))\n"
            "    except DataError as error: print(error, flush=True)\n"
        )
        command = [sys.executable, "-c", code, json.dumps(given)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-1000:]
        for name, line in zip(names, done.stdout.splitlines(), strict=True):
            assert name in line and "expected" in line and "regular file" in line or name == "Alone.msg", line

    def test_metadata_that_is_too_large(self, tmp_path):
        path = many(tmp_path / "bag", count=3)
        os.truncate(path / "metadata.yaml", LARGEST_METADATA + 1)
        with pytest.raises(DataError, match=f"expected at most {LARGEST_METADATA} bytes, found {LARGEST_METADATA + 1}"):
            x_of(path)

    def test_a_message_that_is_too_short(self, point_spec, tmp_path):
        path = tmp_path / "bag"
        with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
            odom = writer.add_connection("/odom", ODOMETRY, typestore=standard_types())
            writer.write(odom, 1, b"\0\1\0\0" + bytes(40))
        with pytest.raises(DataError, match=f"topic /odom: message 0: expected a {ODOMETRY} of 44 bytes, found it dam"):
            x_of(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_a_clip_would_hide_cuts_an_episode(point_yaml, tmp_path, bad):
    from saferule_core.spec import parse_spec

    clipped = "position.x, scale: 0.1, clip: [-1.0, 1.0]"
    spec = parse_spec(point_yaml.replace("position.x, scale: 0.1", clipped))
    messages = []
    for k in range(10):
        messages += [odometry(bad if k == 4 else 1.0, (k + 1) * 10**8), command(0.0, (k + 1) * 10**8)]
    data = read_bags([record(tmp_path / "bag", messages)], spec).transitions
    assert [part.stop - part.start for part in data.episodes()] == [3, 4]


class TestCache:
    """What was read is kept by content."""

    @pytest.fixture
    def bag(self, point_spec, tmp_path):
        return record(tmp_path / "bag", live(3, 5))

    def read(self, bag, spec, cache):
        return read_bags([bag], spec, options=ReadOptions(cache=str(cache)))

    def test_a_second_reading_gives_the_same_without_decoding(self, bag, point_spec, tmp_path, monkeypatch):
        plain = read_bags([bag], point_spec)
        first = self.read(bag, point_spec, tmp_path / "cache")
        monkeypatch.setattr("saferule_core.data.column_cache.read_bag_topics", None)
        second = self.read(bag, point_spec, tmp_path / "cache")
        for found in (first, second):
            assert found.transitions.digest() == plain.transitions.digest()
            assert found.bags[0].episode_names == plain.bags[0].episode_names
            assert found.bags[0].notes == plain.bags[0].notes

    def test_another_bag_of_the_same_name_is_read(self, bag, point_spec, tmp_path):
        self.read(bag, point_spec, tmp_path / "cache")
        shutil.rmtree(bag)
        record(bag, live(2, 5))
        assert self.read(bag, point_spec, tmp_path / "cache").transitions.episode_count == 2

    def test_a_damaged_entry_is_not_believed(self, bag, point_spec, tmp_path):
        wanted = self.read(bag, point_spec, tmp_path / "cache").transitions.digest()
        for file in (tmp_path / "cache").glob("*/*.bin"):
            file.write_bytes(bytes(file.stat().st_size))
        assert self.read(bag, point_spec, tmp_path / "cache").transitions.digest() == wanted

    def test_what_killed_processes_left_is_removed_after_a_day(self, bag, point_spec, tmp_path):
        cache = tmp_path / "cache"
        old, new = cache / ".unfinished_old", cache / ".unfinished_new"
        for folder in (old, new):
            folder.mkdir(parents=True)
            (folder / "0.bin").write_bytes(bytes(8))
        before = time.time() - 1.5 * STALE_SECONDS
        os.utime(old, (before, before))
        self.read(bag, point_spec, cache)
        assert not old.exists() and (new / "0.bin").is_file()
        assert len([entry for entry in cache.iterdir() if not entry.name.startswith(".")]) == 1

    def test_what_nobody_has_read_for_a_month_makes_room(self, bag, point_spec, tmp_path):
        cache = tmp_path / "cache"
        self.read(bag, point_spec, cache)
        (entry,) = cache.iterdir()
        before = time.time() - 1.5 * UNUSED_SECONDS
        os.utime(entry, (before, before))
        self.read(bag, point_spec, cache)  # it is used again
        other = record(tmp_path / "other", live(2, 5))
        self.read(other, point_spec, cache)
        assert entry.is_dir()
        os.utime(entry, (before, before))
        self.read(record(tmp_path / "third", live(4, 5)), point_spec, cache)
        assert not entry.exists() and len(list(cache.iterdir())) == 2

    def test_a_cache_that_cannot_be_written_is_noted(self, bag, point_spec, tmp_path):
        (tmp_path / "file").write_text("no folder")
        found = self.read(bag, point_spec, tmp_path / "file" / "cache")
        assert found.transitions.digest() == read_bags([bag], point_spec).transitions.digest()
        assert any("not kept for a second reading" in note for note in found.bags[0].notes)


def test_long_columns_go_to_disk_and_stay_readable(tmp_path, monkeypatch):
    monkeypatch.setattr("saferule_core.data.column_store.SPILL_BYTES", 1000)
    x = x_of(many(tmp_path / "bag"), ReadOptions())
    assert isinstance(x, np.memmap)
    np.testing.assert_array_equal(x, np.arange(MANY))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample bags; SAFERULE_SAMPLE_BAGS names their folder")
class TestBagsOfRosbag2:
    """Bags that rosbag2 itself wrote."""

    @pytest.mark.parametrize("name", ["rosbag2_wbag_mcap", "rosbag2_wbag_sqlite3"])
    def test_split_bags(self, name):
        requests = [TopicRequest(topic * 3, "std_msgs/msg/String", ("data",)) for topic in "ABCDEFGH"]
        found = read_topics(SAMPLES / name, requests)
        with Reader(SAMPLES / name) as reader:
            wanted = {c.topic: c.msgcount for c in reader.connections}
        assert {topic: len(messages) for topic, messages in found.items()} == wanted
        assert sum(wanted.values()) == 6074
        arrivals = np.concatenate([messages.arrival for messages in found.values()])
        assert sorted(arrivals.tolist()) == list(range(6074))

    def test_a_bag_with_a_type_of_its_own(self):
        path = SAMPLES / "rosbag2_convert_b_mcap"
        found = read_topics(path, [TopicRequest("c_strings", "test_msgs/msg/Strings", ("string_value",))])
        assert len(found["c_strings"].columns["string_value"]) == 50
