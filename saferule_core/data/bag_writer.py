"""Episode logs as rosbag2 bags (MCAP), as a recorder in simulation time would have written them.

    paths = write_bags(logs, spec, "logs/seed_0", episodes_per_bag=20)      # logs/seed_0/bag_000, bag_001, ...

State k of an episode is at k control periods after its beginning; everything that is published in a tick has that
tick's time, in the header's stamp and in the recording: first the sensors, then reward and cost of the step that led
here, then the command. The first tick also has the episode marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError

from saferule_core.data.episode_log import EpisodeLog
from saferule_core.data.message_types import empty_message, standard_types
from saferule_core.errors import DataError
from saferule_core.fields import FieldPath
from saferule_core.progress import Progress, silent
from saferule_core.spec import RobotSpec
from saferule_core.spec_schema import FieldSource

FORMAT_VERSION = 8
"""Version of metadata.yaml that every ROS 2 distribution from Humble on reads."""

START_NS = 1_000_000_000
"""Time of the first tick of a bag; a stamp of 0 would mean "no stamp"."""


def write_bags(
    logs: Sequence[EpisodeLog],
    spec: RobotSpec,
    directory: str | Path,
    *,
    episodes_per_bag: int = 20,
    prefix: str = "bag",
    storage: str = "mcap",
    progress: Progress = silent,
) -> list[Path]:
    """Write `logs` in order into bags of `episodes_per_bag` episodes under `directory`; return the bags' paths.

    Args:
        prefix: bags are named `<prefix>_000`, `<prefix>_001`, ...
        storage: "mcap" or "sqlite3".
        progress: called as phase "writing"; may raise `Cancelled`.

    Raises:
        DataError: there is nothing to write, a bag exists already or cannot be written, a log does not fit the
            description, or a message type is not known to this program.
    """
    if not logs or episodes_per_bag < 1:
        raise DataError(f"{directory}: expected episodes to write, found {len(logs)}, {episodes_per_bag} per bag")
    paths = []
    for first in range(0, len(logs), episodes_per_bag):
        path = Path(directory) / f"{prefix}_{len(paths):03d}"
        progress("writing", first / len(logs), path.name)
        _write_bag(path, logs[first : first + episodes_per_bag], spec, storage)
        paths.append(path)
    progress("writing", 1.0, f"{len(paths)} bags")
    return paths


def _write_bag(path: Path, logs: Sequence[EpisodeLog], spec: RobotSpec, storage: str) -> None:
    plugins = {plugin.name.lower(): plugin for plugin in StoragePlugin}
    if storage not in plugins:
        raise DataError(f"{path}: storage: expected one of {', '.join(sorted(plugins))}, found {storage!r}")
    try:
        writer = Writer(path, version=FORMAT_VERSION, storage_plugin=plugins[storage])
        if plugins[storage] == StoragePlugin.MCAP:
            writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            bag = _Bag(writer, spec)
            time_ns = START_NS
            for log in logs:
                time_ns = bag.write(log, time_ns)
    except (WriterError, OSError) as error:
        raise DataError(f"{path}: expected to write a new bag, found: {error}") from error


class _Bag:
    """An open bag, with a connection and one message, used again and again, per topic of the description."""

    def __init__(self, writer: Writer, spec: RobotSpec) -> None:
        self._writer, self._spec = writer, spec
        self._types = standard_types()
        self._connections: dict[str, Connection] = {}
        self._messages: dict[str, Any] = {}
        for topic, kind in {**spec.sensor_topics, **spec.log_topics, **spec.command_topics}.items():
            if kind not in self._types.fielddefs:
                raise DataError(f"{spec.source}: topic {topic}: expected a standard message type, found {kind}")
            name = f"/{topic.lstrip('/')}"
            self._connections[topic] = writer.add_connection(name, kind, typestore=self._types)
            self._messages[topic] = empty_message(self._types, kind)

    def write(self, log: EpisodeLog, begin_ns: int) -> int:
        """Write one episode that begins at `begin_ns`; return when the next one may begin."""
        spec = self._spec
        _check_fits(log, spec)
        fields = {
            topic: [(FieldPath.parse(path), values) for path, values in log.sensors[kind].items()]
            for topic, kind in spec.sensor_topics.items()
        }
        paths = {channel.name: spec.path(channel.field) for channel in spec.action}
        self._label(spec.episode.marker, log.name, begin_ns)
        for tick in range(log.steps + 1):
            now = begin_ns + tick * spec.period_ns
            for topic, columns in fields.items():
                for path, values in columns:
                    path.set(self._messages[topic], values[tick] if isinstance(values, np.ndarray) else values)
                self._publish(topic, now)
            if tick > 0:
                self._label(spec.reward.topic, log.rewards[tick - 1], now)
                self._label(spec.cost.logged, log.costs[tick - 1], now)
            if tick < log.steps:
                for channel in spec.action:
                    paths[channel.name].set(self._messages[channel.topic], float(log.commands[channel.name][tick]))
                for topic in spec.command_topics:
                    self._publish(topic, now)
        return begin_ns + (log.steps + 1) * spec.period_ns

    def _label(self, source: FieldSource | None, value: Any, now: int) -> None:
        if source is not None:
            self._spec.path(source.field).set(self._messages[source.topic], value)
            self._publish(source.topic, now)

    def _publish(self, topic: str, now: int) -> None:
        """Write the topic's message, stamped with `now` [ns]."""
        message, connection = self._messages[topic], self._connections[topic]
        stamp = getattr(getattr(message, "header", message), "stamp", None)
        if stamp is not None:
            stamp.sec, stamp.nanosec = divmod(now, 1_000_000_000)
        self._writer.write(connection, now, self._types.serialize_cdr(message, connection.msgtype))


def _check_fits(log: EpisodeLog, spec: RobotSpec) -> None:
    channels = {channel.name for channel in spec.action}
    if set(log.commands) != channels:
        found = ", ".join(sorted(log.commands))
        raise DataError(f"{log.name}: expected commands {', '.join(sorted(channels))}, found {found}")
    lacking = sorted(set(spec.sensor_topics.values()) - set(log.sensors))
    if lacking:
        raise DataError(f"{log.name}: expected messages {', '.join(lacking)}, found {', '.join(sorted(log.sensors))}")
