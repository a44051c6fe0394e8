"""Publishes at 1 kHz to a flight recorder in another process and counts what is missing on disk.

    python -m benchmarks.recorder --seconds 60               # prints what benchmarks/results/recorder.txt holds

The messages are odometry and come over the loopback interface; each carries its number, so what is missing and what is
there twice is known one by one. Bags are split every `--bag-seconds`, so that splits are in the measurement.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from rosbags.highlevel import AnyReader

SPEC = """
name: recorder_benchmark
rate_hz: 1000.0
episode: {max_steps: 1000}
observation:
  - {name: x, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.x, max_age: 1.0}
action:
  - {name: force, topic: cmd_force, type: geometry_msgs/msg/WrenchStamped, field: wrench.force.x,
     low: -1.0, high: 1.0, unit: N}
cost: {limit: 1.0, constraints: [{name: outside, expression: "x > 1.0"}]}
reward: {expression: "x"}
"""


@dataclass(frozen=True)
class Count:
    """What was published and what is on disk; `late`: publications more than a period behind their time."""

    published: int
    recorded: int
    missing: tuple[int, ...]
    twice: int
    bags: int
    seconds: float
    late: int
    recorder_cpu: float


def measure(folder: Path, seconds: float, rate_hz: float = 1000.0, bag_seconds: float = 10.0) -> Count:
    """Record `seconds` of messages into `folder` and count them."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from nav_msgs.msg import Odometry
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    from saferule_ros.lifecycle import LifecycleManager

    spec = folder / "spec.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("ROS_LOG_DIR", str(folder / "ros_log"))
    domain = random.SystemRandom().randint(20, 100)
    command = [sys.executable, "-m", "saferule_ros.flight_recorder", "--ros-args", "-p", f"spec:={spec}",
               "-p", f"out_dir:={folder}/logs", "-p", f"max_bag_seconds:={bag_seconds}"]  # fmt: skip
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("recorder_benchmark", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    threading.Thread(target=executor.spin, daemon=True).start()
    quality = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
    publisher = node.create_publisher(Odometry, "odom", quality)
    silent_topics: list[str] = []

    def on_report(report: DiagnosticArray) -> None:
        silent_topics.extend(pair.value for pair in report.status[0].values if "publisher" in pair.key)

    node.create_subscription(DiagnosticArray, "/diagnostics", on_report, 10)
    recorder = subprocess.Popen(command, env={**os.environ, "ROS_DOMAIN_ID": str(domain)}, stdout=subprocess.DEVNULL)
    try:
        manager = LifecycleManager(node)
        manager.change("/flight_recorder", "configure")
        while not any("/odom" not in silent for silent in silent_topics):  # it asks for what publishers offer
            time.sleep(0.05)
        manager.change("/flight_recorder", "activate")
        while publisher.get_subscription_count() == 0:
            time.sleep(0.01)
        spent = _cpu_seconds(recorder.pid)
        published, late, took = _publish(publisher, Odometry(), seconds, rate_hz)
        time.sleep(2.0)
        cpu = (_cpu_seconds(recorder.pid) - spent) / took
        manager.change("/flight_recorder", "deactivate")
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(30.0)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    bags = sorted(path.parent for path in (folder / "logs").glob("*/bag_*/metadata.yaml"))
    numbers = _numbers(bags)
    there = set(numbers)
    missing = [number for number in range(published) if number not in there]
    return Count(published, len(numbers), tuple(missing), len(numbers) - len(there), len(bags), took, late, cpu)


def _publish(publisher: object, message: object, seconds: float, rate_hz: float) -> tuple[int, int, float]:
    """Publish at a fixed rate; return how many, how many were late, and how long it took [s]."""
    begun, late = time.perf_counter(), 0
    total = round(seconds * rate_hz)
    for number in range(total):
        due = begun + number / rate_hz
        wait = due - time.perf_counter()
        late += wait < -1.0 / rate_hz
        if wait > 0.0:
            time.sleep(wait)
        message.pose.pose.position.x = float(number)
        publisher.publish(message)
    return total, late, time.perf_counter() - begun


def _numbers(bags: list[Path]) -> list[int]:
    found = []
    for bag in bags:
        with AnyReader([bag]) as reader:
            chosen = [connection for connection in reader.connections if connection.topic == "/odom"]
            for connection, _, data in reader.messages(chosen):
                found.append(round(reader.deserialize(data, connection.msgtype).pose.pose.position.x))
    return found


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far [s] (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="messages per second")
    parser.add_argument("--bag-seconds", type=float, default=10.0, help="length of a bag")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        count = measure(Path(folder), options.seconds, options.rate, options.bag_seconds)
    print(f"published {count.published} messages in {count.seconds:.1f} s, {count.late} of them late by a period")
    print(f"on disk   {count.recorded} in {count.bags} bags: {len(count.missing)} missing, {count.twice} twice")
    if count.missing:
        print(f"missing   from {count.missing[0]} to {count.missing[-1]}")
    print(f"recorder  {count.recorder_cpu:.0%} of a core; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
