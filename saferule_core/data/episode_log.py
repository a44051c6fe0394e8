"""What a robot and its driver said during one episode, before it is a bag or a training set.

    data = transitions_of(logs, spec)                          # what learning sees
    logs = [relabelled(log, costs=np.zeros(log.steps)) for log in logs]

A log keeps the message fields themselves, so that a bag made from it holds what the robot would have published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from saferule_core.data.columns import physical_of_columns
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError
from saferule_core.spec import RobotSpec


@dataclass(frozen=True, eq=False)
class EpisodeLog:
    """T steps of one episode: T commands, and T + 1 states around them.

    name: the episode marker's value.
    sensors: message type -> field path -> values of the states, (T + 1,) or (T + 1, k); a plain value is a constant.
    commands: channel name -> (T,) in command units.
    rewards, costs: (T,) labels as logged, of the state that each step led to. Never trust them.
    terminated: the task ended with the last step (not: time ran out).
    style: how the driver drove, where it is known.
    """

    name: str
    sensors: Mapping[str, Mapping[str, Any]]
    commands: Mapping[str, np.ndarray]
    rewards: np.ndarray
    costs: np.ndarray
    terminated: bool = False
    style: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in {**self.commands, "costs": self.costs}.items():
            if len(values) != self.steps:
                raise DataError(f"{self.name}: {name}: expected {self.steps} values, found {len(values)}")

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return len(self.rewards)

    def state(self, tick: int) -> dict[str, dict[str, Any]]:
        """Return the message fields of state `tick` (0 to T)."""
        return {
            kind: {path: values[tick] if isinstance(values, np.ndarray) else values for path, values in fields.items()}
            for kind, fields in self.sensors.items()
        }


def relabelled(log: EpisodeLog, rewards: np.ndarray | None = None, costs: np.ndarray | None = None) -> EpisodeLog:
    """Return `log` with other labels (T,)."""
    labels = {name: np.asarray(v, np.float64) for name, v in (("rewards", rewards), ("costs", costs)) if v is not None}
    return replace(log, **labels)


def with_labels_of(logs: Sequence[EpisodeLog], data: Transitions) -> list[EpisodeLog]:
    """Return `logs` with the rewards and costs of `data`, which has the same episodes in the same order.

    Raises:
        DataError: the episodes differ in number or length.
    """
    lengths = [log.steps for log in logs]
    found = [part.stop - part.start for part in data.episodes()]
    if lengths != found:
        raise DataError(f"transitions: expected {len(logs)} episodes of {lengths[:3]}... steps, found {found[:3]}...")
    parts = zip(logs, data.episodes(), strict=True)
    return [relabelled(log, data.rewards[part], data.costs[part]) for log, part in parts]


def transitions_of(logs: Sequence[EpisodeLog], spec: RobotSpec) -> Transitions:
    """Return the transitions of all steps, with the logged labels, in order.

    Raises:
        DataError: there is no log, or a log lacks a field that the description reads.
    """
    return Transitions.concatenate([_transitions(log, spec) for log in logs])


def _transitions(log: EpisodeLog, spec: RobotSpec) -> Transitions:
    observations = spec.observe(physical_of_columns(spec, _columns(log, spec))[1])
    last = np.arange(log.steps) == log.steps - 1
    return Transitions(
        observations=observations[:-1],
        actions=spec.normalise_action(log.commands),
        rewards=log.rewards,
        costs=log.costs,
        next_observations=observations[1:],
        terminated=last & log.terminated,
        episode_ends=last,
    )


def _columns(log: EpisodeLog, spec: RobotSpec) -> dict[str, np.ndarray]:
    columns = {}
    for signal in spec.source_signals():
        path, fields = spec.path(signal.field), log.sensors.get(signal.type, {})
        base = ".".join(path.names)
        if signal.field in fields:
            columns[signal.name] = fields[signal.field]
        elif base in fields and path.start is not None:
            stop = path.start + path.size
            sliced = np.asarray(fields[base])[:, path.start : stop]
            columns[signal.name] = sliced[:, 0] if path.stop is None else sliced
        else:
            raise DataError(f"{log.name}: expected {signal.type} {signal.field}, found {', '.join(sorted(fields))}")
    return columns
