"""flight_recorder: keeps what the robot sensed, was told and cost, as rosbag2 bags that unlearning can use.

    ros2 run saferule flight_recorder --ros-args -p spec:=robot.yaml -p out_dir:=logs -p max_bag_seconds:=600.0
    ros2 service call /flight_recorder/snapshot std_srvs/srv/Trigger

While it is active it records all topics of the description (sensors, commands, episode marker, logged reward and cost),
`policy_status`, `cost_status` and `safety_stop`, dated by ROS time, into logs/<UTC time>/bag_000, bag_001, ...
Messages are written as they come, without decoding them. A bag is closed at the end of an episode where possible.
With use_sim_time they are written in the order in which they were published, see `saferule_core.data.publication_order`
(where rclpy tells that: from Iron on; Humble dates them by when they are heard).

In `mode:=ring` nothing is written but the last `ring_seconds`, when `~/snapshot` is called: what led to it, and the
`snapshot_delay` after it. In `mode:=record` a snapshot completes the running bag, so that all up to then can be read.
Either way a bag's metadata.yaml says which policies drove in it and when they were swapped.

A recording ends by itself, completely written, when the disk has less room than `min_free_bytes`, and /diagnostics says
so. What was recorded survives a crash of this process but for its last second. Messages that never came here are
counted (`messages lost`), where the middleware tells.

It asks for reliable and latched delivery from topics that offer it when it is activated: activate it before what it
records, but after that is configured.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rclpy.time import Time
from rosgraph_msgs.msg import Clock as ClockMessage
from std_srvs.srv import Trigger

from saferule.msg import PolicyStatus
from saferule_core.data.publication_order import Dated, PublicationOrder
from saferule_core.data.recording import STORAGES, Recording
from saferule_core.data.ring_buffer import RingBuffer, RingRecording
from saferule_core.errors import DataError, SpecError
from saferule_ros.diagnostics import Diagnostics, Level
from saferule_ros.managed_node import SPEC_PARAMETER, ManagedNode, Parameter, run
from saferule_ros.messages import message_class
from saferule_ros.snapshots import Snapshots

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

OWN_TOPICS = {
    "policy_status": "saferule/msg/PolicyStatus",
    "cost_status": "saferule/msg/CostStatus",
    "safety_stop": "std_msgs/msg/Bool",
}
"""Recorded besides the topics of the description."""

QUEUE = 2000
"""Messages per topic that wait while the recorder is busy writing, for example a snapshot."""

BATCH = 100
"""Messages of a topic that are taken at once at most, so that other topics get their turn."""

MODES = ("record", "ring")

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
        Parameter("mode", "record", "record: write all; ring: keep the last seconds, write them at ~/snapshot"),
        Parameter("ring_seconds", 30.0, "what the ring keeps [s]", 0.1, 1e6),
        Parameter("ring_bytes", 2**26, "what the ring keeps at most [byte]", 1, 2**40),
        Parameter("snapshot_delay", 0.5, "time after a request that is in its snapshot, too [s wall]", 0.0, 60.0),
        Parameter("min_free_bytes", 10**8, "the recording ends when the disk has less room [byte]", 0, 2**53),
    )

    def configure(self) -> None:
        """Check parameters and message types; raises SpecError or DataError."""
        self._spec = spec = self.load_spec()
        self._out_dir = self.path_parameter("out_dir", "a folder for the recordings")
        if self.parameter("storage") not in STORAGES:
            storages = " or ".join(STORAGES)
            raise SpecError(f"parameter storage: expected {storages}, found {self.parameter('storage')!r}")
        if self.parameter("mode") not in MODES:
            raise SpecError(f"parameter mode: expected {' or '.join(MODES)}, found {self.parameter('mode')!r}")
        self._kinds = {**spec.sensor_topics, **spec.log_topics, **spec.command_topics, **OWN_TOPICS}
        for kind in self._kinds.values():
            message_class(kind)
        self._recording: Recording | RingRecording | None = None
        self._recorders = []
        self._messages_before = self._lost = 0
        self._broken = ""
        self._snapshots = Snapshots(self, self.parameter("snapshot_delay"), self._break_off)
        self._service = self.create_service(
            Trigger, "~/snapshot", self._snapshots.on_request, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self._diagnostics = Diagnostics(self, "recording", spec.name)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._slow_timer = self.create_timer(1.0, self._on_second, clock=steady)

    def activate(self) -> None:
        """Begin a recording in a folder of its own; raises DataError where it cannot be made."""
        names = {topic: self.resolve_topic_name(topic) for topic in self._kinds}
        profiles = {topic: self._profile_of(topic) for topic in self._kinds}
        marker = self._spec.episode.marker
        latched = {t for t, profile in profiles.items() if profile.durability is DurabilityPolicy.TRANSIENT_LOCAL}
        latched_names = frozenset(names[topic] for topic in latched | {"safety_stop"})
        recording = Recording(
            self._out_dir,
            {names[topic]: kind for topic, kind in self._kinds.items()},
            installed_definition,
            latched=latched_names,
            max_seconds=self.parameter("max_bag_seconds"),
            max_bytes=self.parameter("max_bag_bytes"),
            boundary_topic=names[marker.topic] if marker is not None else None,
            storage=self.parameter("storage"),
            min_free_bytes=self.parameter("min_free_bytes"),
        )
        if self.parameter("mode") == "ring":
            known = latched_names | ({names[marker.topic]} if marker is not None else set())
            recording = RingRecording(
                recording, RingBuffer(self.parameter("ring_seconds"), self.parameter("ring_bytes"), known)
            )
        self._recording, self._broken = recording, ""
        self._snapshots.begin(recording)
        self._policy_topic = names["policy_status"]
        self._messages_before = self._lost = 0
        self._order = PublicationOrder() if self.parameter("use_sim_time") and TELLS_PUBLICATION else None
        self._by_topic = {
            t: self.create_subscription(
                message_class(kind), t, self._writer_of(t, names[t]), profiles[t], raw=True,
                event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_lost),
            )
            for t, kind in self._kinds.items()
        }  # fmt: skip
        self._recorders = list(self._by_topic.values())
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
        self._snapshots.end()
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.close()
            self.get_logger().info(f"recorded {recording.messages} messages into {recording.folder}")

    def cleanup(self) -> None:
        """Forget the description."""
        if "_service" in self.__dict__:
            self.destroy_service(self.__dict__.pop("_service"))
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

    def _writer_of(self, topic: str, name: str) -> Callable[..., None]:
        def hold(data: bytes, info: Mapping[str, int]) -> None:
            self._order.add(info["source_timestamp"], name, data)
            for more, its_info in self._waiting(topic):
                self._order.add(its_info["source_timestamp"], name, more)

        def write(data: bytes) -> None:
            self._write([(self.now_ns(), name, data)])
            for more, _ in self._waiting(topic):
                self._write([(self.now_ns(), name, more)])

        return hold if self._order is not None else write

    def _waiting(self, topic: str) -> Iterator[tuple[bytes, Mapping[str, int]]]:
        """Yield messages that wait already: to ask the executor for each costs ten times as much."""
        subscription = self._by_topic[topic]
        for _ in range(BATCH):
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, True)
            if taken is None:
                return
            yield taken

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
                if name == self._policy_topic:
                    self._recording.policy(deserialize_message(data, PolicyStatus).policy_id, time_ns)
                self._recording.write(name, data, time_ns)
            except DataError as error:
                self._break_off(error)

    def _break_off(self, error: DataError) -> None:
        self._recording, self._broken = None, str(error)
        self._snapshots.end(self._broken)
        self.get_logger().error(f"nothing is recorded any more: {error}")

    def _on_lost(self, event: object) -> None:
        self._lost += event.total_count_change

    def _on_second(self) -> None:
        silent = [name for name in map(self.resolve_topic_name, self._kinds) if not self.count_publishers(name)]
        if self._recording is not None:
            try:
                self._recording.flush()
            except DataError as error:
                self._break_off(error)
        values: dict[str, object] = {"topics without a publisher": ", ".join(silent) or "none"}
        if self._recording is None:
            level, text = (Level.ERROR, self._broken) if self.working else (Level.STALE, "inactive")
        else:
            messages, before = self._recording.messages, self._messages_before
            self._messages_before = messages
            values.update({"messages": messages, "messages lost": self._lost, "folder": self._recording.folder})
            level, text = Level.OK, "recording" if messages > before else "no message came since the last report"
            if self._lost:
                level, text = Level.WARN, f"{self._lost} messages were lost before they came here"
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
