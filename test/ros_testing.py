"""Start nodes as processes and talk to them over DDS, for tests. Nothing leaves this machine.

    with RosGraph(tmp_path) as graph:
        robot = graph.start("sim_robot", spec=path, episodes=2)
        graph.configure(robot), graph.activate(robot)
        states = graph.collect("odom", Odometry)
        graph.wait_until(lambda: len(states) > 10, "ten states")
        assert graph.stop(robot) == 0
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nursery import Child, shared
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from saferule_ros.bringup import TRANSPORT

PATIENCE_S = 60.0
"""How long to wait for something that should come at once; only a hang takes that long."""

EVERYTHING = QoSProfile(depth=2000, reliability=ReliabilityPolicy.RELIABLE)
"""Every message of a reliable publisher, from now on."""

ROOT = Path(__file__).resolve().parent.parent


def claim_domain() -> tuple[int, socket.socket]:
    """Return a ROS domain that nobody on this machine is in, and a socket that keeps other tests from it until closed.

    The UDP port of its first member is free (RTPS 9.6.1.1); the TCP port of that number, which DDS leaves alone, is the
    claim, as tests in several processes look for a domain at the same time.
    """
    domains = list(range(20, 101))
    random.SystemRandom().shuffle(domains)
    for domain in domains:
        claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port, contextlib.suppress(OSError):
            claim.bind(("127.0.0.1", 7410 + 250 * domain))
            port.bind(("", 7410 + 250 * domain))
            return domain, claim
        claim.close()
    raise RuntimeError("expected a free ROS domain from 20 to 100, found none")


def write_yaml_of_point_robot(path: Path, text: str) -> Path:
    """Write the description of the point of conftest.py with a simulated robot, without physics, behind it."""
    path.write_text(text + "simulation: {robot: 'point_robot:PointRobot'}\n", encoding="utf-8")
    return path


class RosGraph:
    """Node processes, and one node of the test's own (`graph.node`) that is spun in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._processes: dict[str, subprocess.Popen | Child] = {}
        self.domain, self._claim = claim_domain()

    def __enter__(self) -> RosGraph:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ["ROS_LOG_DIR"] = str(self.folder / "ros_log")
        os.environ.setdefault(*TRANSPORT)
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=self.domain, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("test", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._spinning = threading.Thread(target=self._spin, daemon=True)
        self._spinning.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        self._executor.shutdown()
        self._spinning.join(PATIENCE_S)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
        self._claim.close()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    # -- processes -------------------------------------------------------------------------------------------------

    def start(self, module: str, **parameters: object) -> str:
        """Fork a process that runs `saferule_ros.<module>` with these parameters; return the node's name."""
        pairs = itertools.chain.from_iterable(("-p", f"{name}:={_yaml(value)}") for name, value in parameters.items())
        log = self._log_path(module)
        log.write_bytes(b"")
        self._processes[module] = shared().fork(
            f"saferule_ros.{module}", ["--ros-args", *pairs], self.folder, log, self.environment()
        )
        return module

    def start_command(self, name: str, command: Sequence[str]) -> str:
        """Start any command in this graph's domain; `name` is for `log` and `stop`."""
        with self._log_path(name).open("w", encoding="utf-8") as log:
            self._processes[name] = subprocess.Popen(
                [str(word) for word in command], env=self.environment(), stdout=log, stderr=subprocess.STDOUT,
                cwd=self.folder,
            )  # fmt: skip
        return name

    def environment(self) -> dict[str, str]:
        """Return the environment of this graph's processes."""
        python_path = os.pathsep.join([str(ROOT), str(ROOT / "test"), os.environ.get("PYTHONPATH", "")])
        return {**os.environ, "ROS_DOMAIN_ID": str(self.domain), "PYTHONPATH": python_path}

    def stop(self, name: str, how: int = signal.SIGINT) -> int:
        """Stop a process as Ctrl-C does and return its exit code."""
        self._processes[name].send_signal(how)
        return self._processes[name].wait(PATIENCE_S)

    def process_id(self, name: str) -> int:
        """Return the id of a process."""
        return self._processes[name].pid

    def log(self, name: str) -> str:
        """Return what a process has written so far."""
        return self._log_path(name).read_text(encoding="utf-8")

    def _log_path(self, name: str) -> Path:
        return self.folder / f"{name.strip('/').replace('/', '_')}.log"

    # -- services --------------------------------------------------------------------------------------------------

    def call(self, kind: type, service: str, request: object | None = None, timeout_s: float = PATIENCE_S) -> object:
        """Call a service and return its response."""
        client = self.node.create_client(kind, service)
        try:
            assert client.wait_for_service(timeout_sec=timeout_s), f"no service {service}\n{self._logs()}"
            future = client.call_async(request if request is not None else kind.Request())
            self.wait_until(future.done, f"an answer of {service}", timeout_s)
            return future.result()
        finally:
            self.node.destroy_client(client)

    def change_state(self, node: str, transition: int) -> bool:
        """Ask a lifecycle node for a transition; return whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, f"{node}/change_state", request).success

    def configure(self, *nodes: str) -> None:
        """Configure nodes, in order; each has to succeed."""
        for node in nodes:
            assert self.change_state(node, Transition.TRANSITION_CONFIGURE), self.log(node)

    def activate(self, *nodes: str) -> None:
        """Activate nodes, in order; each has to succeed."""
        for node in nodes:
            assert self.change_state(node, Transition.TRANSITION_ACTIVATE), self.log(node)

    def deactivate(self, *nodes: str) -> None:
        """Deactivate nodes, in order; each has to succeed."""
        for node in nodes:
            assert self.change_state(node, Transition.TRANSITION_DEACTIVATE), self.log(node)

    def is_active(self, node: str) -> bool:
        """Return whether a lifecycle node is active."""
        return self.call(GetState, f"{node}/get_state").current_state.id == State.PRIMARY_STATE_ACTIVE

    # -- topics ----------------------------------------------------------------------------------------------------

    def collect(self, topic: str, kind: type, qos: QoSProfile = EVERYTHING) -> list:
        """Return a list that grows with every message of a topic."""
        messages: list = []
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def answer(self, topic: str, kind: type, reply: Callable[[object], None], qos: QoSProfile = EVERYTHING) -> None:
        """Call `reply` with every message of a topic, in the thread of `graph.node`."""
        self.node.create_subscription(kind, topic, reply, qos)

    def wait_for_reader(self, publisher: object, count: int = 1) -> None:
        """Block until `count` subscriptions have found a publisher."""
        self.wait_until(lambda: publisher.get_subscription_count() >= count, f"a reader of {publisher.topic_name}")

    def wait_for_readers(self, topic: str, count: int) -> None:
        """Block until `count` subscriptions to `topic` are known here."""
        self.wait_until(lambda: self.node.count_subscribers(topic) >= count, f"{count} readers of {topic}")

    def wait_for_writer(self, topic: str, count: int = 1) -> None:
        """Block until a subscription of the test to `topic` can be served by `count` publishers."""
        self.wait_until(lambda: self.node.count_publishers(topic) >= count, f"a writer of {topic}")

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Block until `condition()`; fail with `what` and all logs where it takes too long or a process broke off."""
        limit = time.monotonic() + timeout_s
        while not condition():
            broken = [name for name, process in self._processes.items() if process.poll() not in (None, 0)]
            assert not broken, f"{', '.join(broken)} broke off\n{self._logs()}"
            assert time.monotonic() < limit, f"expected {what} within {timeout_s:g} s\n{self._logs()}"
            time.sleep(0.005)

    def _logs(self) -> str:
        return "\n".join(f"--- {name}\n{self.log(name)}" for name in self._processes)


def nanoseconds(stamp: object) -> int:
    """Return a builtin_interfaces/msg/Time in ns."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
