"""RobotSpec: the one contract between messages, numbers and safety.

    spec = load_spec("config/ball_circle.yaml")
    observation = spec.observe(physical)              # what the policy sees
    cost = spec.cost(physical, previous, command)     # what is unsafe, from the sensors alone
    command = spec.command(action)                    # what the robot is told, in its own units

`physical` maps signal names to values in physical units (floats, or arrays (N,) for logged data). The executor, the
cost monitor, the bag reader and the simulated robot all compute through this object; nothing else knows a topic name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import yaml

from saferule_core.data.transitions import Transitions
from saferule_core.errors import SpecError
from saferule_core.fields import FieldPath
from saferule_core.spec_checks import check
from saferule_core.spec_schema import Signal, SpecFile

Physical = Mapping[str, object]
_NOT_HASHED = ("description", "simulation", "normalisation", "picture")


def load_spec(path: str | Path) -> RobotSpec:
    """Read and check a robot description.

    Raises:
        SpecError: the file is missing or a key is wrong; the message names file, key, expected and found.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: expected a readable YAML file, found: {error.strerror}") from error
    return parse_spec(text, str(path))


def parse_spec(text: str, source: str = "spec") -> RobotSpec:
    """Check a robot description given as YAML text; `source` names it in errors. Raises as `load_spec`."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{source}: expected YAML, found: {error}") from error
    try:
        return RobotSpec(msgspec.convert(content, SpecFile), source, text)
    except msgspec.ValidationError as error:
        raise SpecError(_explain(error, content, source)) from error


def _explain(error: msgspec.ValidationError, content: object, source: str) -> str:
    """Turn msgspec's message into: file: key: expected, found."""
    message, _, path = str(error).partition(" - at ")
    path = path.strip("`$.") or "the file"
    found = content
    for key, index in re.findall(r"([A-Za-z_]\w*)|\[(\d+)\]", path if path != "the file" else ""):
        try:
            found = found[key] if key else found[int(index)]
        except (KeyError, IndexError, TypeError):
            return f"{source}: {path}: {message}"
    expected = re.match(r"Expected `(.+?)`, got", message)
    if expected:
        return f"{source}: {path}: expected {expected[1]}, found {found!r}"
    return f"{source}: {path}: {message}"


class RobotSpec:
    """A checked robot description; immutable. Made by `load_spec` and `parse_spec`.

    Attributes:
        name, rate_hz, episode, observation, signals, action, cost, reward, simulation, normalisation, picture:
            the sections of the file (see `spec_schema`).
        obs_dim, action_dim: sizes of the policy's input and output.
        period_ns: length of a control tick [ns].
        hash: SHA-256 (hex) of everything that a trained policy depends on.
        cost_needs_command, cost_needs_previous: a constraint looks at what was commanded, or at the state before (or is
            a function, and may).
        source, text: where the description came from, and its YAML.
    """

    def __init__(self, file: SpecFile, source: str, text: str) -> None:
        self.source, self.text = source, text
        self.name, self.rate_hz, self.episode = file.name, file.rate_hz, file.episode
        self.observation, self.signals, self.action = file.observation, file.signals, file.action
        self.cost, self.reward = file.cost, file.reward
        self.simulation, self.normalisation, self.picture = file.simulation, file.normalisation, file.picture
        content = {key: value for key, value in msgspec.to_builtins(file).items() if key not in _NOT_HASHED}
        self.hash = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        checked = check(file, source)
        self._outputs, self._paths, self._derived = checked.outputs, checked.paths, checked.derived
        self._constraints, self._reward, self._end_when = checked.constraints, checked.reward, checked.end_when
        self.feature_names = tuple(name for feature in self.observation for name in self._outputs[feature.name])
        self.obs_dim, self.action_dim = len(self.feature_names), len(self.action)
        used = {name for rule in self._constraints.values() for name in getattr(rule, "names", ())}
        functions = any(item.function is not None for item in self.cost.constraints)
        self.cost_needs_command = functions or any(name.startswith("action.") for name in used)
        self.cost_needs_previous = functions or any(name.startswith("previous.") for name in used)
        self._cost_needs = {n.removeprefix("previous.") for n in used if "action." not in n} - set(self.feature_names)
        self._fields_to_arrays()

    # -- sizes and topics ------------------------------------------------------------------------------------------

    @property
    def period_ns(self) -> int:
        """Length of a control tick [ns]."""
        return round(1e9 / self.rate_hz)

    @property
    def sensor_topics(self) -> dict[str, str]:
        """Topic -> message type of everything that observation, cost and reward read."""
        return {signal.topic: signal.type for signal in self._all_signals() if signal.topic}

    @property
    def command_topics(self) -> dict[str, str]:
        """Topic -> message type of the commands."""
        return {channel.topic: channel.type for channel in self.action}

    @property
    def log_topics(self) -> dict[str, str]:
        """Topic -> message type of episode marker, logged cost and logged reward, where there are any."""
        sources = (self.episode.marker, self.cost.logged, self.reward.topic)
        return {source.topic: source.type for source in sources if source is not None}

    def path(self, field: str) -> FieldPath:
        """Return the parsed path of a field that this description names."""
        return self._paths[field]

    def outputs(self, signal: Signal) -> tuple[str, ...]:
        """Return the names of the quantities that a signal gives."""
        return self._outputs[signal.name]

    def source_signals(self) -> list[Signal]:
        """Return the signals that are read from topics, in order."""
        return [signal for signal in self._all_signals() if signal.topic]

    def _all_signals(self) -> tuple[Signal, ...]:
        return (*self.observation, *self.signals)

    # -- numbers ---------------------------------------------------------------------------------------------------

    def derive(self, physical: dict[str, object]) -> dict[str, object]:
        """Add the signals that are expressions over others to `physical` (in place) and return it."""
        for signal in self._all_signals():
            if signal.expression is not None:
                physical[signal.name] = self._derived[signal.name](physical)
        return physical

    def observe(self, physical: Physical) -> np.ndarray:
        """Return what the policy sees: (obs_dim,) or (N, obs_dim) float32."""
        stacked = np.stack([np.asarray(physical[name], dtype=np.float64) for name in self.feature_names], axis=-1)
        return np.clip(stacked * self._scale + self._offset, self._low, self._high).astype(np.float32)

    def physical(self, observations: np.ndarray) -> dict[str, np.ndarray]:
        """Return the features of observations (N, obs_dim) in physical units: name -> (N,) float64."""
        values = (np.asarray(observations, dtype=np.float64) - self._offset) / self._scale
        return {name: values[..., index] for index, name in enumerate(self.feature_names)}

    def costs(self, physical: Physical, previous: Physical | None, command: Physical | None) -> dict[str, np.ndarray]:
        """Return the cost of a step per constraint.

        physical: the state that the step led to; previous: the state before it; command: what was commanded, in
        command units (channel name -> value). A constraint that needs neither may get None for both.
        """
        scope = scope_of(physical, previous, command)
        return {name: rule(scope) for name, rule in self._constraints.items()}

    def combine_costs(self, costs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return one cost per step: the largest of `costs`, or their sum, as the description says."""
        values = np.stack([np.asarray(value, dtype=np.float64) for value in costs.values()])
        return values.max(axis=0) if self.cost.combine == "max" else values.sum(axis=0)

    def step_cost(self, physical: Physical, previous: Physical | None, command: Physical | None) -> np.ndarray:
        """Return the cost of a step, all constraints combined: float or (N,)."""
        return self.combine_costs(self.costs(physical, previous, command))

    @property
    def computes_reward(self) -> bool:
        """True where the reward can be computed from the sensors (not only read from a topic)."""
        return self._reward is not None

    def step_reward(self, physical: Physical, previous: Physical, command: Physical) -> np.ndarray:
        """Return the reward of a step: float or (N,).

        Raises:
            SpecError: the description only names a topic that carries the reward.
        """
        if self._reward is None:
            raise SpecError(f"{self.source}: reward: expected an expression or a function to compute it, found none")
        return self._reward(scope_of(physical, previous, command))

    def ends(self, physical: Physical) -> np.ndarray:
        """Return whether the state ends an episode: bool or (N,)."""
        first = np.asarray(next(iter(physical.values())))
        return np.zeros(first.shape, bool) if self._end_when is None else self._end_when(dict(physical)) > 0.5

    def relabel(self, transitions: Transitions) -> Transitions:
        """Return `transitions` with costs recomputed from their observations; the logged labels are not read.

        Raises:
            SpecError: the sizes do not fit, or a constraint needs a signal that is not part of the observation.
        """
        self.check_fits(transitions)
        if self._cost_needs:
            raise SpecError(
                f"{self.source}: cost: expected constraints over the observation, to recompute them without the bags, "
                f"found ones that need {', '.join(sorted(self._cost_needs))}"
            )
        before = self.physical(transitions.observations) if self.cost_needs_previous else None
        command = self.command(transitions.actions) if self.cost_needs_command else None
        cost = self.step_cost(self.physical(transitions.next_observations), before, command)
        return transitions.replace(costs=np.broadcast_to(cost, len(transitions)))

    def check_fits(self, transitions: Transitions) -> None:
        """Raise SpecError if `transitions` has other sizes than this description."""
        if (transitions.obs_dim, transitions.action_dim) != (self.obs_dim, self.action_dim):
            raise SpecError(
                f"{self.source}: expected transitions with {self.obs_dim} observation features and {self.action_dim} "
                f"action channels, found {transitions.obs_dim} and {transitions.action_dim}"
            )

    def command(self, action: np.ndarray) -> dict[str, np.ndarray]:
        """Return the command of an action (action_dim,) or (N, action_dim) in [-1, 1]: channel -> command units."""
        unit = (np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0) + 1.0) / 2.0
        values = self._command_low + unit * (self._command_high - self._command_low)
        return {channel.name: values[..., index] for index, channel in enumerate(self.action)}

    def safe_command(self) -> dict[str, float]:
        """Return the safe-stop command: channel name -> command units."""
        return {channel.name: channel.safe for channel in self.action}

    def normalise_action(self, command: Physical) -> np.ndarray:
        """Return the action in [-1, 1] of a command: (action_dim,) or (N, action_dim) float32. Inverse of `command`."""
        values = np.stack([np.asarray(command[c.name], dtype=np.float64) for c in self.action], axis=-1)
        unit = (values - self._command_low) / (self._command_high - self._command_low)
        return np.clip(2.0 * unit - 1.0, -1.0, 1.0).astype(np.float32)

    def _fields_to_arrays(self) -> None:
        """Precompute what `observe` and `command` need each tick."""
        per_output = [feature for feature in self.observation for _ in self._outputs[feature.name]]
        self._scale = np.array([feature.scale for feature in per_output])
        self._offset = np.array([feature.offset for feature in per_output])
        self._low = np.array([feature.clip[0] if feature.clip else -np.inf for feature in per_output])
        self._high = np.array([feature.clip[1] if feature.clip else np.inf for feature in per_output])
        self._command_low = np.array([channel.low for channel in self.action])
        self._command_high = np.array([channel.high for channel in self.action])


def scope_of(physical: Physical, previous: Physical | None, command: Physical | None) -> dict[str, object]:
    """Return the names that cost and reward may use: x, previous.x and action.<channel>."""
    scope = dict(physical)
    scope.update({f"previous.{name}": value for name, value in (previous or {}).items()})
    scope.update({f"action.{name}": value for name, value in (command or {}).items()})
    return scope
