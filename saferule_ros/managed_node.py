"""What the nodes of saferule share: lifecycle with clear errors, declared parameters, and a main function.

    class CostMonitor(ManagedNode):
        PARAMETERS = (Parameter("spec", "", "robot description (YAML file)"), ...)
        def configure(self): ...      # raise SaferuleError to refuse, with the reason in the log
        def activate(self): ...

    def main(): run(CostMonitor, "cost_monitor")

A node in the control loop has one SingleThreadedExecutor: at control rates rclpy's multithreaded one falls behind.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import rclpy
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor, ExternalShutdownException, InvalidHandle, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.signals import SignalHandlerOptions

from saferule_core.errors import SaferuleError, SpecError
from saferule_core.spec import RobotSpec, load_spec
from saferule_ros.messages import message_class

Choice = TypeVar("Choice", bound=enum.Enum)

SIGNAL_CHECK_S = 0.2
"""How long a silent node takes at most to notice Ctrl-C [s]."""

WARNING_PAUSE_S = 1.0
"""Least time between two warnings of `warn_now_and_then` [s]."""


@dataclass(frozen=True)
class Parameter:
    """A declared parameter; `low` and `high` bound numbers. All are read when the node is configured."""

    name: str
    default: object
    description: str
    low: float | int | None = None
    high: float | int | None = None

    def descriptor(self) -> ParameterDescriptor:
        """Return the descriptor that `ros2 param describe` shows."""
        descriptor = ParameterDescriptor(description=self.description)
        if self.low is not None and isinstance(self.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high, step=0.0)]
        elif self.low is not None:
            descriptor.integer_range = [IntegerRange(from_value=self.low, to_value=self.high, step=1)]
        return descriptor


SPEC_PARAMETER = Parameter("spec", "", "robot description: path of a YAML file")
STORE_PARAMETER = Parameter("store", "", "policy store: path of a folder")


class ManagedNode(LifecycleNode):
    """A lifecycle node whose transitions are plain methods that may raise SaferuleError.

    Subclasses override `configure`, `activate`, `deactivate` and `cleanup`; a SaferuleError refuses the transition
    and is logged as one line, anything else is a defect and goes to the lifecycle's error state with its traceback.
    """

    PARAMETERS: tuple[Parameter, ...] = ()
    READS_CLOCK = True
    """Whether the node has a use for /clock; if not, `use_sim_time` stays false: every message of it wakes the node."""

    def __init__(self, name: str, **options: object) -> None:
        super().__init__(name, **options)
        self.working = False
        self._warns_again = 0.0
        for parameter in self.PARAMETERS:
            self.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        if not self.READS_CLOCK:
            self.set_parameters([RosParameter("use_sim_time", value=False)])

    def configure(self) -> None:
        """Read parameters, create publishers, subscriptions and services."""

    def activate(self) -> None:
        """Begin to work."""

    def deactivate(self) -> None:
        """Stop working; leave the robot safe."""

    def cleanup(self) -> None:
        """Drop what `configure` made; also called on shutdown from any state, so it tolerates half a configuration."""

    def parameter(self, name: str) -> object:
        """Return the value of a declared parameter."""
        return self.get_parameter(name).value

    def path_parameter(self, name: str, what: str) -> Path:
        """Return a parameter as a path.

        Raises:
            SpecError: it is empty.
        """
        if not self.parameter(name):
            raise SpecError(f"parameter {name} of {self.get_name()}: expected the path of {what}, found nothing")
        return Path(self.parameter(name)).expanduser()

    def choice(self, name: str, kind: type[Choice]) -> Choice:
        """Return the member of an enumeration whose value a parameter is.

        Raises:
            SpecError: there is none.
        """
        try:
            return kind(self.parameter(name))
        except ValueError:
            names = ", ".join(member.value for member in kind)
            found = f"expected one of {names}, found {self.parameter(name)!r}"
            raise SpecError(f"parameter {name} of {self.get_name()}: {found}") from None

    def load_spec(self) -> RobotSpec:
        """Return the robot description named by the parameter `spec`; raises SpecError."""
        return load_spec(self.path_parameter("spec", "a robot description (YAML)"))

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `configure`; after a refusal the node is as it was."""
        result = self._guard(self.configure)
        if result is not TransitionCallbackReturn.SUCCESS:
            self._guard(self.cleanup)
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `activate`."""
        super().on_activate(state)
        result = self._guard(self.activate)
        self.working = result is TransitionCallbackReturn.SUCCESS
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `deactivate`."""
        self.working = False
        result = self._guard(self.deactivate)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `cleanup`."""
        return self._guard(self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave the robot safe, then drop everything."""
        if self.working:
            self.on_deactivate(state)
        return self._guard(self.cleanup)

    def _guard(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        result = TransitionCallbackReturn.ERROR
        try:
            step()
            result = TransitionCallbackReturn.SUCCESS
        except SaferuleError as error:
            self.get_logger().error(f"cannot {step.__name__}: {error}")
            result = TransitionCallbackReturn.FAILURE
        finally:
            if result is TransitionCallbackReturn.ERROR:  # rclpy drops what a transition raises
                self.get_logger().error(f"{step.__name__} broke off: {traceback.format_exc()}")
        return result

    def leave_safely(self) -> None:
        """Deactivate an active node when its process ends, so that the robot gets its safe stop."""
        if self.working and rclpy.ok():
            self.trigger_deactivate()

    def warn_now_and_then(self, text: str) -> None:
        """Log a warning unless there was one within `WARNING_PAUSE_S`; rclpy's throttle asks each time who calls."""
        if (now := time.monotonic()) >= self._warns_again:
            self._warns_again = now + WARNING_PAUSE_S
            self.get_logger().warning(text)

    def now_ns(self) -> int:
        """Return the ROS time [ns]."""
        return self.get_clock().now().nanoseconds

    def period_clock(self) -> Clock:
        """Return the clock for periods and silences: a steady one, which nobody sets, or that of a simulation.

        Stamps are the node clock's in both cases.
        """
        return self.get_clock() if self.parameter("use_sim_time") else Clock(clock_type=ClockType.STEADY_TIME)

    def subscribe_sensors(self, spec: RobotSpec, callback: Callable[[str, object], None], qos: object) -> list:
        """Subscribe to every sensor topic of `spec`; `callback(topic, message)`. Returns the subscriptions."""

        def listen(topic: str, kind: str) -> object:
            return self.create_subscription(message_class(kind), topic, lambda m: callback(topic, m), qos)

        return [listen(topic, kind) for topic, kind in spec.sensor_topics.items()]


def spin_once(executor: Executor, timeout_s: float) -> None:
    """Serve what is ready, or return after `timeout_s` [s].

    While rclpy gathers what to wait for, another thread may destroy a part of it. For some kinds of parts it then
    raises InvalidHandle, although looking again is all that is needed.
    """
    with contextlib.suppress(InvalidHandle):
        executor.spin_once(timeout_sec=timeout_s)


def run(
    node_class: type[ManagedNode],
    name: str,
    arguments: list[str] | None = None,
    make_executor: Callable[[], Executor] = SingleThreadedExecutor,
) -> None:
    """Spin a node until Ctrl-C, SIGTERM or a ROS shutdown; an active node is deactivated first (safe stop).

    ROS's own signal handlers would close the context at once, and the safe stop could not be sent any more. A node
    that a bring-up started (SAFERULE_STOP_WITH_PARENT) also ends when that process has died.
    """
    parent = os.getppid() if os.environ.get("SAFERULE_STOP_WITH_PARENT") else None
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    node = node_class(name)
    executor = make_executor()
    executor.add_node(node)
    try:
        while not stop.is_set() and rclpy.ok() and (parent is None or os.getppid() == parent):
            spin_once(executor, SIGNAL_CHECK_S)
    except ExternalShutdownException:
        node.get_logger().info("ROS was shut down")
    finally:
        node.leave_safely()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
