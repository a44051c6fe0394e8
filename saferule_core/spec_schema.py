"""The sections of a robot description as plain data, as they stand in the YAML file.

`saferule_core.spec` turns them into a `RobotSpec` that computes; this module only says which keys there are, of which
type, and what their defaults are. Unknown keys are errors.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping in the YAML file."""


class FieldSource(_Section, kw_only=True):
    """One field of the messages of one topic."""

    topic: str
    type: str
    field: str


class Signal(_Section, kw_only=True):
    """A named physical quantity: a field of a topic (optionally transformed), or an expression over earlier ones.

    max_age [s]: older than this, the value must not be used; required with a topic.
    """

    name: str
    topic: str | None = None
    type: str | None = None
    field: str | None = None
    transform: str | None = None
    max_age: float | None = None
    expression: str | None = None


class Feature(Signal, kw_only=True):
    """A signal that the policy sees as clip(scale * physical + offset)."""

    scale: float = 1.0
    offset: float = 0.0
    clip: tuple[float, float] | None = None


class ActionChannel(_Section, kw_only=True):
    """One policy output: [-1, 1] maps linearly onto [low, high] of the command field, in `unit`.

    safe: value of the safe-stop command. max_rate [unit/s]: largest change of the command, none when absent.
    """

    name: str
    topic: str
    type: str
    field: str
    low: float
    high: float
    unit: str
    safe: float = 0.0
    max_rate: float | None = None


class EpisodeSection(_Section, kw_only=True):
    """Where episodes begin and end: after max_steps, when the marker changes, or when `end_when` is true."""

    max_steps: int
    marker: FieldSource | None = None
    end_when: str | None = None


class Constraint(_Section, kw_only=True):
    """One way to be unsafe; its value per step is a cost (0: fine)."""

    name: str
    expression: str | None = None
    function: str | None = None


class CostSection(_Section, kw_only=True):
    """What is unsafe, and the budget `limit` per episode. `logged` names a label topic, which is never trusted."""

    limit: float
    constraints: tuple[Constraint, ...]
    combine: Literal["max", "sum"] = "max"
    logged: FieldSource | None = None


class RewardSection(_Section, kw_only=True):
    """What the task rewards: computed, or carried by a topic (then that is what logs give)."""

    expression: str | None = None
    function: str | None = None
    topic: FieldSource | None = None


class SimulationSection(_Section, kw_only=True):
    """The simulated robot that stands for this one in validation, and the behaviours that log data with it."""

    robot: str
    behaviour: str | None = None
    options: dict[str, float | int | str | bool] = {}


class Normalisation(_Section, kw_only=True):
    """Reward range of the task, for reports: 0 at reward_min, 1 at reward_max."""

    reward_min: float
    reward_max: float


class Boundary(_Section, kw_only=True):
    """A line of the safety boundary, at x or at y [m]."""

    x: float | None = None
    y: float | None = None


class Circle(_Section, kw_only=True):
    """A circle to draw, for example the path that the task asks for [m]."""

    radius: float
    x: float = 0.0
    y: float = 0.0


class Picture(_Section, kw_only=True):
    """What reports draw under the driven paths."""

    boundaries: tuple[Boundary, ...] = ()
    circles: tuple[Circle, ...] = ()


class SpecFile(_Section, kw_only=True):
    """A whole robot description."""

    name: str
    description: str = ""
    rate_hz: float
    episode: EpisodeSection
    observation: tuple[Feature, ...]
    signals: tuple[Signal, ...] = ()
    action: tuple[ActionChannel, ...]
    cost: CostSection
    reward: RewardSection
    simulation: SimulationSection | None = None
    normalisation: Normalisation | None = None
    picture: Picture = Picture()
