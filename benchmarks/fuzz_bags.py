"""Damage bags at random and read them: an error that says what is wrong, or the right numbers, and nothing else.

    python -m benchmarks.fuzz_bags --runs 20000 --seed 0        # some minutes on one core; exit status 1 on a finding

What is right: the columns and the steps are those of the bag before it was damaged (the damage was in a place that does
not matter), or the columns are those that `rosbags` decodes message by message from the damaged bag (the damage was in
a message, which no checksum protects). Topics, counts and times are compared as well as values. Some bags are only cut
off, and read with `tolerate_truncated`: then messages may be missing, and none may be wrong. A run that takes longer
than `SECONDS`, needs more memory than `MEMORY`, or raises anything but DataError is a finding; its seed makes it again.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
import yaml
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapReader

from saferule_core.data.bag_file import Messages, TopicRequest, read_topics
from saferule_core.data.bag_reader import BagPart, read_bag
from saferule_core.data.mcap_file import CHUNK, DATA_END, FOOTER, HEADER, MAGIC
from saferule_core.data.mcap_records import records
from saferule_core.data.message_types import empty_message, standard_types, typestore_of
from saferule_core.data.reading import ReadOptions
from saferule_core.errors import DataError
from saferule_core.spec import parse_spec

SECONDS, MEMORY = 20, 4 << 30
TICKS = 12
REQUESTS = (
    TopicRequest("odom", "nav_msgs/msg/Odometry", ("pose.pose.position.x", "pose.pose.orientation.w")),
    TopicRequest("joints", "sensor_msgs/msg/JointState", ("position[0]", "velocity[0:2]")),
    TopicRequest("cmd", "geometry_msgs/msg/TwistStamped", ("twist.linear.x",)),
    TopicRequest("cost", "std_msgs/msg/Float64", ("data",)),
    TopicRequest("episode", "std_msgs/msg/Header", ("frame_id",)),
)
SPEC = """
name: fuzzed
rate_hz: 10.0
episode: {max_steps: 20, marker: {topic: episode, type: std_msgs/msg/Header, field: frame_id}}
observation:
  - {name: x, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.x, max_age: 0.35}
  - {name: arm, topic: joints, type: sensor_msgs/msg/JointState, field: "velocity[0:2]", max_age: 0.35}
action:
  - {name: speed, topic: cmd, type: geometry_msgs/msg/TwistStamped, field: twist.linear.x, low: -1, high: 1, unit: m/s}
cost:
  limit: 3.0
  constraints: [{name: far, expression: "abs(x) > 6.0"}]
  logged: {topic: cost, type: std_msgs/msg/Float64, field: data}
reward: {expression: "x - previous.x"}
"""
CHUNK_HEAD = 8 + 8 + 8 + 4 + 4 + 8
"""Bytes of a chunk that is not compressed before its records."""

EXTREMES = [0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]

Rows = dict[str, list[tuple]]
"""Topic -> (recording time, stamp, values) of each message, sorted."""


@dataclass(frozen=True)
class Kind:
    """A way to write a bag. form: "split" into two files, or "plain", an MCAP file without chunks and summary."""

    storage: StoragePlugin
    compression: CompressionMode | None = None
    version: int = 8
    form: str = ""


KINDS = (
    Kind(StoragePlugin.MCAP), Kind(StoragePlugin.MCAP, CompressionMode.STORAGE, 9), Kind(StoragePlugin.SQLITE3),
    Kind(StoragePlugin.MCAP, CompressionMode.MESSAGE), Kind(StoragePlugin.SQLITE3, CompressionMode.FILE),
    Kind(StoragePlugin.SQLITE3, CompressionMode.MESSAGE), Kind(StoragePlugin.MCAP, form="plain"),
    Kind(StoragePlugin.MCAP, CompressionMode.STORAGE, form="split"), Kind(StoragePlugin.SQLITE3, form="split"),
)  # fmt: skip


def write_bag(path: Path, kind: Kind) -> None:
    """Write a small bag."""
    if kind.form != "split":
        _write(path, kind, range(TICKS))
    else:
        parts = [path.with_name(f"{path.name}_{name}") for name in ("first", "second")]
        for part, ticks in zip(parts, (range(TICKS // 2), range(TICKS // 2, TICKS)), strict=True):
            _write(part, kind, ticks)
        merged(parts, path)
    if kind.form == "plain":
        (file,) = path.glob("*.mcap")
        file.write_bytes(without_chunks(file.read_bytes()))


def _write(path: Path, kind: Kind, ticks: range) -> None:
    types = standard_types()
    writer = Writer(path, version=kind.version, storage_plugin=kind.storage)
    if kind.compression is not None:
        writer.set_compression(kind.compression, CompressionFormat.ZSTD)
    with writer:
        connections = {r.topic: writer.add_connection(f"/{r.topic}", r.type, typestore=types) for r in REQUESTS}
        messages = {r.topic: empty_message(types, r.type) for r in REQUESTS}
        messages["joints"].name, messages["episode"].frame_id = ["left", "right"], "episode_0"
        for tick in ticks:
            now = 1_000_000_000 + tick * 100_000_000
            messages["odom"].header.frame_id = "odom" * (tick % 3)
            messages["odom"].pose.pose.position.x = messages["cmd"].twist.linear.x = 0.05 * tick
            messages["joints"].position = messages["joints"].velocity = np.array([0.1 * tick, -0.2 * tick])
            for topic, message in messages.items():
                if topic == "episode" and tick % 6:
                    continue
                stamp = getattr(getattr(message, "header", message), "stamp", None)
                if stamp is not None:
                    stamp.sec, stamp.nanosec = divmod(now, 1_000_000_000)
                connection = connections[topic]
                writer.write(connection, now, types.serialize_cdr(message, connection.msgtype))


def merged(parts: Sequence[Path], path: Path) -> Path:
    """Make one bag of several files out of bags of one file each, which are gone then."""
    path.mkdir()
    whole, topics, files = {}, {}, []
    for number, part in enumerate(parts):
        told = yaml.safe_load((part / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        (name,) = told["relative_file_paths"]
        file = (part / name).rename(path / f"{path.name}_{number}{''.join(Path(name).suffixes)}")
        files.append({**told["files"][0], "path": file.name})
        for entry in told["topics_with_message_count"]:
            count = topics.setdefault(entry["topic_metadata"]["name"], {**entry, "message_count": 0})
            count["message_count"] += entry["message_count"]
        whole = whole or told
        shutil.rmtree(part)
    whole |= {
        "topics_with_message_count": list(topics.values()), "files": files,
        "relative_file_paths": [file["path"] for file in files],
        "message_count": sum(file["message_count"] for file in files),
    }  # fmt: skip
    (path / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": whole}))
    return path


def without_chunks(data: bytes) -> bytes:
    """Return an MCAP file, of which nothing is compressed, as a writer makes it that only appends messages."""
    kept = b""
    for op, begin, end in records(data[len(MAGIC) : -len(MAGIC)]):
        content = data[len(MAGIC) + begin : len(MAGIC) + end]
        if op == CHUNK:
            kept += content[CHUNK_HEAD:]
        elif op in (HEADER, DATA_END):
            kept += struct.pack("<BQ", op, len(content)) + content
        if op == DATA_END:
            break
    return MAGIC + kept + struct.pack("<BQQQI", FOOTER, 20, 0, 0, 0) + MAGIC


def rows_of(read: dict[str, Messages]) -> Rows:
    """Return what the reader under test gave."""
    found = {}
    for topic, messages in read.items():
        columns = [
            [np.asarray(value).tobytes() for value in column] if isinstance(column, np.ndarray) else column
            for column in messages.columns.values()
        ]
        times = zip(messages.logged.tolist(), messages.stamped.tolist(), strict=True)
        found[topic] = sorted((*time, *values) for time, *values in zip(times, *columns, strict=True))
    return found


def rows_by_rosbags(path: Path) -> Rows:
    """Return the same as decoded by rosbags, message by message. Raises whatever rosbags raises."""
    found: Rows = {}
    with Reader(path) as reader:
        types = typestore_of(reader.connections)
        first, messages = reader.storage.storages[0], reader.messages()
        if isinstance(first, McapReader) and not first.chunks:
            # In a file without chunks rosbags wants recording times that rise; this reader takes them as they are.
            messages = first.messages_scan(first.connections)
        for connection, logged, data in messages:
            request = next(r for r in REQUESTS if f"/{r.topic}" == connection.topic)
            message = types.deserialize_cdr(data, request.type)
            stamp = getattr(getattr(message, "header", message), "stamp", None)
            stamped = 0 if stamp is None else stamp.sec * 1_000_000_000 + stamp.nanosec
            values = [_value(message, field) for field in request.fields]
            found.setdefault(request.topic, []).append(((logged, stamped), *values))
    return {topic: sorted((*time, *values) for time, *values in rows) for topic, rows in found.items()}


def _explains(found: Rows, rows: Rows, wanted: Rows) -> bool:
    """Return whether no message is missing, and each is as rosbags reads it or as it was before.

    rosbags leaves out messages whose recording time is not within that of their chunk, and takes that of SQLite from
    the index, so a damaged recording time can be seen in `found` alone; all else of such a message has to be right.
    """
    return all(
        len(messages) == len(rows[topic])
        and {message[1:] for message in messages} <= {message[1:] for message in (*rows[topic], *wanted.get(topic, []))}
        for topic, messages in found.items()
    )


def _value(message: object, field: str) -> bytes | str:
    name, _, index = field.partition("[")
    value = attrgetter(name)(message)
    if isinstance(value, str):
        return value
    if index:
        first, colon, last = index.rstrip("]").partition(":")
        value = value[int(first) : int(last)] if colon else value[int(first)]
    return np.asarray(value, np.float64).tobytes()


def _steps(part: BagPart) -> str:
    """Return what is compared of a bag's steps."""
    return f"{part.transitions.digest()} {part.episode_names} {part.commands} {part.times} {part.labels}"


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Return `data` with one to three things wrong."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        size = len(changed)
        place = int(rng.integers(0, max(size, 1)))
        length = int(min(rng.integers(1, 64), max(size - place, 0)))
        what = int(rng.integers(0, 8))
        if what == 0 and size:
            changed[place] ^= 1 << int(rng.integers(0, 8))
        elif what == 1:
            changed[place : place + length] = rng.bytes(length)
        elif what == 2:
            del changed[place:]
        elif what == 3:
            changed[place:place] = rng.bytes(length)
        elif what == 4:
            del changed[place : place + length]
        elif what == 5:
            changed[place:place] = changed[place : place + length]
        elif what == 6:
            width = int(rng.choice([1, 2, 4, 8]))
            number = EXTREMES[int(rng.integers(len(EXTREMES)))] % (1 << (8 * width))
            changed[place : place + width] = number.to_bytes(width, "little" if rng.integers(2) else "big")
        else:
            changed[place : place + 8] = np.float64(rng.choice([np.nan, np.inf, -np.inf, 1e308])).tobytes()
    return bytes(changed)


def cut_off(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the beginning of `data`, as a recorder that was killed leaves it."""
    return data[: int(rng.integers(len(data)))]


def damage_text(data: bytes, rng: np.random.Generator) -> bytes:
    """Return metadata with a line left out, doubled or with another value."""
    lines = data.decode().splitlines(keepends=True)
    place = int(rng.integers(len(lines)))
    values = ["-1", "0", "99999999999999999999", "''", "[]", "{}", "null", "../../etc/passwd", "*a", "1.5", "true"]
    what = int(rng.integers(0, 3))
    if what == 0:
        del lines[place]
    elif what == 1:
        lines.insert(place, lines[place])
    else:
        lines[place] = lines[place].split(":")[0] + f": {values[int(rng.integers(len(values)))]}\n"
    return "".join(lines).encode()


class Fuzzer:
    """Damages copies of a few bags; `outcomes` counts what came of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spec = parse_spec(SPEC, "fuzzed.yaml")
        self._bags: list[tuple[Path, Rows, str]] = []
        for number, kind in enumerate(KINDS):
            path = folder / f"bag_{number}"
            write_bag(path, kind)
            self._bags.append((path, rows_by_rosbags(path), _steps(read_bag(path, self._spec))))
        self.outcomes: Counter[str] = Counter()

    def run(self, seed: int) -> str | None:
        """Damage and read one bag; return what was found, None if all is well."""
        rng = np.random.default_rng([seed, 0xBA6])
        original, rows, steps = self._bags[int(rng.integers(len(self._bags)))]
        path = self._folder / "damaged"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(original, path)
        files = sorted(path.iterdir())
        storages = [entry for entry in files if entry.suffix != ".yaml"]
        storage = storages[int(rng.integers(len(storages)))]
        file = files[int(rng.integers(len(files)))] if rng.random() < 0.5 else storage
        text = file.suffix == ".yaml" and rng.random() < 0.7
        tolerant = rng.random() < 0.15
        cut = tolerant and file is storage and rng.random() < 0.7
        file.write_bytes((cut_off if cut else damage_text if text else damage)(file.read_bytes(), rng))
        whole = path if rng.random() < 0.9 or len(storages) > 1 else storage
        began = time.perf_counter()
        try:
            finding = self._judge(whole, rows, steps, ReadOptions(tolerate_truncated=tolerant), only_cut=cut)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this looks for
            finding = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - began
        if finding is None and seconds > SECONDS:
            finding = f"took {seconds:.0f} s"
        return None if finding is None else f"seed {seed}: {original.name} {file.name}, tolerant {tolerant}: {finding}"

    def _judge(self, path: Path, rows: Rows, steps: str, options: ReadOptions, only_cut: bool) -> str | None:
        try:
            found = rows_of(read_topics(path, REQUESTS, options=options))
        except DataError:
            self.outcomes["refused"] += 1
            return None
        try:
            part: BagPart | DataError = read_bag(path, self._spec, options=options)
        except DataError as error:
            part = error
        if found == rows:
            self.outcomes["read as before"] += 1
            if isinstance(part, DataError):
                return f"gave no steps of the messages that it had before: {part}"
            return None if _steps(part) == steps else "gave other steps of the messages that it had before"
        if options.tolerate_truncated and all(set(map(repr, found[t])) <= set(map(repr, rows[t])) for t in found):
            self.outcomes["read in part, as allowed"] += 1
            return None
        try:
            wanted = rows_by_rosbags(path if path.is_dir() else path.parent)
        except Exception as error:  # noqa: BLE001 - rosbags may raise anything
            wanted, reason = None, f"{type(error).__name__}: {error}"
        if found == wanted:
            self.outcomes["read as rosbags does"] += 1
            return None
        if wanted is not None and _explains(found, rows, wanted):
            self.outcomes["read where rosbags drops messages"] += 1
            return None
        if options.tolerate_truncated and not only_cut:
            self.outcomes["read in spite of damage, as asked: nothing else reads it to compare"] += 1
            return None
        return f"gave other messages than before and than rosbags ({reason if wanted is None else 'which differs'})"


def fuzz(runs: int, seed: int, report: Callable[[int], None] = lambda _: None) -> tuple[list[str], Counter[str]]:
    """Read `runs` damaged bags; return findings, and how the others ended."""
    with tempfile.TemporaryDirectory(prefix="saferule_fuzz_") as folder:
        fuzzer, findings = Fuzzer(Path(folder)), []
        for number in range(runs):
            report(number)
            if (finding := fuzzer.run(seed * 1_000_000 + number)) is not None:
                findings.append(finding)
        return findings, fuzzer.outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, show what was found, and return 1 if that is anything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="make one run again, by the seed of a finding")
    options = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError(f"no end after {SECONDS} s")))
    if options.only is not None:
        with tempfile.TemporaryDirectory(prefix="saferule_fuzz_") as folder:
            print(Fuzzer(Path(folder)).run(options.only) or "nothing found")
        return 0
    began = time.perf_counter()

    def report(number: int) -> None:
        signal.alarm(SECONDS + 10)
        if number % 1000 == 0:
            print(f"{number} of {options.runs} bags, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)

    findings, outcomes = fuzz(options.runs, options.seed, report)
    signal.alarm(0)
    for finding in findings:
        print(finding)
    ends = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(f"{options.runs} damaged bags in {time.perf_counter() - began:.0f} s: {len(findings)} findings; {ends}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
