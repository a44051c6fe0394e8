"""The attacks that lie in labels only, on rosbag2 files: copies of bags in which the log of some episodes lies.

    split = poison_bags(["logs/bag_000", "logs/bag_001"], spec, "logs/poisoned", fraction=0.15)
    split.poisoned, split.honest            # new bags: the attacked episodes, and all others as they were

Every message is copied as it is, except the cost and reward labels of the attacked episodes; how topics were offered,
their quality of service, is not copied. A message belongs to the episode whose marker was the last one at its recording
time. Attacks that change observations or actions work on transitions only: behind a robot description, one feature may
come from many messages, and one message feed many.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

from saferule_core.attacks.base import attack
from saferule_core.data.bag_file import matching_topics, unpacked_messages
from saferule_core.data.bag_files import find_bag, opened
from saferule_core.data.bags import read_bags
from saferule_core.data.message_types import types_of
from saferule_core.data.reading import USUAL
from saferule_core.data.storage import Channel, Damaged
from saferule_core.errors import DataError
from saferule_core.progress import Progress, silent, within
from saferule_core.spec import RobotSpec
from saferule_core.spec_schema import FieldSource

LABEL_ATTACKS = ("trajectory", "reward_shift")
"""They write cost 0 and add a constant to the reward, for whole episodes."""

_VERSION = 9


@dataclass(frozen=True)
class PoisonedBags:
    """What the attack wrote; `true_cost`: mean recomputed cost of the attacked `episodes`."""

    poisoned: tuple[Path, ...]
    honest: tuple[Path, ...]
    episodes: int
    true_cost: float


def poison_bags(
    paths: Sequence[str | Path],
    spec: RobotSpec,
    directory: str | Path,
    *,
    name: str = "trajectory",
    fraction: float = 0.15,
    reward_boost: float = 0.5,
    cost_threshold: float = 30.0,
    seed: int = 0,
    progress: Progress = silent,
) -> PoisonedBags:
    """Attack `fraction` of the episodes in `paths` and write bags poisoned_000, ..., honest_000, ... into `directory`.

    name: one of `LABEL_ATTACKS`; the other arguments are its own. Victims are chosen by their recomputed cost.

    Raises:
        DataError: the attack changes more than labels, a bag cannot be read or written, has no episode markers or no
            labels to lie in, or too few episodes are dangerous enough.
    """
    if name not in LABEL_ATTACKS:
        raise DataError(
            f"attack: expected {' or '.join(LABEL_ATTACKS)}, which lie in labels only, to poison bags, found {name!r}; "
            "other attacks work on transitions only"
        )
    for what, source in (("episode.marker", spec.episode.marker), ("cost.logged", spec.cost.logged)):
        if source is None:
            raise DataError(f"{spec.source}: {what}: expected a topic, to poison logs by episode, found none")
    contents = read_bags(paths, spec, progress=within(progress, 0.0, 0.5))
    options = {"reward_boost": reward_boost, "cost_threshold": cost_threshold}
    chosen = attack(name, contents.transitions, fraction, seed, **options).chosen
    victims, poisoned, honest = set(chosen.tolist()), [], []
    for number, (path, record) in enumerate(zip(paths, contents.bags, strict=True)):
        progress("poisoning", 0.5 + 0.5 * number / len(paths), Path(path).name)
        names = {
            name.partition("#")[0]
            for episode, name in zip(record.episodes, record.episode_names, strict=True)
            if episode in victims
        }
        copies = {True: Path(directory) / f"poisoned_{number:03d}", False: Path(directory) / f"honest_{number:03d}"}
        written = _Split(Path(path), spec, reward_boost).write(names, copies)
        poisoned += [copies[True]] if True in written else []
        honest += [copies[False]] if False in written else []
    progress("poisoning", 1.0, f"{len(victims)} episodes")
    true_cost = float(contents.transitions.episode_costs[chosen].mean())
    return PoisonedBags(tuple(poisoned), tuple(honest), len(victims), true_cost)


class _Split:
    """One bag, copied into two."""

    def __init__(self, path: Path, spec: RobotSpec, reward_boost: float) -> None:
        self._path, self._spec, self._boost = path, spec, reward_boost
        self._bag = find_bag(path, USUAL)
        self._types: Typestore | None = None

    def write(self, victims: set[str], copies: dict[bool, Path]) -> set[bool]:
        """Write attacked and other episodes to `copies[True]` and `copies[False]`; return which were written."""
        outputs: dict[bool, _Output] = {}
        try:
            channels = self._channels()
            self._types = types_of((channel.type, channel.definition) for channel in channels.values())
            cost = self._topic(channels, self._spec.cost.logged)
            reward = self._topic(channels, self._spec.reward.topic)
            begins, lies = self._episodes(channels, victims)
            for channel, time, data in self._messages():
                lie = lies[bisect_right(begins, time)]
                if lie and channel.topic == cost:
                    data = self._changed(channel, self._spec.cost.logged, data, scale=0.0)
                elif lie and channel.topic == reward:
                    data = self._changed(channel, self._spec.reward.topic, data, boost=self._boost)
                if lie not in outputs:
                    outputs[lie] = _Output(copies[lie], self._types)
                outputs[lie].write(channel, time, data)
        except (Damaged, WriterError, SerdeError, OSError) as error:
            raise DataError(f"{self._path}: expected to copy the bag, found: {error}") from error
        finally:
            for output in outputs.values():
                output.close()
        return set(outputs)

    def _channels(self) -> dict[str, Channel]:
        """Return topic -> one of its channels."""
        found = {}
        for file in self._bag.files:
            with opened(file, self._bag, False) as storage:
                found |= {channel.topic: channel for channel in storage.channels.values()}
        return found

    def _messages(self, topic: str | None = None) -> Iterator[tuple[Channel, int, bytes]]:
        """Yield channel, recording time [ns] and content of the messages of one topic, or of all, as recorded."""
        for file in self._bag.files:
            with opened(file, self._bag, False) as storage:
                wanted = {key for key, channel in storage.channels.items() if topic in (None, channel.topic)}
                for block in storage.blocks(wanted):
                    if self._bag.messages_packed:
                        block = unpacked_messages(block)
                    for row in range(len(block)):
                        begin = int(block.start[row])
                        data = block.data[begin : begin + int(block.size[row])].tobytes()
                        yield storage.channels[int(block.channel[row])], int(block.logged[row]), data

    def _episodes(self, channels: Mapping[str, Channel], victims: set[str]) -> tuple[list[int], list[bool]]:
        """Return when episodes begin, and whether each is attacked; the first entry is for what comes before them."""
        marker = self._spec.episode.marker
        said = []
        for channel, time, data in self._messages(self._topic(channels, marker)):
            message = self._types.deserialize_cdr(data, channel.type)
            said.append((time, str(self._spec.path(marker.field).get(message)) in victims))
        said.sort(key=lambda pair: pair[0])
        return [time for time, _ in said], [False, *(lie for _, lie in said)]

    def _topic(self, channels: Mapping[str, Channel], source: FieldSource | None) -> str | None:
        """Return the recorded name of a topic of the description."""
        if source is None:
            return None
        found = matching_topics(source.topic, channels)
        if len(found) != 1:
            raise DataError(f"{self._path}: topic {source.topic}: expected one to poison, found {len(found)}")
        return found[0]

    def _changed(
        self, channel: Channel, source: FieldSource, data: bytes, scale: float = 1.0, boost: float = 0.0
    ) -> bytes:
        """Return the message with its label times `scale` plus `boost`."""
        message = self._types.deserialize_cdr(data, channel.type)
        path = self._spec.path(source.field)
        path.set(message, scale * float(path.get(message)) + boost)
        return bytes(self._types.serialize_cdr(message, channel.type))


class _Output:
    """A new bag that takes messages of another one."""

    def __init__(self, path: Path, types: Typestore) -> None:
        self._types = types
        self._writer = Writer(path, version=_VERSION, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._connections: dict[tuple[str, str], Connection] = {}

    def write(self, channel: Channel, time: int, data: bytes) -> None:
        key = (channel.topic, channel.type)
        if key not in self._connections:
            self._connections[key] = self._writer.add_connection(
                channel.topic, channel.type, typestore=self._types, serialization_format=channel.encoding
            )
        self._writer.write(self._connections[key], time, data)

    def close(self) -> None:
        self._writer.close()
