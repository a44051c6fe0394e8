"""command_filter: stands between policy_executor and the robot, and holds back what would break a bound.

    ros2 run saferule command_filter --ros-args -p spec:=robot.yaml -p mode:=approach -p horizon:=1.0 \\
        -p rates:="['x=action.speed * heading_cos', 'y=action.speed * heading_sin']"
    ros2 run saferule policy_executor --ros-args -p spec:=robot.yaml -r cmd_vel:=unfiltered/cmd_vel ...

It takes the description's commands from `unfiltered/<topic>` and publishes them on `<topic>`, so what is recorded and
judged elsewhere is what the robot was told. `saferule_core.command_filter` says what is held back. The bring-up starts
it, and moves the executor's commands, with `command_filter:=true`.

Without fresh sensors the safe command goes out, and once when the commands fall silent for `command_timeout`. That is
measured on a steady clock, which nobody sets; under `use_sim_time` on ROS time.
"""

from __future__ import annotations

from rclpy.clock import Clock, ClockType

from saferule.msg import FilterStatus
from saferule_core.command_filter import CommandFilter, FilterMode, Verdict, unfiltered
from saferule_core.errors import SpecError
from saferule_core.extrapolation import parse_rates
from saferule_core.signals import fill_commands, read_commands
from saferule_ros.diagnostics import Diagnostics, Level, UnusableMessages
from saferule_ros.managed_node import SPEC_PARAMETER, ManagedNode, Parameter, run
from saferule_ros.messages import COMMAND, SENSOR, STATUS, make_message, message_class


class CommandFilterNode(ManagedNode):
    """Sensors and unfiltered commands in; commands, filter_status and diagnostics out."""

    PARAMETERS = (
        SPEC_PARAMETER,
        Parameter("mode", "approach", "approach: scale by as little as is needed; slow: by slow_scale; stop"),
        Parameter("horizon", 1.0, "how far it looks ahead [s]", 0.001, 1000.0),
        Parameter("rates", [""], "signal=expression: its change per second, over signals and action.<channel>"),
        Parameter("clearance", 0.0, "margin to keep from every bound [units of the constraint]", 0.0, 1e12),
        Parameter("slow_scale", 0.3, "share of the command that the mode slow lets pass", 0.0, 1.0),
        Parameter("command_timeout", 0.5, "silence of the commands until the safe one is sent [s], 0: never", 0.0, 1e6),
    )

    def configure(self) -> None:
        """Read the description and connect; raises SpecError or DataError."""
        self._spec = spec = self.load_spec()
        self._mode = self.choice("mode", FilterMode)
        self._rates = parse_rates(spec, self.parameter("rates"))
        self._filter = self._make_filter()
        self._pending: dict[str, object] = {}
        self._loop_clock = self.period_clock()
        self._heard_ns: int | None = None
        self._changed = self._judged = self._unusable_before = 0
        self._unusable = UnusableMessages(self)
        self._verdict: Verdict | None = None
        self._status = self.create_publisher(FilterStatus, "filter_status", STATUS)
        self._commands = {
            topic: self.create_publisher(message_class(kind), topic, COMMAND)
            for topic, kind in spec.command_topics.items()
        }
        self._diagnostics = Diagnostics(self, "command filter", spec.name)
        self._subscriptions_made = self.subscribe_sensors(spec, self._on_sensor, SENSOR)
        marker = spec.episode.marker
        if marker is not None and marker.topic not in spec.sensor_topics:
            self._listen(marker.topic, marker.topic, marker.type, self._on_sensor, STATUS)
        for topic, kind in spec.command_topics.items():
            self._listen(unfiltered(topic), topic, kind, self._on_command, COMMAND)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._slow_timer = self.create_timer(1.0, self._on_second, clock=steady)
        self._timer = None
        self.get_logger().info(f"{spec.name}: {self._mode.value} within {self.parameter('horizon'):g} s of a bound")
        if self._filter.not_guarded:
            names = ", ".join(self._filter.not_guarded)
            self.get_logger().warning(f"constraints without a margin cannot be looked ahead for: {names}")

    def activate(self) -> None:
        """Begin to let commands pass; what was sensed before counts for nothing."""
        self._filter = self._make_filter()
        self._pending.clear()
        self._heard_ns, self._verdict = None, None
        self._unusable, self._unusable_before = UnusableMessages(self), 0
        self._loop_clock = self.period_clock()
        self._timer = self.create_timer(self._spec.period_ns / 1e9, self._on_tick, clock=self._loop_clock)

    def deactivate(self) -> None:
        """Let nothing pass; the safe command is the last one."""
        self.destroy_timer(self._timer)
        self._timer = None
        self._send_safe()

    def cleanup(self) -> None:
        """Disconnect."""
        for subscription in self.__dict__.pop("_subscriptions_made", ()):
            self.destroy_subscription(subscription)
        for publisher in (*self.__dict__.pop("_commands", {}).values(), self.__dict__.pop("_status", None)):
            if publisher is not None:
                self.destroy_publisher(publisher)
        if "_slow_timer" in self.__dict__:
            self.destroy_timer(self.__dict__.pop("_slow_timer"))
        if "_diagnostics" in self.__dict__:
            self.__dict__.pop("_diagnostics").close()

    def _make_filter(self) -> CommandFilter:
        return CommandFilter(
            self._spec, self._mode, self.parameter("horizon"), self._rates,
            self.parameter("slow_scale"), self.parameter("clearance"),
        )  # fmt: skip

    def _listen(self, source: str, topic: str, kind: str, callback: object, quality: object) -> None:
        """Subscribe to `source` and hand its messages on as those of `topic`."""
        listener = self.create_subscription(message_class(kind), source, lambda m: callback(topic, m), quality)
        self._subscriptions_made.append(listener)

    def _on_sensor(self, topic: str, message: object) -> None:
        if self.working:
            try:
                self._filter.update(topic, message, self.now_ns())
            except SpecError as error:
                self._unusable.add(topic, error)

    def _on_command(self, topic: str, message: object) -> None:
        """Judge the command when all of its topics have come: its channels are scaled together."""
        if not self.working:
            return
        self._pending[topic] = message
        if len(self._pending) < len(self._commands):
            return
        messages, self._pending = self._pending, {}
        wanted: dict[str, float] = {}
        for command_topic, command in messages.items():
            try:
                wanted.update(read_commands(self._spec, command_topic, command))
            except SpecError as error:
                self._unusable.add(unfiltered(command_topic), error)
                return
        self._heard_ns = self._loop_clock.now().nanoseconds
        verdict = self._verdict = self._filter.judge(wanted, self.now_ns())
        for channel in self._spec.action if verdict.scale < 1.0 else ():
            self._spec.path(channel.field).set(messages[channel.topic], verdict.command[channel.name])
        for command_topic, command in messages.items():
            self._commands[command_topic].publish(command)
        self._judged += 1
        self._publish_status(verdict)

    def _publish_status(self, verdict: Verdict) -> None:
        state = FilterStatus.STATE_PASSING
        if verdict.scale < 1.0:
            self._changed += 1
            state = FilterStatus.STATE_SCALING if verdict.scale > 0.0 else FilterStatus.STATE_STOPPING
            self.warn_now_and_then(verdict.reason)
        status = FilterStatus(
            state=state,
            scale=verdict.scale,
            constraint=verdict.constraint,
            time_to_violation=verdict.time_to_violation_s,
            reason=verdict.reason,
        )
        status.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(status)

    def _on_tick(self) -> None:
        timeout_ns = round(1e9 * self.parameter("command_timeout"))
        if not timeout_ns or self._heard_ns is None:
            return
        now_ns = self._loop_clock.now().nanoseconds
        self._heard_ns = min(self._heard_ns, now_ns)  # a simulation's clock may be set back
        if now_ns - self._heard_ns > timeout_ns:
            self._heard_ns = None
            self._pending.clear()
            self.get_logger().warning("the commands fell silent: the safe command is sent")
            self._send_safe()

    def _send_safe(self) -> None:
        stamp = self.get_clock().now().to_msg()
        for topic, message in fill_commands(self._spec, self._spec.safe_command(), make_message).items():
            if hasattr(message, "header"):
                message.header.stamp = stamp
            self._commands[topic].publish(message)

    def _on_second(self) -> None:
        judged, changed, self._judged, self._changed = self._judged, self._changed, 0, 0
        unusable, self._unusable_before = self._unusable.count - self._unusable_before, self._unusable.count
        if not self.working:
            level, text = Level.STALE, "inactive: no command passes"
        elif not judged:
            level, text = Level.STALE, "no command came since the last report"
            text = f"{text}; {self._unusable.newest}" if unusable else text
        elif changed:
            level, text = Level.WARN, f"{changed} of {judged} commands were held back"
            text = f"{text}; {self._unusable.newest}" if unusable else text
        elif unusable:
            level, text = Level.WARN, self._unusable.newest
        else:
            level, text = Level.OK, "commands pass"
        values: dict[str, object] = {"mode": self._mode.value, "commands": judged, "held back": changed}
        values["unusable messages"] = self._unusable.count
        if self._verdict is not None:
            values |= {"scale": self._verdict.scale, "reason": self._verdict.reason or "none"}
        self._diagnostics.publish(level, text, values)


def main(arguments: list[str] | None = None) -> None:
    """Run the node."""
    run(CommandFilterNode, "command_filter", arguments)


if __name__ == "__main__":
    main()
