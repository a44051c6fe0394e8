"""flight_recorder: keeps what the robot sensed, was told and cost, as rosbag2 bags that unlearning can use.

    ros2 run saferule flight_recorder --ros-args -p spec:=robot.yaml -p out_dir:=logs -p max_bag_seconds:=600.0

While it is active it records all topics of the description (sensors, commands, episode marker, logged reward and cost),
`policy_status`, `cost_status` and `safety_stop`, dated by ROS time, into logs/<UTC time>/bag_000, bag_001, ...
Messages are written as they come, without decoding them. A bag is closed at the end of an episode where possible.
With use_sim_time they are written in the order in which they were published, see `saferule_core.data.publication_order`
(where rclpy tells that: from Iron on; Humble dates them by when they are heard).

It asks for reliable and latched delivery from topics that offer it when it is activated: activate it before what it
records, but after that is configured.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rclpy.clock import Clock, ClockType
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.time import Time
from rosgraph_msgs.msg import Clock as ClockMessage

from saferule_core.data.publication_order import Dated, PublicationOrder
from saferule_core.data.recording import STORAGES, Recording
from saferule_core.errors import DataError, SpecError
from saferule_ros.diagnostics import Diagnostics, Level
from saferule_ros.managed_node import SPEC_PARAMETER, ManagedNode, Parameter, run
from saferule_ros.messages import message_class

OWN_TOPICS = {
    "policy_status": "saferule/msg/PolicyStatus",
    "cost_status": "saferule/msg/CostStatus",
    "safety_stop": "std_msgs/msg/Bool",
}
"""Recorded besides the topics of the description."""

QUEUE = 200
"""Messages per topic that wait while the recorder is busy writing."""

TELLS_PUBLICATION = hasattr(Subscription, "CallbackType")
"""Whether this rclpy tells a callback when its message was published."""


class FlightRecorder(ManagedNode):
    """Everything in, bags out."""

    PARAMETERS = (
        SPEC_PARAMETER,
        Parameter("out_dir", "", "folder in which each recording makes one of its own"),
        Parameter("max_bag_seconds", 600.0, "a bag is closed when it is longer [s], 0: never", 0.0, 1e9),
        Parameter("max_bag_bytes", 0, "a bag is closed when its messages are larger [byte], 0: never", 0, 2**53),
        Parameter("storage", "mcap", f"format of the bags: {' or '.join(STORAGES)}"),
    )

    def configure(self) -> None:
        """Check parameters and message types; raises SpecError or DataError."""
        self._spec = spec = self.load_spec()
        self._out_dir = self.path_parameter("out_dir", "a folder for the recordings")
        if self.parameter("storage") not in STORAGES:
            storages = " or ".join(STORAGES)
            raise SpecError(f"parameter storage: expected {storages}, found {self.parameter('storage')!r}")
        self._kinds = {**spec.sensor_topics, **spec.log_topics, **spec.command_topics, **OWN_TOPICS}
        for kind in self._kinds.values():
            message_class(kind)
        self._recording: Recording | None = None
        self._recorders = []
        self._messages_before = 0
        self._diagnostics = Diagnostics(self, "recording", spec.name)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._slow_timer = self.create_timer(1.0, self._on_second, clock=steady)

    def activate(self) -> None:
        """Begin a recording in a folder of its own; raises DataError where it cannot be made."""
        names = {topic: self.resolve_topic_name(topic) for topic in self._kinds}
        profiles = {topic: self._profile_of(topic) for topic in self._kinds}
        marker = self._spec.episode.marker
        latched = {t for t, profile in profiles.items() if profile.durability is DurabilityPolicy.TRANSIENT_LOCAL}
        self._recording = Recording(
            self._out_dir,
            {names[topic]: kind for topic, kind in self._kinds.items()},
            installed_definition,
            latched=frozenset(names[topic] for topic in latched | {"safety_stop"}),
            max_seconds=self.parameter("max_bag_seconds"),
            max_bytes=self.parameter("max_bag_bytes"),
            boundary_topic=names[marker.topic] if marker is not None else None,
            storage=self.parameter("storage"),
        )
        self._messages_before = 0
        self._order = PublicationOrder() if self.parameter("use_sim_time") and TELLS_PUBLICATION else None
        self._recorders = [
            self.create_subscription(message_class(kind), t, self._writer_of(names[t]), profiles[t], raw=True)
            for t, kind in self._kinds.items()
        ]
        if self._order is not None:
            self._order.tick(0, self.now_ns())
            queue = QoSProfile(depth=QUEUE, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._recorders.insert(0, self.create_subscription(ClockMessage, "/clock", self._on_clock, queue))
        self.get_logger().info(f"recording {len(names)} topics into {self._recording.folder}")

    def deactivate(self) -> None:
        """Complete the recording; raises DataError where that fails."""
        for subscription in self._recorders:
            self.destroy_subscription(subscription)
        self._recorders = []
        if self._order is not None:
            self._write(self._order.rest())
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.close()
            self.get_logger().info(f"recorded {recording.messages} messages into {recording.folder}")

    def cleanup(self) -> None:
        """Forget the description."""
        if "_slow_timer" in self.__dict__:
            self.destroy_timer(self.__dict__.pop("_slow_timer"))
        if "_diagnostics" in self.__dict__:
            self.__dict__.pop("_diagnostics").close()

    def _profile_of(self, topic: str) -> QoSProfile:
        """Return the best quality of service that all present publishers offer; where there is none, what suits all."""
        offered = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
        reliable = offered and all(profile.reliability is ReliabilityPolicy.RELIABLE for profile in offered)
        latched = offered and all(profile.durability is DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
        return QoSProfile(
            depth=QUEUE,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

    def _writer_of(self, name: str) -> Callable[..., None]:
        if self._order is not None:
            return lambda data, info: self._order.add(info["source_timestamp"], name, data)
        return lambda data: self._write([(self.now_ns(), name, data)])

    def _on_clock(self, clock: ClockMessage, info: Mapping[str, int]) -> None:
        self._write(self._order.tick(info["source_timestamp"], Time.from_msg(clock.clock).nanoseconds))

    def _write(self, messages: Sequence[Dated]) -> None:
        for time_ns, name, data in messages:
            if self._recording is None:
                return
            if time_ns == 0:
                self.get_logger().warning("no /clock yet: messages cannot be dated, and are dropped", once=True)
                continue
            try:
                self._recording.write(name, data, time_ns)
            except DataError as error:
                self._recording = None
                self.get_logger().error(f"nothing is recorded any more: {error}")

    def _on_second(self) -> None:
        silent = [name for name in map(self.resolve_topic_name, self._kinds) if not self.count_publishers(name)]
        values: dict[str, object] = {"topics without a publisher": ", ".join(silent) or "none"}
        if self._recording is None:
            level, text = (Level.ERROR, "recording broke off") if self.working else (Level.STALE, "inactive")
        else:
            messages, before = self._recording.messages, self._messages_before
            self._messages_before = messages
            values.update({"messages": messages, "folder": self._recording.folder})
            level, text = Level.OK, "recording" if messages > before else "no message came since the last report"
        self._diagnostics.publish(level, text, values)


def installed_definition(kind: str) -> str:
    """Return the .msg text of an installed message type such as `nav_msgs/msg/Odometry`.

    ROS installs it into share/ of the prefix that the Python module is in; this needs no sourced environment.

    Raises:
        SpecError: it is not installed.
    """
    package, _, name = kind.partition("/msg/")
    module = Path(inspect.getfile(message_class(kind)))
    for prefix in module.parents:
        text = prefix / "share" / package / "msg" / f"{name}.msg"
        if text.is_file():
            return text.read_text(encoding="utf-8")
    raise SpecError(f"message type {kind}: expected share/{package}/msg/{name}.msg above {module}, found none")


def main(arguments: list[str] | None = None) -> None:
    """Run the node."""
    run(FlightRecorder, "flight_recorder", arguments)


if __name__ == "__main__":
    main()
