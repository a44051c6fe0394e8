"""Fields of messages: paths such as `pose.pose.position.x` or `ranges[0:36]`, and named transforms of their values.

    path = FieldPath.parse("twist.twist.linear.x")
    path.get(message)          # 0.4
    path.set(message, 0.5)

Works on any object with attributes, so messages of rclpy and of rosbags are read and written alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from saferule_core.errors import SpecError

_PATH = re.compile(r"(?P<names>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\[(?P<start>\d+)(?::(?P<stop>\d+))?\])?")


@dataclass(frozen=True)
class FieldPath:
    """A path to a field, an element of a sequence (`data[3]`) or a slice of it (`data[0:3]`)."""

    text: str
    names: tuple[str, ...]
    start: int | None = None
    stop: int | None = None

    @staticmethod
    def parse(text: str, source: str = "field") -> FieldPath:
        """Parse `text`.

        Raises:
            SpecError: it is no path.
        """
        match = _PATH.fullmatch(text.strip())
        if match is None:
            raise SpecError(f"{source}: expected a path such as pose.pose.position.x or data[0:3], found {text!r}")
        start = int(match["start"]) if match["start"] is not None else None
        stop = int(match["stop"]) if match["stop"] is not None else None
        if stop is not None and stop <= start:
            raise SpecError(f"{source}: expected a slice of at least one element, found {text!r}")
        return FieldPath(text.strip(), tuple(match["names"].split(".")), start, stop)

    @property
    def size(self) -> int:
        """Number of values: 1, or the length of the slice."""
        return 1 if self.stop is None else self.stop - self.start

    def get(self, message: object) -> object:
        """Return the field's value.

        Raises:
            SpecError: the message has no such field, or the sequence is too short.
        """
        value = message
        for name in self.names:
            try:
                value = getattr(value, name)
            except AttributeError as error:
                raise SpecError(f"{type(message).__name__}: expected a field {self.text!r}, found none") from error
        if self.start is None:
            return value
        needed = self.start + 1 if self.stop is None else self.stop
        if len(value) < needed:
            raise SpecError(f"{type(message).__name__}.{self.text}: expected {needed} elements, found {len(value)}")
        return value[self.start] if self.stop is None else value[self.start : self.stop]

    def set(self, message: object, value: object) -> None:
        """Write `value` into the field; four numbers fill a message with x, y, z, w; sequences grow as needed.

        Raises:
            SpecError: the message has no such field.
        """
        owner = message
        try:
            for name in self.names[:-1]:
                owner = getattr(owner, name)
            current = getattr(owner, self.names[-1])
        except AttributeError as error:
            raise SpecError(f"{type(message).__name__}: expected a field {self.text!r}, found none") from error
        if self.start is not None:
            stop = self.stop if self.stop is not None else self.start + 1
            items = np.zeros(max(len(current), stop))
            items[: len(current)] = current
            items[self.start : stop] = value
            setattr(owner, self.names[-1], _sequence_like(current, items))
        elif all(hasattr(current, axis) for axis in "xyzw") and np.size(value) == 4:
            for axis, number in zip("xyzw", value, strict=True):
                setattr(current, axis, float(number))
        elif isinstance(current, str):
            setattr(owner, self.names[-1], str(value))
        elif np.ndim(value):
            setattr(owner, self.names[-1], _sequence_like(current, np.asarray(value, dtype=np.float64)))
        else:
            setattr(owner, self.names[-1], type(current)(value))


def _sequence_like(current: object, items: np.ndarray) -> object:
    """Return `items` as the kind of sequence that the message holds: numpy for rosbags, a list for rclpy."""
    return items.astype(current.dtype) if isinstance(current, np.ndarray) else items.tolist()


def yaw_of(quaternion: object) -> float | np.ndarray:
    """Return the heading [rad] of a quaternion: a message with x, y, z, w, four numbers, or an array (N, 4)."""
    if hasattr(quaternion, "w"):
        x, y, z, w = quaternion.x, quaternion.y, quaternion.z, quaternion.w
    else:
        x, y, z, w = np.moveaxis(np.asarray(quaternion, dtype=np.float64), -1, 0)
    return np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def _yaw_sin_cos(quaternion: object) -> tuple:
    yaw = yaw_of(quaternion)
    return np.sin(yaw), np.cos(yaw)


def _quaternion(quaternion: object) -> tuple:
    """Return x, y, z, w with w >= 0: q and -q are the same attitude, and a policy should see one of them."""
    parts = [quaternion.x, quaternion.y, quaternion.z, quaternion.w] if hasattr(quaternion, "w") else quaternion
    x, y, z, w = np.moveaxis(np.asarray(parts, dtype=np.float64), -1, 0)
    sign = np.where(w < 0.0, -1.0, 1.0)
    return sign * x, sign * y, sign * z, sign * w


@dataclass(frozen=True)
class Transform:
    """A named function of one field's value that gives one quantity per suffix."""

    suffixes: tuple[str, ...]
    function: Callable[[object], Sequence]


TRANSFORMS = {
    "quaternion": Transform(("_x", "_y", "_z", "_w"), _quaternion),
    "yaw": Transform(("",), lambda quaternion: (yaw_of(quaternion),)),
    "yaw_sin_cos": Transform(("_sin", "_cos"), _yaw_sin_cos),
}
