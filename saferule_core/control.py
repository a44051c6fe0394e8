"""The control loop without ROS: newest sensors in, one command per tick out, and a policy that can be exchanged.

    controller = Controller(spec, policy, policy_id)
    controller.update("odom", message, received_ns)
    tick = controller.tick(now_ns)            # tick.command goes to the robot, whatever happened
    controller.swap(candidate, candidate_id)  # between two ticks: one reference assignment

Every tick gives a command. Where the policy may not or cannot drive (a latched stop, a hold, stale or non-finite
input, a non-finite action) it is the safe-stop command of the description, with the reason.

The controller remembers what was observed and commanded in the last ticks, whoever decided on it, so that a policy with
a memory knows what really happened, also right after a swap. An episode marker or a tick without fresh input begins
the memory anew; a tick that never came is not filled in.
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from saferule_core.agents.memory import LONGEST_MEMORY, Memory
from saferule_core.errors import InputError
from saferule_core.signals import RateLimiter, SignalReader, stamp_of
from saferule_core.spec import RobotSpec


class Policy(Protocol):
    """What drives, for example a `saferule_core.store.bundle.Policy`."""

    def act(self, observations: np.ndarray, memory: Memory) -> np.ndarray:
        """Return actions (N, action_dim) in [-1, 1] for observations (N, obs_dim) float32 and what came before."""


class ControlState(enum.Enum):
    """Who decides on the command."""

    RUNNING = "running"
    HOLDING = "holding"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Tick:
    """One control tick.

    command: channel name -> command units. reason: why the state is not RUNNING. missed: control periods that passed
    without a tick just before this one. interval_s: wall time since the previous tick [s]. compute_s: wall time from
    the newest sensors to the command [s].
    """

    number: int
    command: dict[str, float]
    state: ControlState
    reason: str
    missed: int
    interval_s: float
    compute_s: float


@dataclass
class LoopStatistics:
    """Counters since the loop began; `lateness` is ROS time after a tick was due [s], the other times are wall [s]."""

    ticks: int = 0
    missed_ticks: int = 0
    stale_ticks: int = 0
    worst_lateness_s: float = 0.0
    worst_compute_s: float = 0.0
    swaps: int = 0
    last_swap_tick: int = 0
    last_swap_duration_s: float = 0.0
    missed_since_swap: int = 0


class TickSchedule:
    """Knows when ticks are due, and counts the periods in which none came."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._last_ns: int | None = None

    def tick(self, now_ns: int) -> tuple[int, float]:
        """Take a tick at `now_ns` [ns]; return how many periods were missed before it and its lateness [s]."""
        if self._last_ns is None:
            self._last_ns = now_ns
            return 0, 0.0
        elapsed = now_ns - self._last_ns
        self._last_ns = now_ns
        return max(0, round(elapsed / self._period_ns) - 1), max(0.0, (elapsed - self._period_ns) / 1e9)


class Controller:
    """Turns sensors into commands with the policy in its slot; single-threaded like the control loop itself."""

    def __init__(self, spec: RobotSpec, policy: Policy, policy_id: str) -> None:
        self.spec = spec
        self.policy_id = policy_id
        self.statistics = LoopStatistics()
        self._policy = policy
        self._reader = SignalReader(spec)
        self._limiter = RateLimiter(spec)
        self._schedule = TickSchedule(spec.period_ns)
        self._memory = Memory(LONGEST_MEMORY, spec.obs_dim, spec.action_dim)
        self._episode: str | None = None
        self._begins_ns: int | None = None
        self._held = ""
        self._stopped = ""
        self._last_wall = time.perf_counter()

    def restart(self) -> None:
        """Forget sensors, memory, holds and counters; the policy stays. For the moment before the first tick."""
        self.__init__(self.spec, self._policy, self.policy_id)

    def update(self, topic: str, message: object, received_ns: int) -> None:
        """Take a message of a sensor topic or the episode marker, received at ROS time [ns]."""
        if topic in self._reader.topics:
            self._reader.update(topic, message, received_ns)
        marker = self.spec.episode.marker
        if marker is not None and topic == marker.topic:
            episode = str(self.spec.path(marker.field).get(message))
            if episode != self._episode:
                self._episode, self._begins_ns = episode, stamp_of(message, received_ns)

    def hold(self, reason: str) -> None:
        """Send the safe command until `resume`."""
        self._held = reason

    def resume(self) -> None:
        """Let the policy drive again (a latched stop stays)."""
        self._held = ""

    def set_stop(self, reason: str) -> None:
        """Latch a stop with a reason, or release it with an empty one."""
        self._stopped = reason

    def swap(self, policy: Policy, policy_id: str) -> str:
        """Exchange the policy; the next tick is the new one's first. Return the id of the old one."""
        previous = self.policy_id
        begun = time.perf_counter()
        self._policy, self.policy_id = policy, policy_id
        duration = time.perf_counter() - begun
        statistics = self.statistics
        statistics.swaps += 1
        statistics.last_swap_tick = statistics.ticks + 1
        statistics.last_swap_duration_s = duration
        statistics.missed_since_swap = 0
        return previous

    def tick(self, now_ns: int) -> Tick:
        """Return the command for the control period that begins at ROS time `now_ns` [ns]."""
        begun = time.perf_counter()
        interval, self._last_wall = begun - self._last_wall, begun
        missed, lateness = self._schedule.tick(now_ns)
        state, reason = ControlState.RUNNING, ""
        if self._stopped:
            state, reason = ControlState.STOPPED, self._stopped
        elif self._held:
            state, reason = ControlState.HOLDING, self._held
        stale = False
        command = dict(self.spec.safe_command())
        observation = self._observe(now_ns)
        if state is ControlState.RUNNING:
            try:
                command = self._limiter.limit(self._drive(observation))
            except InputError as error:
                stale, state, reason = True, ControlState.STOPPED, str(error)
        self._remember(observation, command)
        compute = time.perf_counter() - begun
        self._count(missed, stale, lateness, compute)
        return Tick(self.statistics.ticks, command, state, reason, missed, interval, compute)

    def _observe(self, now_ns: int) -> np.ndarray | InputError:
        """Return the newest observation (obs_dim,), or why there is none; where it begins an episode, forget."""
        if self._begins_ns is not None and (self._reader.stamp() or 0) >= self._begins_ns:
            self._begins_ns = None
            self._memory.clear()
        try:
            return self.spec.observe(self._reader.physical(now_ns))
        except InputError as error:
            return error

    def _remember(self, observation: np.ndarray | InputError, command: dict[str, float]) -> None:
        if isinstance(observation, InputError):
            self._memory.clear()
        else:
            self._memory.add(observation[None], self.spec.normalise_action(command)[None])

    def _drive(self, observation: np.ndarray | InputError) -> dict[str, float]:
        if isinstance(observation, InputError):
            raise observation
        action = self._policy.act(observation[None], self._memory)[0]
        if not np.isfinite(action).all():
            raise InputError(f"policy {self.policy_id[:12]}: expected a finite action, found {action}")
        return {name: float(value) for name, value in self.spec.command(action).items()}

    def _count(self, missed: int, stale: bool, lateness: float, compute: float) -> None:
        statistics = self.statistics
        statistics.ticks += 1
        statistics.missed_ticks += missed
        statistics.missed_since_swap += missed
        statistics.stale_ticks += stale
        statistics.worst_lateness_s = max(statistics.worst_lateness_s, lateness)
        statistics.worst_compute_s = max(statistics.worst_compute_s, compute)
