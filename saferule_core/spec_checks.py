"""What can be wrong with a robot description beyond the types of its keys; each error names file, key, expected, found.

    checked = check(msgspec.convert(content, SpecFile), "robot.yaml")     # raises SpecError
    checked.constraints["outside_bounds"](signals)
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from saferule_core.errors import SpecError
from saferule_core.expressions import Expression
from saferule_core.fields import TRANSFORMS, FieldPath
from saferule_core.spec_schema import Constraint, Feature, RewardSection, Signal, SpecFile

Rule = Callable[[Mapping[str, object]], np.ndarray]
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
_MESSAGE_TYPE = re.compile(r"[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*")


@dataclass(frozen=True)
class CheckedSpec:
    """What a description's texts mean.

    outputs: signal name -> names of the quantities that it gives. paths: field text -> parsed path.
    derived: signals that are expressions. constraints, reward, end_when: rules over names such as x, previous.x and
    action.force; reward is None where only a topic carries it.
    """

    outputs: dict[str, tuple[str, ...]]
    paths: dict[str, FieldPath]
    derived: dict[str, Expression]
    constraints: dict[str, Rule]
    reward: Rule | None
    end_when: Expression | None


def check(file: SpecFile, source: str) -> CheckedSpec:
    """Check a description; `source` names it in errors.

    Raises:
        SpecError: the first thing that is wrong.
    """
    return _Checker(file, source).run()


class _Checker:
    def __init__(self, file: SpecFile, source: str) -> None:
        self._file, self._source = file, source
        self._types: dict[str, str] = {}
        self._paths: dict[str, FieldPath] = {}
        self._derived: dict[str, Expression] = {}
        self._allowed: set[str] = set()

    def run(self) -> CheckedSpec:
        file = self._file
        self._check_scalars()
        outputs = {signal.name: self._check_signal(signal) for signal in self._all_signals()}
        self._check_action()
        known = {name for names in outputs.values() for name in names}
        channels = {f"action.{channel.name}" for channel in file.action}
        self._allowed = known | {f"previous.{name}" for name in known} | channels
        constraints = {
            item.name: self._rule(item, f"cost.constraints[{index}]")
            for index, item in enumerate(file.cost.constraints)
        }
        end_when = file.episode.end_when
        ends = self._expression(end_when, "episode.end_when") if end_when else None
        return CheckedSpec(outputs, self._paths, self._derived, constraints, self._check_reward(), ends)

    def _error(self, key: str, expected: str, found: object) -> SpecError:
        return SpecError(f"{self._source}: {key}: expected {expected}, found {found!r}")

    def _all_signals(self) -> tuple[Signal, ...]:
        return (*self._file.observation, *self._file.signals)

    def _check_scalars(self) -> None:
        if not _IDENTIFIER.fullmatch(self._file.name):
            raise self._error("name", "lower-case letters, digits and underscores", self._file.name)
        if not 0.0 < self._file.rate_hz <= 10_000.0:
            raise self._error("rate_hz", "a rate in (0, 10000] Hz", self._file.rate_hz)
        if self._file.episode.max_steps < 1:
            raise self._error("episode.max_steps", "at least 1", self._file.episode.max_steps)
        if not (self._file.cost.limit >= 0.0 and np.isfinite(self._file.cost.limit)):
            raise self._error("cost.limit", "a finite number >= 0", self._file.cost.limit)
        for key, items in (("observation", self._file.observation), ("action", self._file.action)):
            if not items:
                raise self._error(key, "at least one entry", [])
        for key, names in (
            ("observation and signals", [signal.name for signal in self._all_signals()]),
            ("action", [channel.name for channel in self._file.action]),
            ("cost.constraints", [item.name for item in self._file.cost.constraints]),
        ):
            for name in names:
                if not _IDENTIFIER.fullmatch(name):
                    raise self._error(f"{key}: name", "lower-case letters, digits and underscores", name)
                if names.count(name) > 1:
                    raise self._error(f"{key}: name", "names that differ", name)
        if not self._file.cost.constraints:
            raise self._error("cost.constraints", "at least one constraint", [])
        for key, where in (("episode.marker", self._file.episode.marker), ("cost.logged", self._file.cost.logged),
                           ("reward.topic", self._file.reward.topic)):  # fmt: skip
            if where is not None:
                self._check_topic(key, where.topic, where.type, where.field)

    def _check_topic(self, key: str, topic: str, kind: str, field: str) -> None:
        if not re.fullmatch(r"[A-Za-z~/][\w/]*", topic):
            raise self._error(f"{key}.topic", "a topic name", topic)
        if not _MESSAGE_TYPE.fullmatch(kind):
            raise self._error(f"{key}.type", "a message type such as nav_msgs/msg/Odometry", kind)
        if self._types.setdefault(topic, kind) != kind:
            raise self._error(f"{key}.type", f"{self._types[topic]} as elsewhere for topic {topic}", kind)
        self._paths[field] = FieldPath.parse(field, f"{self._source}: {key}.field")

    def _check_signal(self, signal: Signal) -> tuple[str, ...]:
        """Check one signal and return the names of the quantities that it gives."""
        key = f"{'observation' if isinstance(signal, Feature) else 'signals'}: {signal.name}"
        if isinstance(signal, Feature):
            if signal.scale == 0.0:
                raise self._error(f"{key}.scale", "a number other than 0", signal.scale)
            if signal.clip is not None and not signal.clip[0] < signal.clip[1]:
                raise self._error(f"{key}.clip", "[low, high] with low < high", list(signal.clip))
        from_topic = (signal.topic, signal.type, signal.field)
        if signal.expression is not None:
            if any(part is not None for part in (*from_topic, signal.transform, signal.max_age)):
                raise self._error(key, "either an expression, or topic, type and field", "both")
            earlier = set()
            for other in self._all_signals():
                if other.name == signal.name:
                    break
                earlier.update(self._outputs_of(other))
            expression = Expression(signal.expression, f"{self._source}: {key}.expression")
            if not expression.names <= earlier:
                unknown = ", ".join(sorted(expression.names - earlier))
                expected = f"names of earlier signals ({', '.join(sorted(earlier))})"
                raise self._error(f"{key}.expression", expected, unknown)
            self._derived[signal.name] = expression
            return (signal.name,)
        if any(part is None for part in from_topic):
            raise self._error(key, "an expression, or all of topic, type and field", dict(zip(
                ("topic", "type", "field"), from_topic, strict=True)))  # fmt: skip
        self._check_topic(key, signal.topic, signal.type, signal.field)
        if signal.max_age is None or not signal.max_age > 0.0:
            raise self._error(f"{key}.max_age", "a maximum age > 0 s", signal.max_age)
        if signal.transform is not None and signal.transform not in TRANSFORMS:
            raise self._error(f"{key}.transform", f"one of {', '.join(sorted(TRANSFORMS))}", signal.transform)
        return self._outputs_of(signal)

    @staticmethod
    def _outputs_of(signal: Signal) -> tuple[str, ...]:
        if signal.transform in TRANSFORMS:
            return tuple(signal.name + suffix for suffix in TRANSFORMS[signal.transform].suffixes)
        size = 1 if signal.field is None else FieldPath.parse(signal.field, signal.name).size
        return (signal.name,) if size == 1 else tuple(f"{signal.name}_{index}" for index in range(size))

    def _check_action(self) -> None:
        sensor_topics = {signal.topic for signal in self._all_signals()}
        for index, channel in enumerate(self._file.action):
            key = f"action[{index}]"
            self._check_topic(key, channel.topic, channel.type, channel.field)
            if not channel.low < channel.high:
                raise self._error(f"{key}.low, high", "low < high", [channel.low, channel.high])
            if not channel.low <= channel.safe <= channel.high:
                raise self._error(f"{key}.safe", f"a value in [{channel.low}, {channel.high}]", channel.safe)
            if channel.max_rate is not None and not channel.max_rate > 0.0:
                raise self._error(f"{key}.max_rate", f"a rate > 0 {channel.unit}/s", channel.max_rate)
            if channel.topic in sensor_topics:
                raise self._error(f"{key}.topic", "a topic that is no sensor topic", channel.topic)

    def _expression(self, text: str, key: str) -> Expression:
        expression = Expression(text, f"{self._source}: {key}")
        if not expression.names <= self._allowed:
            unknown = ", ".join(sorted(expression.names - self._allowed))
            raise self._error(key, f"signal names ({', '.join(sorted(self._allowed))})", unknown)
        return expression

    def _rule(self, item: Constraint | RewardSection, key: str) -> Rule:
        """Return the rule of a section with `expression` or `function`."""
        if (item.expression is None) == (item.function is None):
            raise self._error(key, "either expression or function", "both" if item.expression else "neither")
        if item.expression is not None:
            return self._expression(item.expression, f"{key}.expression")
        module, _, name = item.function.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise self._error(f"{key}.function", "an importable module:function", item.function) from error
        return function

    def _check_reward(self) -> Rule | None:
        if self._file.reward.expression is None and self._file.reward.function is None:
            if self._file.reward.topic is None:
                raise self._error("reward", "an expression, a function or a topic", "none of them")
            return None
        return self._rule(self._file.reward, "reward")
