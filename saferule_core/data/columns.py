"""Signals of many messages at once: raw field values as arrays become physical values as arrays.

columns = {signal.name: raw values (N,) or (N, k) for signal in spec.source_signals()}
sources, physical = physical_of_columns(spec, columns)         # names measured; name -> (N,) float64
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter

import numpy as np

from saferule_core.errors import DataError, SpecError
from saferule_core.fields import TRANSFORMS, FieldPath
from saferule_core.spec import RobotSpec


def raw_value_getter(path: FieldPath, sample: object) -> Callable[[object], object]:
    """Return a quick function that reads the field of `path` from messages like `sample`.

    Numbers come as they are, sequences as they are, messages with x, y, z, w as that tuple.

    Raises:
        SpecError: the sample has no such field.
    """
    value = path.get(sample)
    if all(hasattr(value, axis) for axis in "xyzw"):
        return attrgetter(*(f"{path.text}.{axis}" for axis in "xyzw"))
    if path.start is None:
        return attrgetter(path.text)
    return path.get


def row_of(value: object, quaternion: bool) -> np.ndarray:
    """Return the raw value of one message's field as the column of one message: (1,) or (1, k) float64.

    Raises:
        SpecError: it is no number, sequence of numbers or quaternion.
    """
    if quaternion and hasattr(value, "w"):
        value = (value.x, value.y, value.z, value.w)
    try:
        return np.asarray(value, dtype=np.float64)[None]
    except (TypeError, ValueError) as error:
        raise SpecError(f"expected a number, numbers or a quaternion in a field, found {value!r:.100}") from error


def physical_of_columns(
    spec: RobotSpec, columns: Mapping[str, np.ndarray]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the names of what was measured, and all signals of N states in physical units: name -> (N,) float64.

    The numbers of one state do not depend on how many others are computed with it.

    columns: signal name -> raw values of its field, (N,) for a number, (N, k) for a sequence or a quaternion.

    Raises:
        DataError: a field holds another number of values than the description expects.
    """
    physical: dict[str, np.ndarray] = {}
    for signal in spec.source_signals():
        raw, names = np.asarray(columns[signal.name], dtype=np.float64), spec.outputs(signal)
        if signal.transform is not None:
            if raw.ndim != 2 or raw.shape[1] != 4:
                found = raw.shape[1] if raw.ndim == 2 else 1
                raise DataError(f"{signal.topic}: {signal.field}: expected a quaternion, found {found} values")
            # numpy may round strided and contiguous arrays differently, so a transform always gets contiguous ones.
            values = TRANSFORMS[signal.transform].function(np.moveaxis(np.ascontiguousarray(raw.T), 0, -1))
        else:
            values = np.ascontiguousarray(raw.T) if raw.ndim == 2 else (np.ascontiguousarray(raw),)
        if len(values) != len(names):
            raise DataError(f"{signal.topic}: {signal.field}: expected {len(names)} values, found {len(values)}")
        physical.update(zip(names, values, strict=True))
    sources = tuple(physical)
    return sources, spec.derive(physical)
