"""Keeps commands from leading a robot over its bounds: looks ahead, and scales or stops what would break one.

    guard = CommandFilter(spec, FilterMode.APPROACH, horizon_s=1.0, rates=parse_rates(spec, ["x=action.speed"]))
    guard.update("odom", message, received_ns)              # sensors and episode marker
    verdict = guard.judge({"speed": 1.2}, now_ns)           # verdict.command goes to the robot

The bounds are the constraints of the description that have a margin (`margins`); where the robot will be is
extrapolated (`extrapolation`). `approach` scales the command towards the safe one, by as little as keeps the robot
inside for the whole horizon, so it slows down the nearer it comes; `slow` scales by a fixed factor and `stop` sends the
safe command, as soon as a bound would be broken within the horizon (the modes of Nav2's collision monitor). Outside a
bound, a command passes that leads no further out. Where no scaling helps, the one that leads out least is chosen.

A guard against single commands, not a proof: what the extrapolation leaves out (inertia behind a velocity command,
delays, what moves by itself) it cannot keep inside. It suits commands of velocity. Where commands are forces and the
robot rolls on under the safe command, no share of a command brakes: benchmarks/results/command_filter.txt, ball_circle.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from saferule_core.errors import DataError, InputError
from saferule_core.expressions import Expression
from saferule_core.extrapolation import Extrapolation
from saferule_core.margins import Margins
from saferule_core.signals import SignalReader
from saferule_core.spec import RobotSpec

APPROACH_SCALES = np.linspace(0.0, 1.0, 21)
"""Shares of the command that are tried in the mode `approach`, the safe command first."""

TOLERANCE = 1e-9
"""A margin may fall this far below its bound: rounding."""


def unfiltered(topic: str) -> str:
    """Return the topic on which commands for `topic` come to the filter."""
    return f"/unfiltered{topic}" if topic.startswith("/") else f"unfiltered/{topic}"


class FilterMode(enum.Enum):
    """What is done to a command that would break a bound within the horizon."""

    APPROACH = "approach"
    SLOW = "slow"
    STOP = "stop"


@dataclass(frozen=True)
class Verdict:
    """What goes to the robot, and why.

    command: channel name -> command units. scale: share of the wanted command in it, 0.0 is the safe command.
    constraint: the bound that the wanted command would break first, empty where none; time_to_violation_s: in how
    long [s], infinite where none. reason: why the command was changed, empty where it was not.
    """

    command: dict[str, float]
    scale: float
    constraint: str
    time_to_violation_s: float
    reason: str


class CommandFilter:
    """Judges commands by the newest sensors; single-threaded.

    Args:
        horizon_s: how far it looks ahead [s]. rates: see `parse_rates`; without them only the present velocity counts.
        slow_scale: factor of the mode `slow`, in [0, 1]. clearance: margin to keep from every bound, in its units.

    Raises:
        DataError: the horizon is not positive, the clearance negative, or no constraint has a margin.
    """

    def __init__(
        self,
        spec: RobotSpec,
        mode: FilterMode,
        horizon_s: float,
        rates: Mapping[str, Expression],
        slow_scale: float = 0.3,
        clearance: float = 0.0,
    ) -> None:
        self._margins = Margins(spec)
        if not (math.isfinite(clearance) and clearance >= 0.0):
            raise DataError(f"command filter: clearance: expected a margin of at least 0, found {clearance}")
        if not (math.isfinite(horizon_s) and horizon_s > 0.0):
            raise DataError(f"command filter: horizon: expected a positive number of seconds, found {horizon_s}")
        if not self._margins.known:
            raise DataError(f"{spec.source}: cost.constraints: expected one with a margin to filter by, found none")
        self.not_guarded = tuple(sorted(set(self._margins.names) - set(self._margins.known)))
        self._spec, self._horizon_s, self._clearance = spec, horizon_s, clearance
        self._scales = APPROACH_SCALES if mode is FilterMode.APPROACH else np.array([0.0, slow_scale, 1.0])
        self._slow = {FilterMode.SLOW: 1, FilterMode.STOP: 0}.get(mode)
        self._of_command = {
            name for name in self._margins.known if any(n.startswith("action.") for n in self._margins.needs(name))
        }
        self._reader = SignalReader(spec)
        wanted = {name for constraint in self._margins.known for name in self._margins.needs(constraint)}
        self._model = Extrapolation(spec, rates, wanted)
        self._episode: str | None = None
        self._last_ns = 0
        self._safe = spec.safe_command()

    def update(self, topic: str, message: object, received_ns: int) -> None:
        """Take a message of a sensor topic or the episode marker, received at ROS time [ns]."""
        if topic in self._reader.topics:
            self._reader.update(topic, message, received_ns)
        marker = self._spec.episode.marker
        if marker is not None and topic == marker.topic:
            episode = str(self._spec.path(marker.field).get(message))
            if episode != self._episode:
                self._episode = episode
                self.begin_episode()

    def judge(self, command: Mapping[str, float], now_ns: int) -> Verdict:
        """Return what may go to the robot of `command` (channel name -> command units) at ROS time `now_ns` [ns]."""
        self._notice_clock(now_ns)
        wrong = [name for name, value in command.items() if not math.isfinite(value)]
        if wrong:
            return self._stopped(f"command {wrong[0]}: expected a finite number, found {command[wrong[0]]}")
        try:
            physical = self._reader.physical(now_ns)
        except InputError as error:
            return self._stopped(str(error))
        return self.judge_state(physical, self._reader.stamp(), command)

    def _notice_clock(self, now_ns: int) -> None:
        """After the clock was set back, wait for sensors of the new time, as the executor does."""
        set_back, self._last_ns = now_ns < self._last_ns, now_ns
        if set_back:
            self._reader.forget_after(now_ns)

    def judge_state(self, physical: Mapping[str, float], stamp_ns: int, command: Mapping[str, float]) -> Verdict:
        """Return the same for a robot state that is known: all signals at time `stamp_ns` [ns]."""
        self._model.see(physical, stamp_ns)
        return self._choose(physical, command)

    def begin_episode(self) -> None:
        """Forget how the robot moved: it was put somewhere else."""
        self._model.forget()

    def _stopped(self, reason: str) -> Verdict:
        return Verdict(dict(self._safe), 0.0, "", math.inf, reason)

    def _choose(self, physical: Mapping[str, float], wanted: Mapping[str, float]) -> Verdict:
        safe = self._safe
        commands = {name: safe[name] + self._scales * (value - safe[name]) for name, value in wanted.items()}
        floors = self._floors(physical)
        room = np.full(len(self._scales), np.inf)
        constraint, breaks_s = "", math.inf
        for time_s, state, before in self._model.ahead(commands, self._horizon_s):
            margins = self._margins.physical(state, before, commands)
            for name in self._margins.known:
                left = np.broadcast_to(margins[name], len(room)) - floors[name]
                room = np.fmin(room, left)
                if left[-1] < -TOLERANCE and not constraint:
                    constraint, breaks_s = name, time_s
        chosen = self._chosen(room >= -TOLERANCE, room)
        scale = float(self._scales[chosen])
        reason = ""
        if scale < 1.0:
            reason = f"{constraint} would be broken in {breaks_s:.2g} s: {scale:.0%} of the command"
        command = dict(wanted) if scale == 1.0 else {name: float(values[chosen]) for name, values in commands.items()}
        return Verdict(command, scale, constraint, breaks_s, reason)

    def _floors(self, physical: Mapping[str, float]) -> dict[str, float]:
        """Return how low each margin may fall: to the clearance or, closer to a bound or beyond it, to where it is."""
        present, clearance = self._margins.physical(physical, None, None), self._clearance
        return {
            name: clearance if name in self._of_command or not present[name] < clearance else float(present[name])
            for name in self._margins.known
        }

    def _chosen(self, inside: np.ndarray, room: np.ndarray) -> int:
        """Return the index of the scale to take."""
        if inside[-1]:
            return len(room) - 1
        if self._slow is not None:
            return self._slow
        # A scale counts only if all smaller ones are fine, too: what is between two bad ones is chance.
        allowed = np.flatnonzero(np.cumprod(inside))
        return int(allowed[-1]) if len(allowed) else int(np.argmax(room))
