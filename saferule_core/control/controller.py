"""One control tick: newest sensors in, one command out, whatever happens.

    controller = Controller(spec, policy, policy_id, ControlSettings(ood="hold"))
    controller.update("odom", message, received_ns)
    tick = controller.tick(now_ns)
    controller.settle()                                  # after the command is on its way

Every tick gives a command. Where the policy may not or cannot drive it is the safe-stop command of the description,
with the reason:

STOPPED   a stop is latched: by the cost monitor or its silence, by an action that was refused, by inputs that stayed
          unusable. Only `resume`, or a new activation, re-arms
HOLDING   an operator asked for it, or observations stayed beyond the training data; latched in the same way
WAITING   an input is missing, stale or not finite just now, or a violation lasts that was there before a new policy

The controller remembers what was observed and commanded in the last ticks, whoever decided on it, so that a policy with
a memory knows what really happened, also right after a swap. An episode marker, a jump of the clock or a tick without
usable input begins the memory anew; a tick that never came is not filled in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from saferule_core.agents.memory import LONGEST_MEMORY, Memory
from saferule_core.control.action_guard import ActionGuard, ActionRefused
from saferule_core.control.heartbeat import Heartbeat
from saferule_core.control.inputs import InputWatch
from saferule_core.control.probation import ProbationTerms
from saferule_core.control.schedule import TickSchedule, Timing
from saferule_core.control.settings import ControlSettings
from saferule_core.control.slot import Policy
from saferule_core.control.statistics import LoopStatistics
from saferule_core.control.stops import ResumeRefused, Stops
from saferule_core.control.succession import Succession
from saferule_core.control.tick import ControlState, Tick
from saferule_core.errors import InputError
from saferule_core.freshness import jumped_back
from saferule_core.signals import SignalReader, stamp_of
from saferule_core.spec import RobotSpec


@dataclass(frozen=True)
class _Unsettled:
    """What is left to do about a tick once its command is on its way."""

    observation: np.ndarray | None
    command: dict[str, float]
    action: np.ndarray | None


class Controller:
    """Turns sensors into commands with the policy in its slot; single-threaded like the control loop itself.

    wall_ns: a steady clock [ns]. The times that callers pass are those of the node's clock.
    """

    def __init__(
        self,
        spec: RobotSpec,
        policy: Policy,
        policy_id: str,
        settings: ControlSettings | None = None,
        wall_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.spec = spec
        self.settings = settings or ControlSettings()
        self._wall_ns = wall_ns
        self.succession = Succession(policy, policy_id, self.settings)
        self._begin(Stops())

    def _begin(self, stops: Stops) -> None:
        self.statistics = LoopStatistics()
        self._stops = stops
        self._reader = SignalReader(self.spec)
        self._guard = ActionGuard(self.spec)
        self._schedule = TickSchedule(self.spec.period_ns)
        self._inputs = InputWatch(round(1e9 * self.settings.input_timeout_s))
        self._heartbeat = Heartbeat(self.settings.monitor_timeout_s, self.settings.require_monitor)
        self._memory = Memory(LONGEST_MEMORY, self.spec.obs_dim, self.spec.action_dim)
        self._unsettled: _Unsettled | None = None
        self._heard: set[str] = set()
        self._episode: str | None = None
        self._begins_ns: int | None = None
        self._last_ns: int | None = None

    def restart(self) -> None:
        """Forget sensors, memory, holds and counters, for the moment before the first tick.

        The policy stays, with its probation, and so does a stop that the cost monitor still asks for.
        """
        self.succession.begin()
        self._begin(Stops(self._stops.monitor_stops))

    # -- what comes in ---------------------------------------------------------------------------------------------

    @property
    def policy_id(self) -> str:
        """Id of the policy in the slot."""
        return self.succession.slot.policy_id

    @property
    def checks_ranges(self) -> bool:
        """Whether observations are compared with the training data of the policy in the slot."""
        return self.succession.slot.check is not None

    @property
    def blend(self) -> float:
        """How much of the next action is the newest policy's, in (0, 1]."""
        return self.succession.slot.share(self.statistics.ticks + 1)

    @property
    def hears_monitor(self) -> bool:
        """Whether the cost monitor has spoken since the loop began."""
        return self._heartbeat.heard

    @property
    def stop_reason(self) -> str:
        """Why a stop is latched, empty where none is."""
        return self._stops.stopped

    def ages(self, now_ns: int) -> dict[str, float]:
        """Return the age of the newest value of each signal that is read from a topic [s], NaN where none came yet."""
        return self._reader.ages(now_ns)

    def update(self, topic: str, message: object, received_ns: int) -> None:
        """Take a message of a sensor topic or the episode marker, received at ROS time [ns]."""
        if topic in self._reader.topics and self._reader.update(topic, message, received_ns):
            self._heard.add(topic)
        marker = self.spec.episode.marker
        if marker is not None and topic == marker.topic:
            episode = str(self.spec.path(marker.field).get(message))
            if episode != self._episode:
                self._episode, self._begins_ns = episode, stamp_of(message, received_ns)

    def take_cost(self, policy_id: str, episode: int, step: int, cost: float, confirmed: bool) -> None:
        """Take a status of the cost monitor: its heartbeat, and the account of one step; see `Probation.take_cost`."""
        self._heartbeat.beat(self._wall_ns())
        if self.succession.probation is not None:
            self.succession.probation.take_cost(policy_id, episode, step, cost, confirmed)

    def hold(self, reason: str) -> None:
        """Send the safe command until `resume`."""
        self._stops.hold(reason)

    def stop(self, reason: str) -> None:
        """Latch a stop until `resume`."""
        self._stops.stop(reason)

    def set_monitor_stop(self, stops: bool) -> None:
        """Take what the cost monitor asks for on `safety_stop`; a release does not re-arm by itself."""
        self._stops.set_monitor(stops)

    def resume(self) -> None:
        """Let the policy drive again.

        Raises:
            ResumeRefused: the cost monitor still asks for a stop, or has fallen silent.
        """
        if self._heartbeat.is_silent(self._wall_ns()):
            raise ResumeRefused(
                "the cost monitor is silent: start it first; to drive without it, deactivate and activate this node"
            )
        self._stops.resume()
        self._inputs.restart()

    def swap(
        self, policy: Policy, policy_id: str, blend_ticks: int = 0, probation: ProbationTerms | None = None
    ) -> str:
        """Exchange the policy; the next tick is the new one's first. Return the id of the old one.

        blend_ticks: how many ticks lead from the old one's actions to the new one's. probation: its terms, if any.
        """
        self._take_back()  # a policy that failed just now goes before its successor comes
        self.statistics.missed_since_swap = 0
        return self.succession.swap(policy, policy_id, self.statistics.ticks + 1, blend_ticks, probation)

    def _take_back(self) -> None:
        if hold := self.succession.take_back(self.statistics.ticks + 1):
            self._stops.hold(hold)

    # -- the tick --------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int, schedule_ns: int | None = None) -> Tick:
        """Return the command for the control period that begins now.

        Args:
            now_ns: time of the node's clock [ns], the one that messages are stamped with.
            schedule_ns: time of the clock that the tick timer follows [ns]; None: the same.
        """
        self.settle()
        begun_ns = self._wall_ns()
        statistics = self.statistics
        timing = self._schedule.tick(now_ns if schedule_ns is None else schedule_ns, begun_ns)
        self._notice_clock(now_ns, timing)
        self._take_back()
        reverted = self.succession.reported()
        statistics.ticks += 1
        self._stop_where_silent(begun_ns)
        statistics.starved_ticks += len(self._heard) < len(self._reader.topics)
        self._heard.clear()

        observation, trouble, warning = self._observe(now_ns)
        state, reason = self._state(trouble)
        command, action, inference_s = self.spec.safe_command(), None, 0.0
        if state is ControlState.RUNNING:
            try:
                action, inference_s = self._ask(observation)
                command, limited = self._guard.command(action)
                statistics.limited_ticks += limited
            except ActionRefused as error:
                state, reason, action = ControlState.STOPPED, self._refuse(error), None
        self._guard.sent(command)
        self._unsettled = _Unsettled(observation, command, action)

        compute_s = (self._wall_ns() - begun_ns) / 1e9
        passed = self._account(timing, compute_s, state is ControlState.RUNNING)
        return Tick(
            statistics.ticks, command, state, reason, warning, timing, inference_s, compute_s, reverted, passed
        )

    def settle(self) -> None:
        """Do what need not delay a command: let the shadow decide on what was seen, and remember the tick."""
        done, self._unsettled = self._unsettled, None
        if done is None:
            return
        shadow = self.succession.shadow
        if shadow is not None and not shadow.finished:
            if done.action is None:
                shadow.wait()
            else:
                shadow.compare(done.observation, self._memory, done.action)
        if done.observation is None:
            self._memory.clear()
        else:
            self._memory.add(done.observation[None], self.spec.normalise_action(done.command)[None])

    def _notice_clock(self, now_ns: int, timing: Timing) -> None:
        """After a jump nothing that was known about ages holds any more: wait for sensors of the new time."""
        set_back = self._last_ns is not None and now_ns < self._last_ns
        self._last_ns = now_ns
        if set_back or timing.jumped:
            self.statistics.clock_jumps += 1
            self._reader.forget_after(now_ns)
            self._memory.clear()
            self._inputs.restart()
            if self._begins_ns is not None and jumped_back(now_ns, self._begins_ns):
                self._begins_ns = None  # an episode of the old time

    def _stop_where_silent(self, wall_ns: int) -> None:
        if silence := self._heartbeat.tick(wall_ns):
            self._stops.stop(silence)

    def _observe(self, now_ns: int) -> tuple[np.ndarray | None, str, str]:
        """Return the newest observation (obs_dim,), what forbids to drive on it, and what is odd about it."""
        if self._begins_ns is not None and (self._reader.stamp() or 0) >= self._begins_ns:
            self._begins_ns = None
            self._memory.clear()
        try:
            observation = self.spec.observe(self._reader.physical(now_ns))
        except InputError as error:
            self.statistics.stale_ticks += 1
            if self._inputs.unusable(now_ns):
                self._stops.stop(str(error))
            return None, str(error), ""
        check = self.succession.slot.check
        outside = () if check is None else check.outside(observation)
        if outside:
            self.statistics.ood_ticks += 1
            odd = check.explain(observation, outside, self.spec.feature_names)
            if self.settings.ood == "hold":
                if self._inputs.unusable(now_ns):
                    self._stops.hold(odd)
                return observation, odd, odd
            self._inputs.usable()
            return observation, "", odd
        self._inputs.usable()
        return observation, "", ""

    def _state(self, trouble: str) -> tuple[ControlState, str]:
        if self._stops.stopped:
            return ControlState.STOPPED, self._stops.stopped
        if self._stops.held:
            return ControlState.HOLDING, self._stops.held
        if self.succession.probation is not None:
            trouble = trouble or self.succession.probation.wait_reason
        if trouble:
            return ControlState.WAITING, trouble
        return ControlState.RUNNING, ""

    def _ask(self, observation: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the policy's action (action_dim,) and how long it took [s]; raises ActionRefused."""
        begun_ns = self._wall_ns()
        try:
            answer = self.succession.slot.act(observation, self._memory, self.statistics.ticks)
        except Exception as error:  # whatever a policy raises, the robot gets its safe command in this tick
            raise ActionRefused(f"expected an action, found {type(error).__name__}: {error}") from error
        finally:
            seconds = (self._wall_ns() - begun_ns) / 1e9
            self.statistics.count_inference(seconds)
        return self._guard.checked(answer), seconds

    def _refuse(self, error: ActionRefused) -> str:
        """Deal with an action that is none; on probation the policy goes, else the robot stops for good."""
        self.statistics.refused_actions += 1
        reason = f"policy {self.policy_id[:12]}: {error}"
        if self.succession.probation is not None:
            self.succession.probation.fail(str(error))
        else:
            self._stops.stop(reason)
        return reason

    def _account(self, timing: Timing, compute_s: float, drove: bool) -> str:
        """Count a tick; return the id of a policy that has passed its probation with it, else nothing."""
        statistics = self.statistics
        overran = timing.missed > 0 or compute_s * self.spec.rate_hz > 1.0
        statistics.missed_ticks += timing.missed
        statistics.missed_since_swap += timing.missed
        statistics.overruns += overran
        statistics.count_lateness(timing.lateness_s)
        statistics.count_compute(compute_s)
        return self.succession.count(drove, overran)
