"""policy_executor: runs the policy at a fixed rate and exchanges it between two ticks.

    ros2 run saferule policy_executor --ros-args -p spec:=robot.yaml -p store:=policies

One SingleThreadedExecutor serves sensors, ticks and services. A new policy is read and checked in a thread of its own;
when it is ready a guard condition brings it back to the executor, which assigns it between two ticks.
"""

from __future__ import annotations

import gc
import sys
from concurrent.futures import Future as LoadedFuture
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from saferule.msg import PolicyStatus
from saferule.srv import SwapPolicy
from saferule_core.control import Controller, ControlState, Policy, Tick
from saferule_core.errors import SaferuleError
from saferule_core.signals import fill_commands
from saferule_core.store.bundle import load_policy
from saferule_core.store.store import PolicyStore
from saferule_ros.managed_node import SPEC_PARAMETER, STORE_PARAMETER, ManagedNode, Parameter, run
from saferule_ros.messages import COMMAND, LATCHED, SENSOR, STATUS, make_message, message_class

SWITCH_INTERVAL_S = 0.0005
"""How long Python lets the thread that loads a policy run before the ticks get their turn [s]; its default is 5 ms."""

_STATES = {
    ControlState.RUNNING: PolicyStatus.STATE_RUNNING,
    ControlState.HOLDING: PolicyStatus.STATE_HOLDING,
    ControlState.STOPPED: PolicyStatus.STATE_STOPPED,
}


class PolicyExecutor(ManagedNode):
    """Sensors in, commands out at `rate_hz` of the description, in ROS time."""

    PARAMETERS = (
        SPEC_PARAMETER,
        STORE_PARAMETER,
        Parameter("policy", "active", "policy to start with: `active`, or the id of a policy in the store"),
    )

    def configure(self) -> None:
        """Load description and policy; raises SaferuleError where they do not fit each other."""
        torch.set_num_threads(1)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._spec = self.load_spec()
        self._store = PolicyStore(self.path_parameter("store", "a policy store"))
        policy_id, policy = self._load(self.parameter("policy"))
        self._controller = Controller(self._spec, policy, policy_id)
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy_loader")
        self._loading: tuple[LoadedFuture, Future] | None = None
        # A service that awaits occupies its callback group: in the default one it would hold up the ticks.
        self._loaded = self.create_guard_condition(self._apply_swap, MutuallyExclusiveCallbackGroup())
        self._status = self.create_publisher(PolicyStatus, "policy_status", STATUS)
        self._commands = {
            topic: self.create_publisher(message_class(kind), topic, COMMAND)
            for topic, kind in self._spec.command_topics.items()
        }
        self._subscriptions_made = [
            *self.subscribe_sensors(self._spec, self._on_sensor, SENSOR),
            self.create_subscription(Bool, "safety_stop", self._on_safety_stop, LATCHED),
            *self._marker_subscription(),
        ]
        self._services_made = [
            self.create_service(
                SwapPolicy, "~/swap_policy", self._on_swap, callback_group=MutuallyExclusiveCallbackGroup()
            ),
            self.create_service(Trigger, "~/hold", self._on_hold),
            self.create_service(Trigger, "~/resume", self._on_resume),
        ]
        self._timer = None
        self.get_logger().info(f"{self._spec.name}: policy {policy_id[:12]}, {self._spec.rate_hz:g} Hz")

    def activate(self) -> None:
        """Begin to drive."""
        self._controller.restart()
        gc.collect()
        gc.freeze()  # what is loaded stays: the collector need not look at it during a tick
        self._timer = self.create_timer(self._spec.period_ns / 1e9, self._on_tick)

    def deactivate(self) -> None:
        """Stop driving: the safe command is the last one."""
        self.destroy_timer(self._timer)
        self._timer = None
        self._send(self._spec.safe_command())
        self._publish_status(PolicyStatus.STATE_INACTIVE, "deactivated", None)

    def cleanup(self) -> None:
        """Forget policy and connections."""
        for made, destroy in (
            ("_subscriptions_made", self.destroy_subscription),
            ("_services_made", self.destroy_service),
        ):
            for item in self.__dict__.pop(made, ()):
                destroy(item)
        for publisher in (*self.__dict__.pop("_commands", {}).values(), self.__dict__.pop("_status", None)):
            if publisher is not None:
                self.destroy_publisher(publisher)
        if "_loaded" in self.__dict__:
            self.destroy_guard_condition(self.__dict__.pop("_loaded"))
        loader = self.__dict__.pop("_loader", None)
        if loader is not None:
            loader.shutdown(wait=True)

    def _marker_subscription(self) -> list:
        """Listen to the episode marker, where there is one that is no sensor: only its changes count here."""
        marker = self._spec.episode.marker
        if marker is None or marker.topic in self._spec.sensor_topics:
            return []
        kind, topic = message_class(marker.type), marker.topic
        return [self.create_subscription(kind, topic, lambda message: self._on_sensor(topic, message), STATUS)]

    # -- ticks -----------------------------------------------------------------------------------------------------

    def _on_sensor(self, topic: str, message: object) -> None:
        self._controller.update(topic, message, self.now_ns())

    def _on_tick(self) -> None:
        tick = self._controller.tick(self.now_ns())
        self._send(tick.command)
        if tick.state is not ControlState.RUNNING:
            self.get_logger().warning(tick.reason, throttle_duration_sec=1.0)
        self._publish_status(_STATES[tick.state], tick.reason, tick)

    def _send(self, command: dict[str, float]) -> None:
        stamp = self.get_clock().now().to_msg()
        for topic, message in fill_commands(self._spec, command, make_message).items():
            if hasattr(message, "header"):
                message.header.stamp = stamp
            self._commands[topic].publish(message)

    def _publish_status(self, state: int, reason: str, tick: Tick | None) -> None:
        statistics = self._controller.statistics
        status = PolicyStatus(
            state=state,
            policy_id=self._controller.policy_id,
            spec_hash=self._spec.hash,
            ticks=statistics.ticks,
            missed_ticks=statistics.missed_ticks,
            stale_ticks=statistics.stale_ticks,
            worst_lateness=statistics.worst_lateness_s,
            worst_compute=statistics.worst_compute_s,
            swaps=statistics.swaps,
            last_swap_tick=statistics.last_swap_tick,
            last_swap_duration=statistics.last_swap_duration_s,
            missed_since_swap=statistics.missed_since_swap,
            message=reason,
        )
        if tick is not None:
            status.interval, status.compute = tick.interval_s, tick.compute_s
        status.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(status)

    # -- stop, hold, resume ----------------------------------------------------------------------------------------

    def _on_safety_stop(self, message: Bool) -> None:
        self._controller.set_stop("safety stop of the cost monitor" if message.data else "")

    def _on_hold(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._controller.hold("held by ~/hold")
        response.success, response.message = True, "holding: the safe command is sent until ~/resume"
        return response

    def _on_resume(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._controller.resume()
        response.success, response.message = True, f"policy {self._controller.policy_id[:12]} drives"
        return response

    # -- swapping --------------------------------------------------------------------------------------------------

    def _load(self, name: str) -> tuple[str, Policy]:
        """Return id and policy, checked against content, history and description; raises StoreError or SpecError."""
        policy = load_policy(self._store.path_to_drive(name), self._spec)
        policy.act(np.zeros((1, self._spec.obs_dim), dtype=np.float32))  # the first call of a network is slow
        return policy.policy_id, policy

    async def _on_swap(self, request: SwapPolicy.Request, response: SwapPolicy.Response) -> SwapPolicy.Response:
        """Read the policy aside, then exchange it; answers when it drives, or with the reason why it does not."""
        response.previous_id = self._controller.policy_id
        if self._loading is not None:
            response.success, response.message = False, "another policy is being loaded; try again when it drives"
            return response
        swapped = Future(executor=self.executor)
        loading = self._loader.submit(self._load, request.policy_id)
        self._loading = loading, swapped
        loading.add_done_callback(lambda _loading: self._loaded.trigger())
        try:
            response.tick = await swapped
        except SaferuleError as error:
            response.success, response.message = False, str(error)
            self.get_logger().error(f"swap refused, {response.previous_id[:12]} drives on: {error}")
            return response
        response.success = True
        response.message = f"policy {self._controller.policy_id[:12]} drives from tick {response.tick}"
        reason = request.reason or "no reason given"
        self.get_logger().info(f"{response.message}, after {response.previous_id[:12]}: {reason}")
        return response

    def _apply_swap(self) -> None:
        """Runs in the executor's thread, so never during a tick."""
        if self._loading is None or not self._loading[0].done():
            return
        (loading, swapped), self._loading = self._loading, None
        error = loading.exception()
        if error is not None:
            swapped.set_exception(error)
            return
        policy_id, policy = loading.result()
        self._controller.swap(policy, policy_id)
        swapped.set_result(self._controller.statistics.last_swap_tick)


def main(arguments: list[str] | None = None) -> None:
    """Run the node."""
    run(PolicyExecutor, "policy_executor", arguments)


if __name__ == "__main__":
    main()
