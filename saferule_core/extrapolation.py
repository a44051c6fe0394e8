"""Where a robot's signals go in the next second if a command is held: the look ahead of the command filter.

    model = Extrapolation(spec, parse_rates(spec, ["x=action.speed * heading_cos", "y=action.speed * heading_sin"]))
    model.see(physical, stamp_ns)                                  # once per new state
    for time_s, state in model.ahead({"speed": np.array([0.0, 0.5, 1.0])}, horizon_s=1.0): ...

A signal changes at the rate that an expression over signals and commands gives for it (the commanded velocity); without
one it goes on as it did in the last states (the present velocity). Several commands are looked at together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from saferule_core.errors import SpecError
from saferule_core.expressions import Expression
from saferule_core.spec import Physical, RobotSpec, scope_of

STATES_KEPT = 4
"""States that the present velocity is taken from: the way from the first of them to the last."""

MOST_STEPS = 15
"""Steps into which the time ahead is cut; a control period where that makes fewer."""


class Extrapolation:
    """Keeps the last states of a robot and extrapolates them; single-threaded.

    wanted: names of the signals that matter (`previous.x` counts as x), with what they depend on; None for all.
    """

    def __init__(
        self, spec: RobotSpec, rates: Mapping[str, Expression], wanted: Collection[str] | None = None
    ) -> None:
        self._rate_hz, self._rates = spec.rate_hz, dict(rates)
        derived = {
            signal.name: Expression(signal.expression, signal.name)
            for signal in (*spec.observation, *spec.signals)
            if signal.expression is not None
        }
        names = tuple(name for signal in spec.source_signals() for name in spec.outputs(signal))
        needed = _needed({**derived, **rates}, (*names, *derived) if wanted is None else wanted)
        self._derived = {name: rule for name, rule in derived.items() if name in needed}
        self._names = tuple(name for name in names if name in needed)
        self._angles = {
            name for signal in spec.source_signals() if signal.transform == "yaw" for name in spec.outputs(signal)
        }
        self._states: deque[tuple[int, dict[str, float]]] = deque(maxlen=STATES_KEPT)

    def see(self, physical: Physical, stamp_ns: int) -> None:
        """Take the state at `stamp_ns` [ns]; the same one again counts for nothing."""
        if self._states and stamp_ns == self._states[-1][0]:
            return
        if self._states and stamp_ns < self._states[-1][0]:
            self.forget()
        self._states.append((stamp_ns, dict(physical)))

    def forget(self) -> None:
        """Forget the past: the robot was put somewhere else."""
        self._states.clear()

    def ahead(self, command: Mapping[str, np.ndarray], horizon_s: float) -> Iterator[tuple[float, dict, dict]]:
        """Yield (time [s], state, state before), each signal (S,), for commands (S,) that are held from now on."""
        state = dict(self._states[-1][1])
        present = self._present_rates()
        steps = min(max(math.ceil(horizon_s * self._rate_hz), 1), MOST_STEPS)
        step_s = horizon_s / steps
        for step in range(1, steps + 1):
            before, scope = state, scope_of(state, None, command)
            state = {
                name: state[name] + step_s * (self._rates[name](scope) if name in self._rates else present[name])
                for name in self._names
            }
            for name, rule in self._derived.items():
                state[name] = rule(state)
            yield step * step_s, state, before

    def _present_rates(self) -> dict[str, float]:
        (first_ns, first), (last_ns, last) = self._states[0], self._states[-1]
        if last_ns == first_ns:
            return dict.fromkeys(self._names, 0.0)
        rates = {}
        for name in self._names:
            way = last[name] - first[name]
            if name in self._angles:
                way = math.remainder(way, 2.0 * math.pi)
            rates[name] = way * 1e9 / (last_ns - first_ns)
        return rates


def _needed(rules: Mapping[str, Expression], wanted: Collection[str]) -> set[str]:
    """Return all signals that `wanted` depends on by `rules`, themselves included."""
    needed, waiting = set(), list(wanted)
    while waiting:
        name = waiting.pop().removeprefix("previous.")
        if name not in needed and not name.startswith("action."):
            needed.add(name)
            waiting += rules[name].names if name in rules else ()
    return needed


def parse_rates(spec: RobotSpec, texts: Sequence[str]) -> dict[str, Expression]:
    """Return signal -> rate of change per second, from texts such as "x=action.speed * heading_cos".

    Raises:
        SpecError: a text is no `signal=expression`, or names a signal or channel that there is not.
    """
    sources = {name for signal in spec.source_signals() for name in spec.outputs(signal)}
    derived = {signal.name for signal in (*spec.observation, *spec.signals) if signal.expression is not None}
    known = sources | derived | {f"action.{channel.name}" for channel in spec.action}
    rates: dict[str, Expression] = {}
    for text in filter(None, texts):
        name, found, expression = (part.strip() for part in text.partition("="))
        if not found or name not in sources:
            names = ", ".join(sorted(sources))
            raise SpecError(f"rates: expected signal=expression with one of {names}, found {text!r}")
        rates[name] = Expression(expression, f"rates: {name}")
        unknown = rates[name].names - known
        if unknown:
            raise SpecError(f"rates: {name}: expected names of {', '.join(sorted(known))}, found {', '.join(unknown)}")
    return rates
