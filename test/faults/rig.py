"""A robot that a test can break in every way, with the real nodes around it, in wall time.

    with Rig(tmp_path, rate_hz=20.0) as rig:
        rig.start("policy_executor", "cost_monitor")      # forked, configured, activated
        rig.robot.x = 7.0                                 # beyond the limit
        rig.wait_until(lambda: rig.robot.stopped, "a stop")
        rig.kill("cost_monitor")

The store holds two policies with constant actions, `rig.policies`, so each command tells which of them gave it. The
robot checks every command that it ever gets against the bounds of its description.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from conftest import POINT_SPEC
from geometry_msgs.msg import WrenchStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from nursery import NODE_NICENESS, prefer, shared
from point_logs import SIMULATION
from rclpy.time import Time
from ros_testing import EVERYTHING, PATIENCE_S, RosGraph, nanoseconds
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from saferule.msg import PolicyStatus
from saferule.srv import SwapPolicy
from saferule_core import agents
from saferule_core.spec import RobotSpec, parse_spec
from saferule_core.store import Card, PolicyStore
from saferule_ros.messages import COMMAND, LATCHED, STATUS

ACTIVE = State.PRIMARY_STATE_ACTIVE
ACTIONS = {"first": 0.5, "second": -0.25}
"""Policies by name, and the action in [-1, 1] that each gives always."""


def spec_text(rate_hz: float, limit: float = 0.0, max_age_s: float = 0.35, max_steps: int = 100_000) -> str:
    """Return the description of the point of conftest.py at another rate and with another budget per episode."""
    changes = {
        "rate_hz: 10.0": f"rate_hz: {rate_hz}", "limit: 3.0": f"limit: {limit}",
        "max_age: 0.35": f"max_age: {max_age_s}", "max_steps: 20": f"max_steps: {max_steps}",
    }  # fmt: skip
    text = POINT_SPEC
    for before, after in changes.items():
        text = text.replace(before, after)
    return text + SIMULATION


def add_constant_policy(store: PolicyStore, spec: RobotSpec, action: float, hidden: tuple[int, ...] = (16,)) -> str:
    """Store a policy that answers everything with the same action; return its id."""
    agent = agents.build("filtered_cloning", spec.obs_dim, spec.action_dim, {"hidden": hidden})
    last = agent.actor.body[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(math.atanh(action))
    return store.add(agent, spec, Card(seed=0))


@dataclass(frozen=True)
class Command:
    """What the robot was told: wall time [s], its stamp [ns], force along x and y [N]."""

    at: float
    stamp_ns: int
    x: float
    y: float


class Robot:
    """Publishes its state at the rate of the description, from a thread, and keeps all that it is told.

    x: where it is [m]; tests set it. mute: it says nothing. delay_s: how old its stamps are. loss: share of states
    that are lost. offset_s: how far its clock (and /clock, with `own_clock`) is off.
    """

    def __init__(self, graph: RosGraph, spec: RobotSpec, own_clock: bool, sensor_hz: float, listens: bool) -> None:
        self.mend()
        self.commands: list[Command] = []
        self.statuses: list[PolicyStatus] = []
        self._spec, self._node = spec, graph.node
        self._odometry = graph.node.create_publisher(Odometry, "odom", STATUS)
        self._marker = graph.node.create_publisher(Header, "episode", LATCHED)
        self._clock = graph.node.create_publisher(Clock, "/clock", COMMAND) if own_clock else None
        self._sensor_hz = sensor_hz
        if listens:
            graph.node.create_subscription(WrenchStamped, "cmd_force", self._on_command, EVERYTHING)
            graph.node.create_subscription(PolicyStatus, "policy_status", self.statuses.append, EVERYTHING)
        self._own_ns = time.time_ns() if own_clock else 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="robot", daemon=True)
        self._thread.start()

    # -- what it is told ---------------------------------------------------------------------------------------------

    def _on_command(self, message: WrenchStamped) -> None:
        force = message.wrench.force
        self.commands.append(Command(time.monotonic(), nanoseconds(message.header.stamp), force.x, force.y))

    @property
    def stopped(self) -> bool:
        """Whether the newest command is the safe one."""
        return bool(self.commands) and self.commands[-1].x == self._spec.safe_command()["force_x"]

    @property
    def state(self) -> int:
        """The newest state of the executor."""
        return self.statuses[-1].state if self.statuses else PolicyStatus.STATE_INACTIVE

    def outside_bounds(self) -> int:
        """Return how many commands were not finite, or beyond the bounds of the description."""
        x, y = self._spec.action
        return sum(not (x.low <= c.x <= x.high and y.low <= c.y <= y.high) for c in self.commands)

    def of_no_policy(self, wanted: set[float]) -> int:
        """Return how many commands are neither safe nor what one of the policies gives (force along x [N])."""
        return sum(min(abs(c.x - value) for value in wanted) > 1e-5 for c in self.commands)

    def mend(self) -> None:
        """Be as at first: in the middle of what is allowed, and healthy."""
        self.x = self.delay_s = self.loss = self.offset_s = 0.0
        self.violated_ns, self.violated_at = 0, 0.0
        self.mute = self.frozen_clock = False

    # -- what it says ------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the time on its clock [ns]."""
        return (self._own_ns or time.time_ns()) + round(1e9 * self.offset_s)

    def begin_episode(self, name: str) -> None:
        """Say that an episode begins."""
        self._marker.publish(Header(frame_id=name, stamp=Time(nanoseconds=self.now_ns()).to_msg()))

    def close(self) -> None:
        """End its thread."""
        self._ended.set()
        self._thread.join()

    def say(self, x: float) -> None:
        """Publish one state."""
        message = Odometry()
        message.header.stamp = Time(nanoseconds=self.now_ns() - round(1e9 * self.delay_s)).to_msg()
        message.pose.pose.position.x, message.pose.pose.orientation.w = x, 1.0
        self._odometry.publish(message)

    def _run(self) -> None:
        """Sense, and with a clock of its own let time reach that state half a period later, as sim_robot does."""
        period, due, count = 1.0 / self._sensor_hz, time.monotonic(), 0
        while not self._wait_until(due):
            due, count = max(due + period, time.monotonic()), count + 1
            if self._own_ns and not self.frozen_clock:
                self._own_ns += self._spec.period_ns
            lost = (count * 0.6180339887) % 1.0 < self.loss
            if not self.mute and not lost:
                if not self.violated_ns and abs(self.x) > 6.0:
                    self.violated_ns, self.violated_at = self.now_ns(), time.monotonic()
                self.say(self.x)
            if self._clock is not None and not self._wait_until(due - 0.5 * period):
                self._clock.publish(Clock(clock=Time(nanoseconds=self.now_ns()).to_msg()))

    def _wait_until(self, due: float) -> bool:
        return self._ended.wait(max(0.0, due - time.monotonic()))


class NotUp(AssertionError):
    """A node ended, or gave no answer, while it was brought up."""


class Rig(RosGraph):
    """Nodes by name, a robot, and a store with two policies; the first one is active."""

    def __init__(
        self, folder: Path, rate_hz: float = 20.0, own_clock: bool = False, sensor_hz: float = 0.0,
        listens: bool = True, **spec: float,
    ) -> None:  # fmt: skip
        """Make store and description; sensor_hz: 0 for that of the loop; listens: keep commands and statuses."""
        super().__init__(folder)
        self.own_clock, self._hears = own_clock, (sensor_hz or rate_hz, listens)
        self._swapper = None
        self.spec = parse_spec(spec_text(rate_hz, **spec), "point.yaml")
        self.spec_path = self.folder / "point.yaml"
        self.spec_path.write_text(self.spec.text, encoding="utf-8")
        self.store = PolicyStore(self.folder / "store")
        self.policies = {name: add_constant_policy(self.store, self.spec, a) for name, a in ACTIONS.items()}
        self.store.activate(self.policies["first"])
        self.forces = {self.spec.safe_command()["force_x"], *(a * self.spec.action[0].high for a in ACTIONS.values())}

    def __enter__(self) -> Rig:
        self._niceness = prefer(NODE_NICENESS)  # the robot's sensors and its judge are no less than the nodes
        super().__enter__()
        self.robot = Robot(self, self.spec, self.own_clock, *self._hears)
        return self

    def __exit__(self, *exception: object) -> None:
        self.robot.close()
        super().__exit__(*exception)
        prefer(self._niceness)

    def start(self, *nodes: str, file_limit: int = 0, remap: tuple[str, ...] = (), **parameters: object) -> None:
        """Start nodes and take them to work; `remap` (of names, "from:=to") and `parameters` go to each.

        Raises:
            NotUp: one ended, or is silent.
        """
        own = {
            "policy_executor": {"store": self.store.root},
            "unlearning_server": {"store": self.store.root, "work_dir": self.folder / "work"},
            "flight_recorder": {"out_dir": self.folder / "logs"},
        }
        rules = [part for rule in remap for part in ("-r", rule)]
        for node in nodes:
            values = {"spec": self.spec_path, "use_sim_time": self.own_clock, **own.get(node, {}), **parameters}
            pairs = [part for name, value in values.items() for part in ("-p", f"{name}:={_yaml(value)}")]
            self._processes[node] = shared().fork(
                f"saferule_ros.{node}", ["--ros-args", *rules, *pairs], self.folder, self._log_path(node),
                self.environment(), NODE_NICENESS, file_limit,
            )  # fmt: skip
        for node in nodes:
            self._bring_up(node)

    def _bring_up(self, node: str) -> None:
        """Configure and activate a node; a request that went to a killed one of the same name is repeated."""
        steps = {
            State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE,
            State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_ACTIVATE,
        }
        asking = self.node.create_client(GetState, f"{node}/get_state")
        changing = self.node.create_client(ChangeState, f"{node}/change_state")
        limit = time.monotonic() + PATIENCE_S
        try:
            while (state := self._answer(asking, GetState.Request())) is None or state.current_state.id != ACTIVE:
                if time.monotonic() > limit or self.has_ended(node):
                    ended = self._processes[node].poll()
                    why = "it is silent" if ended is None else f"it ended with {ended}"
                    raise NotUp(f"{node} did not come up: {why}\n{self._logs()}")
                step = steps.get(state.current_state.id) if state else None
                if step is not None:
                    self._answer(changing, ChangeState.Request(transition=Transition(id=step)), 5.0)
        finally:
            self.node.destroy_client(asking)
            self.node.destroy_client(changing)

    def _answer(self, client: object, request: object, patience_s: float = 0.5) -> object | None:
        """Return the answer to a request, or None where none came in time."""
        answered = threading.Event()
        answer = client.call_async(request)
        answer.add_done_callback(lambda _answer: answered.set())
        if answered.wait(patience_s):
            return answer.result()
        client.remove_pending_request(answer)
        return None

    def pid(self, node: str) -> int:
        """Return the process id of a node."""
        return self._processes[node].pid

    def kill(self, node: str) -> None:
        """Kill a node, as a crash or the kernel would: no handler runs."""
        process = self._processes.pop(node)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    def freeze(self, node: str) -> None:
        """Stop a process from running at all, as a debugger, a full swap or a stuck driver does."""
        self._processes[node].send_signal(signal.SIGSTOP)

    def thaw(self, node: str) -> None:
        """Let it run again."""
        self._processes[node].send_signal(signal.SIGCONT)

    def swap(self, policy_id: str) -> SwapPolicy.Response:
        """Ask the executor for another policy, by a client that stays, as the unlearning server's does."""
        if self._swapper is None:
            self._swapper = self.node.create_client(SwapPolicy, "policy_executor/swap_policy")
        self.wait_until(self._swapper.service_is_ready, "the executor's swap service")
        answer = self._swapper.call_async(SwapPolicy.Request(policy_id=policy_id, reason="test"))
        self.wait_until(answer.done, "an answer to the swap")
        return answer.result()

    def ask_for(self, policy_id: str, patience_s: float) -> bool:
        """Ask for another policy where the executor may be dead; return whether it drives, as far as one hears."""
        client = self.node.create_client(SwapPolicy, "policy_executor/swap_policy")
        try:
            if not client.wait_for_service(patience_s):
                return False
            answer = self._answer(client, SwapPolicy.Request(policy_id=policy_id, reason="test"), patience_s)
            return answer is not None and answer.success
        finally:
            self.node.destroy_client(client)

    def has_ended(self, node: str) -> bool:
        """Return whether a process has ended by itself."""
        return self._processes[node].poll() is not None

    def rearm(self) -> None:
        """Do what an operator does after a stop: reset the monitor, resume the executor, see it drive.

        The monitor may stop once more for a state that was on its way, so this may take more than one try.
        """
        limit = time.monotonic() + 20.0
        while True:
            self.wait_for_ticks(2)
            self.call(Trigger, "cost_monitor/reset_stop")
            answer = self.call(Trigger, "policy_executor/resume")
            self.wait_for_ticks(2)
            if self.is_driving():
                return
            assert time.monotonic() < limit, f"expected it to drive: {answer.message}; {self.robot.statuses[-1:]}"

    def wait_for_ticks(self, count: int) -> None:
        """Block until that many more commands came."""
        seen = len(self.robot.commands)
        self.wait_until(lambda: len(self.robot.commands) >= seen + count, f"{count} further commands", 20.0)

    def is_driving(self) -> bool:
        """Return whether the policy drives: by the executor's status, and by the newest command that came."""
        return self.robot.state == PolicyStatus.STATE_RUNNING and bool(self.robot.commands) and not self.robot.stopped

    def check_commands(self) -> None:
        """Fail where any command ever was out of bounds, or of no policy."""
        assert self.robot.outside_bounds() == 0
        assert self.robot.of_no_policy(self.forces) == 0


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
