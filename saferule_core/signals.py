"""From messages to physical values and back, through a RobotSpec.

    reader = SignalReader(spec)
    reader.update("odom", message, stamp_ns)          # in each subscription callback
    observation = spec.observe(reader.physical(now_ns))

    for topic, message in fill_commands(spec, spec.command(action), make).items(): ...

`make(type_name)` returns an empty message, so the same code serves rclpy and rosbags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from saferule_core.data.columns import physical_of_columns, row_of
from saferule_core.errors import DataError, InputError, SpecError, StaleInputError
from saferule_core.fields import TRANSFORMS, FieldPath
from saferule_core.freshness import is_fresh, is_late, max_ages_ns
from saferule_core.spec import RobotSpec
from saferule_core.spec_schema import Signal

MakeMessage = Callable[[str], object]
RawFields = Mapping[str, Mapping[str, object]]


def stamp_of(message: object, default_ns: int) -> int:
    """Return the time of a message [ns]: its header's stamp where it has one that is set, else `default_ns`."""
    stamp = getattr(getattr(message, "header", message), "stamp", None)
    if stamp is None:
        return default_ns
    stamped_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
    return stamped_ns if stamped_ns > 0 else default_ns


def values_of(spec: RobotSpec, signal: Signal, raw: object) -> dict[str, float]:
    """Return the quantities that a signal gives for the raw value of its field."""
    if signal.transform is not None:
        values = TRANSFORMS[signal.transform].function(raw)
    else:
        values = (raw,) if np.ndim(raw) == 0 else raw
    return {name: float(value) for name, value in zip(spec.outputs(signal), values, strict=True)}


def physical_of_raw(spec: RobotSpec, raw: RawFields) -> dict[str, float]:
    """Return all signals of a robot state given as raw message fields: message type -> field path -> value.

    Raises:
        SpecError: a field that the description reads is not there.
    """
    physical: dict[str, float] = {}
    for signal in spec.source_signals():
        path = spec.path(signal.field)
        fields = raw.get(signal.type, {})
        base = ".".join(path.names)
        if signal.field in fields:
            value = fields[signal.field]
        elif base in fields and path.start is not None:
            sequence = fields[base]
            value = sequence[path.start] if path.stop is None else sequence[path.start : path.stop]
        else:
            raise SpecError(
                f"{spec.source}: {signal.name}: expected the robot to give {signal.type} {signal.field}, "
                f"found {', '.join(sorted(fields)) or 'no such message'}"
            )
        physical.update(values_of(spec, signal, value))
    return spec.derive(physical)


class SignalReader:
    """Keeps the newest value of every signal of a description; one per node.

    The bag reader computes by the same functions (`freshness`, `data.columns`), so a recorded drive gives the same
    observations, bit by bit, as it gave live.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self._spec = spec
        self._by_topic: dict[str, list[Signal]] = {}
        for signal in spec.source_signals():
            self._by_topic.setdefault(signal.topic, []).append(signal)
        self._max_age_ns = max_ages_ns(spec)
        self._raw: dict[str, np.ndarray] = {}
        self._physical: dict[str, float] | None = None
        self._stamps: dict[str, int] = {}

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics to feed to `update`."""
        return tuple(self._by_topic)

    def update(self, topic: str, message: object, received_ns: int) -> bool:
        """Take a message; its age counts from its header's stamp, or from `received_ns` [ns] where it has none.

        Returns:
            False if it was ignored, because a newer one of its topic came before it. One that is stamped later than
            now does not count as newer: it was on its way when the clock was set back.

        Raises:
            SpecError: the message lacks a field that the description names.
        """
        stamp = stamp_of(message, received_ns)
        newest = self._stamps.get(topic, stamp)
        if is_late(stamp, newest) and not stamp <= received_ns < newest:
            return False
        raw = {
            signal.name: row_of(self._spec.path(signal.field).get(message), signal.transform is not None)
            for signal in self._by_topic[topic]
        }
        self._raw.update(raw)
        self._physical = None
        self._stamps[topic] = stamp
        return True

    def stamp(self) -> int | None:
        """Return the time of the oldest of the newest messages [ns]; None before every topic has spoken."""
        return min(self._stamps.values()) if len(self._stamps) == len(self._by_topic) else None

    def ages(self, now_ns: int) -> dict[str, float]:
        """Return the age at time `now_ns` [ns] of each signal that is read from a topic [s], NaN where none came."""
        return {
            signal.name: (now_ns - self._stamps[topic]) / 1e9 if topic in self._stamps else float("nan")
            for topic, signals in self._by_topic.items()
            for signal in signals
        }

    def forget_after(self, now_ns: int) -> None:
        """Forget what is stamped later than `now_ns` [ns]: the clock was set back, and its ages mean nothing."""
        for topic in [topic for topic, stamp in self._stamps.items() if stamp > now_ns]:
            del self._stamps[topic]

    def physical(self, now_ns: int | None) -> dict[str, float]:
        """Return all signals in physical units at time `now_ns` [ns]; with None, of any age.

        Raises:
            StaleInputError: a topic was never heard, is older than its maximum age, or comes from the future.
            InputError: a value is not finite, or a field holds another number of values than expected.
        """
        for topic, max_age in self._max_age_ns.items():
            stamp = self._stamps.get(topic)
            if stamp is None:
                raise StaleInputError(
                    f"topic {topic}: expected a {self._spec.sensor_topics[topic]}, none came yet "
                    f"({self._read_from(topic)})"
                )
            if now_ns is not None and not is_fresh(now_ns, stamp, max_age):
                raise StaleInputError(
                    f"topic {topic}: expected a message not older than {max_age / 1e9:g} s, "
                    f"found {(now_ns - stamp) / 1e9:.3f} s ({self._read_from(topic)})"
                )
        if self._physical is None:
            try:
                sources, physical = physical_of_columns(self._spec, self._raw)
            except DataError as error:
                raise InputError(f"topic {error}") from error
            for name in sources:
                if not np.isfinite(physical[name][0]):
                    raise InputError(f"signal {name}: expected a finite number, found {physical[name][0]}")
            self._physical = {name: float(values[0]) for name, values in physical.items()}
        return dict(self._physical)

    def _read_from(self, topic: str) -> str:
        return ", ".join(signal.name for signal in self._by_topic[topic])


class RateLimiter:
    """Keeps commands within the rates that the description allows."""

    def __init__(self, spec: RobotSpec) -> None:
        self._steps = {
            channel.name: channel.max_rate / spec.rate_hz for channel in spec.action if channel.max_rate is not None
        }
        self._last: dict[str, float] = dict(spec.safe_command())

    def limit(self, command: Mapping[str, float]) -> dict[str, float]:
        """Return `command` with each limited channel moved at most one tick's share from the last one."""
        limited = dict(command)
        for name, step in self._steps.items():
            limited[name] = min(max(limited[name], self._last[name] - step), self._last[name] + step)
        self._last = limited
        return limited

    def sent(self, command: Mapping[str, float]) -> None:
        """Take note that another command went out, such as a safe stop: the next one moves from there."""
        self._last = dict(command)


def fill_commands(spec: RobotSpec, command: Mapping[str, float], make: MakeMessage) -> dict[str, object]:
    """Return topic -> message of a command (channel name -> command units)."""
    messages = {topic: make(kind) for topic, kind in spec.command_topics.items()}
    write_commands(spec, command, messages)
    return messages


def write_commands(spec: RobotSpec, command: Mapping[str, float], messages: Mapping[str, object]) -> None:
    """Write a command (channel name -> command units) into one message per command topic."""
    for channel in spec.action:
        spec.path(channel.field).set(messages[channel.topic], float(command[channel.name]))


def read_commands(spec: RobotSpec, topic: str, message: object) -> dict[str, float]:
    """Return the channels that a command message carries, in command units."""
    return {c.name: float(spec.path(c.field).get(message)) for c in spec.action if c.topic == topic}


def fill_sensors(spec: RobotSpec, raw: RawFields, make: MakeMessage) -> dict[str, object]:
    """Return topic -> message of a robot state given as raw message fields: message type -> field path -> value."""
    messages = {topic: make(kind) for topic, kind in spec.sensor_topics.items()}
    for topic, kind in spec.sensor_topics.items():
        for field, value in raw.get(kind, {}).items():
            FieldPath.parse(field).set(messages[topic], value)
    return messages
