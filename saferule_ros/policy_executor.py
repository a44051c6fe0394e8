"""policy_executor: runs the policy at a fixed rate and exchanges it between two ticks.

    ros2 run saferule policy_executor --ros-args -p spec:=robot.yaml -p store:=policies

One SingleThreadedExecutor serves sensors, ticks and services. Ticks come from a steady clock, so that setting the
machine's clock neither stops nor bunches them; under `use_sim_time` they follow ROS time, so that they pause, jump and
change speed with the simulation. Stamps are ROS time in both cases.

What the robot has to do itself: commands come once per control period, also while the policy may not drive (then the
safe command). Where none has come for three periods the executor or its machine is gone, and the robot must stop.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
import time

import torch
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from saferule.msg import CostStatus, PolicyStatus
from saferule.srv import SwapPolicy
from saferule_core.control import Controller, ControlSettings, ControlState, ResumeRefused, Tick
from saferule_core.control.settings import OOD_MODES
from saferule_core.control.stops import MONITOR_STOP
from saferule_core.errors import SpecError
from saferule_core.signals import write_commands
from saferule_core.store.store import PolicyStore
from saferule_core.tensors import use_threads
from saferule_ros.diagnostics import UnusableMessages
from saferule_ros.managed_node import SPEC_PARAMETER, STORE_PARAMETER, ManagedNode, Parameter, run
from saferule_ros.messages import COMMAND, LATCHED, SENSOR, STATUS, make_message, message_class
from saferule_ros.policy_status import PolicyStatusWriter
from saferule_ros.swapping import SwapDefaults, Swapping, load

SWITCH_INTERVAL_S = 0.0005
"""How long Python lets the thread that loads a policy run before the ticks get their turn [s]; its default is 5 ms."""

GARBAGE_EVERY_S = 1.0
"""How often garbage is collected, right after a tick [s of ticks]; during a tick it never is."""

LAST_COMMAND_WAIT_S = 0.2
"""How long to wait until the robot has the safe command of a deactivation [s]."""


class PolicyExecutor(ManagedNode):
    """Sensors in, commands out at `rate_hz` of the description."""

    PARAMETERS = (
        SPEC_PARAMETER,
        STORE_PARAMETER,
        Parameter("policy", "active", "policy to start with: `active`, or the id of a policy in the store"),
        Parameter("input_timeout", 0.5, "how long inputs may be unusable before the stop latches [s]", 0.0, 60.0),
        Parameter("monitor_timeout", 0.5, "stop after so long a silence of cost_monitor [s wall], 0: never", 0.0, 60.0),
        Parameter("require_monitor", False, "do not drive without cost_monitor; else only its falling silent stops"),
        Parameter("ood", "warn", f"observations beyond the training data's ranges: {', '.join(OOD_MODES)}"),
        Parameter("ood_margin", 0.1, "how far beyond, as a share of each range", 0.0, 100.0),
        Parameter("blend_ticks", 0, "ticks that lead from an old policy's actions to a new one's", 0, 10_000),
        Parameter("shadow_s", 0.0, "driven time in which a new policy runs beside the old one first [s]", 0.0, 3600.0),
        Parameter("shadow_threshold", 0.5, "mean difference of their actions that refuses it, of [-1, 1]", 0.0, 2.0),
        Parameter("probation_s", 0.0, "driven time in which a violation swaps a new policy back [s]", 0.0, 1e6),
        Parameter("probation_share", 0.8, "share of the cost limit that an episode may cost meanwhile", 0.01, 1.0),
        Parameter("probation_grace_s", 2.0, "time to end a violation that was there before it [s]", 0.0, 3600.0),
        Parameter("realtime_priority", 0, "of the loop's thread, 1 to 99 (SCHED_FIFO); 0: the usual scheduling", 0, 99),
    )

    def configure(self) -> None:
        """Load description and policy; raises SaferuleError where they do not fit each other."""
        _use_one_thread()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._spec = spec = self.load_spec()
        settings = ControlSettings(
            self.parameter("input_timeout"), self.parameter("monitor_timeout"), self.parameter("require_monitor"),
            self.parameter("ood"), self.parameter("ood_margin"),
        )  # fmt: skip
        store = PolicyStore(self.path_parameter("store", "a policy store"))
        policy_id, policy = load(store, self.parameter("policy"), spec)
        self._controller = Controller(spec, policy, policy_id, settings)
        if settings.ood != "off" and not self._controller.checks_ranges:
            self.get_logger().warning(f"{policy_id[:12]} does not know the ranges of its training data: not checked")
        defaults = {field.name: self.parameter(field.name) for field in dataclasses.fields(SwapDefaults)}
        self._swapping = Swapping(self, self._controller, store, SwapDefaults(**defaults))
        self._writer = PolicyStatusWriter(spec)
        self._status = self.create_publisher(PolicyStatus, "policy_status", STATUS)
        self._messages = {topic: make_message(kind) for topic, kind in spec.command_topics.items()}
        self._commands = {
            topic: self.create_publisher(message_class(kind), topic, COMMAND)
            for topic, kind in spec.command_topics.items()
        }
        self._subscriptions_made = [
            *self.subscribe_sensors(spec, self._on_sensor, SENSOR),
            self.create_subscription(Bool, "safety_stop", self._on_safety_stop, LATCHED),
            self.create_subscription(CostStatus, "cost_status", self._on_cost, STATUS),
            *self._marker_subscription(),
        ]
        self._services_made = [
            # A service that awaits occupies its callback group: in the default one it would hold up the ticks, and in
            # any exclusive one the next request would wait instead of being told that it is not its turn.
            self.create_service(
                SwapPolicy, "~/swap_policy", self._swapping.on_swap, callback_group=ReentrantCallbackGroup()
            ),
            self.create_service(Trigger, "~/hold", self._on_hold),
            self.create_service(Trigger, "~/resume", self._on_resume),
        ]
        self._timer, self._hurried, self._unusable = None, False, UnusableMessages(self)
        self.get_logger().info(f"{spec.name}: policy {policy_id[:12]}, {spec.rate_hz:g} Hz")

    def activate(self) -> None:
        """Begin to drive."""
        self._controller.restart()
        self._simulated = self.parameter("use_sim_time")
        self._garbage_ticks = max(1, round(GARBAGE_EVERY_S * self._spec.rate_hz))
        gc.collect()
        gc.freeze()  # what is loaded stays: the collector need not look at it
        gc.disable()
        self._schedule(self.parameter("realtime_priority"))
        self._timer = self.create_timer(self._spec.period_ns / 1e9, self._on_tick, clock=self.period_clock())

    def deactivate(self) -> None:
        """Stop driving: the safe command is the last one."""
        self.destroy_timer(self._timer)
        self._timer = None
        stamp = self.get_clock().now().to_msg()
        self._send(self._spec.safe_command(), stamp)
        self._swapping.abandon("policy_executor was deactivated")
        self._status.publish(self._writer.inactive(self._controller, stamp))
        for publisher in self._commands.values():
            publisher.wait_for_all_acked(Duration(seconds=LAST_COMMAND_WAIT_S))
        self._schedule(0)
        gc.enable()
        gc.unfreeze()
        policies = self._controller.succession
        for line in self._controller.statistics.summary().splitlines():
            self.get_logger().info(line)
        self.get_logger().info(f"policies: {policies.swaps} swaps, {policies.reverts} taken back on probation")

    def _schedule(self, priority: int) -> None:
        """Give this thread the priority that `realtime_priority` asks for, where that is allowed; see `schedule`."""
        if priority or self._hurried:
            try:
                schedule(priority)
                self._hurried = priority > 0
            except OSError as error:
                self.get_logger().warning(
                    f"realtime_priority: expected the right to take {priority} (ulimit -r), found: "
                    f"{error.strerror or error}; the loop runs as other processes do"
                )

    def cleanup(self) -> None:
        """Forget policy and connections."""
        for made, destroy in (
            ("_subscriptions_made", self.destroy_subscription),
            ("_services_made", self.destroy_service),
        ):
            for item in self.__dict__.pop(made, ()):
                destroy(item)
        if "_swapping" in self.__dict__:
            self.__dict__.pop("_swapping").close()
        for publisher in (*self.__dict__.pop("_commands", {}).values(), self.__dict__.pop("_status", None)):
            if publisher is not None:
                self.destroy_publisher(publisher)

    def _marker_subscription(self) -> list:
        """Listen to the episode marker, where there is one that is no sensor: only its changes count here."""
        marker = self._spec.episode.marker
        if marker is None or marker.topic in self._spec.sensor_topics:
            return []
        kind, topic = message_class(marker.type), marker.topic
        return [self.create_subscription(kind, topic, lambda message: self._on_sensor(topic, message), STATUS)]

    # -- ticks -----------------------------------------------------------------------------------------------------

    def _on_sensor(self, topic: str, message: object) -> None:
        try:
            self._controller.update(topic, message, self.now_ns())
        except SpecError as error:
            self._unusable.add(topic, error)

    def _on_tick(self) -> None:
        now = self.get_clock().now()
        controller, now_ns, stamp = self._controller, now.nanoseconds, now.to_msg()
        tick = controller.tick(now_ns, now_ns if self._simulated else time.monotonic_ns())
        self._send(tick.command, stamp)
        self._status.publish(self._writer.of(controller, tick, now_ns, stamp))
        controller.settle()
        self._swapping.after_tick()
        self._report(tick)
        if tick.number % self._garbage_ticks == 0 and not self._swapping.under_way:
            gc.collect()

    def _send(self, command: dict[str, float], stamp: object) -> None:
        write_commands(self._spec, command, self._messages)
        for topic, message in self._messages.items():
            if hasattr(message, "header"):
                message.header.stamp = stamp
            self._commands[topic].publish(message)

    def _report(self, tick: Tick) -> None:
        """Say what is odd about a tick, and carry a failed probation into the store."""
        log = self.get_logger()
        if tick.state is not ControlState.RUNNING:
            self.warn_now_and_then(tick.reason)
        elif tick.warning:
            self.warn_now_and_then(tick.warning)
        if tick.reverted is not None:
            drives = f"{tick.reverted.previous_id[:12]} drives again" if tick.reverted.previous_id else "held"
            log.error(f"{tick.reverted.reason}: {drives} from tick {tick.number}")
            self._swapping.record_failure(tick.reverted)
        if tick.passed:
            log.info(f"{tick.passed[:12]} passed its probation")

    # -- stop, hold, resume ----------------------------------------------------------------------------------------

    def _on_safety_stop(self, message: Bool) -> None:
        """Latch what the monitor asks for."""
        self._controller.set_monitor_stop(message.data)
        if message.data:
            self._stop_now()

    def _stop_now(self) -> None:
        """Send the safe command: on timers of its own the robot need not wait for the next tick to obey."""
        if self.working and not self._simulated:
            self._send(self._spec.safe_command(), self.get_clock().now().to_msg())

    def _on_cost(self, status: CostStatus) -> None:
        self._controller.take_cost(
            status.policy_id, status.episode, status.step, status.cost, status.violation_confirmed
        )
        if status.stop_latched and not self._controller.stop_reason:  # a `safety_stop` that is late, or lost
            self._controller.stop(MONITOR_STOP)
            self._stop_now()

    def _on_hold(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._controller.hold("held by ~/hold")
        response.success, response.message = True, "holding: the safe command is sent until ~/resume"
        return response

    def _on_resume(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._controller.resume()
        except ResumeRefused as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = True, f"policy {self._controller.policy_id[:12]} drives"
        return response


def schedule(priority: int) -> None:
    """Let the kernel run this thread before all others that are not in its real-time class; 0 for the usual way.

    Threads that it starts are scheduled in the usual way.

    Raises:
        OSError: this system does not do that, or not for this user.
    """
    if not hasattr(os, "sched_setscheduler"):
        raise OSError("this system has no real-time scheduling")
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK if priority else os.SCHED_OTHER
    os.sched_setscheduler(0, policy, os.sched_param(priority))


def _use_one_thread() -> None:
    """Compute in the control loop's thread: handing small products to others takes longer than computing them."""
    use_threads(1)
    if torch.get_num_interop_threads() != 1:  # may be set once per process, and then not after its first use
        torch.set_num_interop_threads(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the node."""
    run(PolicyExecutor, "policy_executor", arguments)


if __name__ == "__main__":
    main()
