"""How fast bags are read, beside the usual ways of reading them, and how much memory a large one takes.

    python -m benchmarks.bag_reading throughput       # against rosbags and, if installed, mcap-ros2-support
    python -m benchmarks.bag_reading large            # 2 GB: peak memory, and a second reading from the cache

All readers of a row read the same file and take the same fields. A row gives messages per second of processor time,
the best of `--repeat`, as the machine may be busy. Bags are made in a temporary folder and deleted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from saferule_core.data.bag_file import TopicRequest, read_topics
from saferule_core.data.bags import ReadOptions, read_bags
from saferule_core.data.message_types import empty_message, standard_types, typestore_of
from saferule_core.spec import parse_spec

ODOMETRY, TWIST, JOINTS = "nav_msgs/msg/Odometry", "geometry_msgs/msg/TwistStamped", "sensor_msgs/msg/JointState"
BASE = (
    TopicRequest(
        "/odom", ODOMETRY,
        ("pose.pose.position.x", "pose.pose.position.y", "pose.pose.orientation", "twist.twist.linear.x"),
    ),
    TopicRequest("/cmd", TWIST, ("twist.linear.x", "twist.angular.z")),
)  # fmt: skip
ARM = (TopicRequest("/joints", JOINTS, ("position[0:7]", "velocity[0:7]")),)
STORAGES = {"mcap": (StoragePlugin.MCAP, None), "mcap zstd": (StoragePlugin.MCAP, CompressionMode.STORAGE),
            "sqlite3": (StoragePlugin.SQLITE3, None)}  # fmt: skip
SPEC = """
name: large
rate_hz: 100.0
episode: {max_steps: 1000}
observation:
  - {name: x, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.x, max_age: 0.35}
  - {name: y, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.y, max_age: 0.35}
  - {name: heading, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.orientation,
     transform: yaw_sin_cos, max_age: 0.35}
  - {name: speed, topic: odom, type: nav_msgs/msg/Odometry, field: twist.twist.linear.x, max_age: 0.35}
action:
  - {name: forward, topic: cmd, type: geometry_msgs/msg/TwistStamped, field: twist.linear.x,
     low: -1, high: 1, unit: m/s}
  - {name: turn, topic: cmd, type: geometry_msgs/msg/TwistStamped, field: twist.angular.z,
     low: -1, high: 1, unit: rad/s}
cost: {limit: 10.0, constraints: [{name: far, expression: "hypot(x, y) > 6.0"}]}
reward: {expression: "x - previous.x"}
"""


def messages(kind: str) -> Iterator[bytearray]:
    """Yield the same serialized message again and again, with another time and other numbers each time."""
    types = standard_types()
    message = empty_message(types, kind)
    message.header.frame_id = "base_link"
    if kind == ODOMETRY:
        message.child_frame_id = "odom"
        message.pose.pose.orientation.w = 1.0
    elif kind == JOINTS:
        message.name = [f"panda_joint{number}" for number in range(1, 8)]
        message.position = message.velocity = message.effort = np.zeros(7)
    data = bytearray(types.serialize_cdr(message, kind))
    last = len(data) - 8 * (36 + 6) if kind == ODOMETRY else len(data) - 8 * 6
    number = 0
    while True:
        number += 1
        struct.pack_into("<iI", data, 4, *divmod(10**9 + number * 10**7, 10**9))
        struct.pack_into("<d", data, last, number % 1000 / 1000.0)
        yield data


def write_bag(path: Path, requests: tuple[TopicRequest, ...], count: int, storage: str) -> int:
    """Write `count` messages of each topic; return the size of the bag [bytes]."""
    plugin, compression = STORAGES[storage]
    writer = Writer(path, version=8, storage_plugin=plugin)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        streams = [
            (writer.add_connection(r.topic, r.type, typestore=standard_types()), messages(r.type)) for r in requests
        ]
        for number in range(1, count + 1):
            for connection, stream in streams:
                writer.write(connection, 10**9 + number * 10**7, bytes(next(stream)))
    return sum(file.stat().st_size for file in path.iterdir())


def by_saferule(path: Path, requests: tuple[TopicRequest, ...]) -> int:
    """Read columns in bulk."""
    return sum(len(found) for found in read_topics(path, requests).values())


def by_rosbags(path: Path, requests: tuple[TopicRequest, ...]) -> int:
    """Decode message by message with rosbags and take the same fields."""
    return _one_by_one(_rosbags_messages(path), requests)


def by_mcap_ros2(path: Path, requests: tuple[TopicRequest, ...]) -> int:
    """Decode message by message with mcap-ros2-support and take the same fields."""
    from mcap_ros2.reader import read_ros2_messages

    file = next(path.glob("*.mcap"))
    return _one_by_one(((m.channel.topic, m.ros_msg) for m in read_ros2_messages(str(file))), requests)


def _rosbags_messages(path: Path) -> Iterator[tuple[str, object]]:
    with Reader(path) as reader:
        types = typestore_of(reader.connections)
        for connection, _, data in reader.messages():
            yield connection.topic, types.deserialize_cdr(data, connection.msgtype)


def _one_by_one(stream: Iterator[tuple[str, object]], requests: tuple[TopicRequest, ...]) -> int:
    getters = {r.topic: [attrgetter(field.partition("[")[0]) for field in r.fields] for r in requests}
    rows: list[list[object]] = []
    for topic, message in stream:
        rows.append([getter(message) for getter in getters[topic]])
    return len(rows)


def throughput(count: int, repeat: int) -> None:
    """Print a table of messages per second."""
    readers: dict[str, Callable[[Path, tuple[TopicRequest, ...]], int]] = {
        "saferule": by_saferule, "rosbags": by_rosbags
    }  # fmt: skip
    if all(map(importlib.util.find_spec, ("mcap_ros2", "zstandard"))):
        readers["mcap-ros2-support"] = by_mcap_ros2
    print("| topics | storage | " + " | ".join(f"{name} [1/s]" for name in readers) + " | times as fast |")
    print("|---" * (len(readers) + 3) + "|")
    for name, requests in (("Odometry + TwistStamped", BASE), ("JointState, 7 joints", ARM)):
        for storage in STORAGES:
            with tempfile.TemporaryDirectory(prefix="saferule_benchmark_") as folder:
                path = Path(folder) / "bag"
                write_bag(path, requests, count, storage)
                rates = {}
                for reader, read in readers.items():
                    if reader == "mcap-ros2-support" and storage == "sqlite3":
                        continue
                    seconds = min(_seconds(read, path, requests, count * len(requests)) for _ in range(repeat))
                    rates[reader] = count * len(requests) / seconds
            cells = [f"{rates[reader]:,.0f}" if reader in rates else "-" for reader in readers]
            ratios = ", ".join(f"{rates['saferule'] / rates[r]:.1f} ({r})" for r in rates if r != "saferule")
            print(f"| {name} | {storage} | " + " | ".join(cells) + f" | {ratios} |", flush=True)


def _seconds(read: Callable, path: Path, requests: tuple[TopicRequest, ...], wanted: int) -> float:
    """Return the processor time [s] of one reading: the wall's depends on who else uses the machine."""
    began = time.process_time()
    found = read(path, requests)
    seconds = time.process_time() - began
    if found != wanted:
        raise RuntimeError(f"expected {wanted} messages, found {found}")
    return seconds


def large(gigabytes: float, storage: str) -> None:
    """Read a large bag twice in processes of their own; print time and peak memory of each."""
    with tempfile.TemporaryDirectory(prefix="saferule_benchmark_") as folder:
        path = Path(folder) / "bag"
        pair = sum(len(next(messages(request.type))) + 40 for request in BASE)
        size = write_bag(path, BASE, int(gigabytes * 1e9 / pair), storage)
        print(f"{storage}: {size / 1e9:.2f} GB", flush=True)
        for what in ("first", "second, from the cache"):
            command = [sys.executable, "-m", "benchmarks.bag_reading", "child", str(path), str(Path(folder) / "cache")]
            facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{what}: {facts['wall']:.1f} s ({facts['processor']:.1f} s of processor time), "
                  f"{facts['steps']} steps, peak {facts['peak_mb']:.0f} MB", flush=True)  # fmt: skip


def child(path: str, cache: str) -> None:
    """Read one bag and print what it took, as JSON."""
    began = time.perf_counter()
    data = read_bags([path], parse_spec(SPEC), options=ReadOptions(cache=cache)).transitions
    facts = {
        "wall": time.perf_counter() - began,
        "processor": time.process_time(),
        "steps": len(data),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(facts))


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    fast = verbs.add_parser("throughput")
    fast.add_argument("--messages", type=int, default=100_000, help="of each topic (default: 100000)")
    fast.add_argument("--repeat", type=int, default=3)
    big = verbs.add_parser("large")
    big.add_argument("--gigabytes", type=float, default=2.0)
    big.add_argument("--storage", choices=tuple(STORAGES), default="mcap")
    one = verbs.add_parser("child")
    one.add_argument("path")
    one.add_argument("cache")
    options = parser.parse_args()
    if options.verb == "throughput":
        throughput(options.messages, options.repeat)
    elif options.verb == "large":
        large(options.gigabytes, options.storage)
    else:
        child(options.path, options.cache)


if __name__ == "__main__":
    main()
