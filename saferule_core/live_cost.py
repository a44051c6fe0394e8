"""The safety cost of a driving robot, from its live topics: what the cost monitor does, without ROS.

    watch = CostWatch(spec, window=20, alpha=0.05, latch_stop=True)
    watch.update("odom", message, received_ns)          # sensors, commands and episode marker alike
    watch.set_policy(policy_id, stamp_ns)
    report = watch.tick(now_ns)                         # once per control period; report.stop, report.notices

What is known of a state is a sum of costs, a level (`cost_levels`) and the margin to each bound (`margins`).
Topics arrive in any order, so everything is put in its place by time: a marker counts from the first state that is
not older than it, a command and a policy from the first state after them (they only lead to that one).
After the clock was set back, states of the new time are waited for, and what was announced counts from then on.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from saferule_core.cost_levels import CostState, Evidence, Level, LevelJudge, Limits, SlidingCost
from saferule_core.errors import DataError, InputError
from saferule_core.margins import Margins
from saferule_core.monitoring import CostMeter, CostReading
from saferule_core.signals import SignalReader, read_commands, stamp_of
from saferule_core.spec import RobotSpec

NO_MORE_LIMITS = Limits()
"""The budget per episode of the description, and no sliding window."""

COMMANDS_KEPT = 32
"""Commands per topic that may arrive before the state that they lead to."""

STALE_TICKS = 3
"""Ticks without a state to judge that have to go by before blindness counts: neither a stall nor a jump ahead does."""

FINE_AFTER_EPISODES = 3
"""Whole episodes within the limit after which a policy that follows a dangerous one is said to be fine."""


@dataclass(frozen=True)
class Notice:
    """One line for the log; `warning` or information."""

    text: str
    warning: bool


@dataclass(frozen=True)
class CostReport:
    """What is known after a tick.

    stamp_ns: ROS time of the state that was judged last [ns], 0 before the first. reason: why the state is what it is,
    empty where it is OK.
    episode, step: from 0; with an episode marker step 0 is the state that an episode begins with, which costs nothing.
    cost: charged at this tick, 0.0 where no new state came. constraints: the same, per constraint.
    mean_episode_cost: NaN before the first completed episode. stop: the robot has to stop until `reset_stop`.
    margins: what is left to each bound, negative beyond it, NaN where that is not known.
    window_cost: cost of the sliding window, 0.0 where there is none. broken: why a limit counts as broken from this
    tick on, else empty.
    """

    state: CostState
    reason: str
    stamp_ns: int
    policy_id: str
    episode: int
    step: int
    cost: float
    episode_cost: float
    limit: float
    completed_episodes: int
    mean_episode_cost: float
    evidence: float
    violation_confirmed: bool
    stop: bool
    constraints: dict[str, float]
    margins: dict[str, float]
    window_cost: float
    broken: str
    notices: tuple[Notice, ...]


class CostWatch:
    """Judges each new sensor state once, by the constraints of the description; single-threaded.

    A change of policy starts the evidence anew. The running episode, driven in part by the old policy, is shown in
    full but neither judged nor held against the new one: only what it costs from then on counts against the limit.
    A stop, once latched, outlives episodes and policies. `reset_stop` releases it and gives the running episode a
    fresh budget, because the operator has seen what it has cost. Besides a budget that is spent, blindness stops the
    robot: states were judged before, and then none could be for longer than `stale_timeout_s`.

    Attributes:
        unseen_states: control periods whose state never came or came too late to be judged.

    Args:
        window: completed episodes that the mean is over. alpha: highest probability of a false alarm.
        latch_stop: ask for a stop when a budget is spent, of an episode or of the window, and when no state can be
        judged for longer than `stale_timeout_s` [s], 0: never. stopped: a stop is already latched. limits: the window's
        budget, what is close, and how levels are debounced.

    Raises:
        DataError: window or alpha is out of range.
    """

    def __init__(
        self,
        spec: RobotSpec,
        window: int = 20,
        alpha: float = 0.05,
        latch_stop: bool = True,
        stopped: bool = False,
        limits: Limits = NO_MORE_LIMITS,
        stale_timeout_s: float = 0.0,
    ) -> None:
        names = [constraint.name for constraint in spec.cost.constraints]
        largest = float(len(names)) if spec.cost.combine == "sum" else 1.0
        self._spec, self._latch_stop, self._alpha = spec, latch_stop, alpha
        self._meter = CostMeter(spec.cost.limit, spec.episode.max_steps, largest, window, alpha)
        self._reader = SignalReader(spec)
        self._received: dict[str, int] = {}
        self._stamped: dict[str, int] = {}
        self._commands = {topic: deque(maxlen=COMMANDS_KEPT) for topic in spec.command_topics}
        self._markers: deque[tuple[int, str]] = deque()
        self._policies: deque[tuple[int, str]] = deque()
        self._nothing = dict.fromkeys(names, 0.0)
        self._limits, self._judge_level = limits, LevelJudge(limits)
        self._window = SlidingCost(limits.window_s)
        self._margins, self._no_margins = Margins(spec), dict.fromkeys(names, math.nan)
        self._level: Level | None = None
        self._left = self._no_margins
        self._marker: str | None = None
        self._policy = self._announced_policy = ""
        self._previous: dict[str, float] | None = None
        self._new_state = self._at_start = False
        self._judged_ns = self._last_ns = 0
        self._stale_timeout_ns = round(1e9 * stale_timeout_s)
        self._stale_since_ns = self._stale_ticks = 0
        self._reading: CostReading | None = None
        self._forgiven = 0.0
        self._warned_episode = -1
        self._confirmed = self._recovering = False
        self.stopped = stopped
        self.unseen_states = 0

    def update(self, topic: str, message: object, received_ns: int) -> None:
        """Take a message of a sensor topic, a command topic or the episode marker, received at ROS time [ns].

        Raises:
            SpecError: the message lacks a field that the description names.
        """
        stamp = stamp_of(message, received_ns)
        if topic in self._reader.topics and self._reader.update(topic, message, received_ns):
            self._new_state |= self._received.get(topic) != stamp
            self._received[topic] = stamp
            if stamp_of(message, 0):
                self._stamped[topic] = stamp
        if topic in self._commands:
            self._commands[topic].append((stamp, read_commands(self._spec, topic, message)))
        marker = self._spec.episode.marker
        if marker is not None and topic == marker.topic:
            self._markers.append((stamp, str(self._spec.path(marker.field).get(message))))

    def set_policy(self, policy_id: str, stamp_ns: int) -> None:
        """Say which policy chose the command at ROS time `stamp_ns` [ns]."""
        if policy_id != self._announced_policy:
            self._announced_policy = policy_id
            self._policies.append((stamp_ns, policy_id))

    def reset_stop(self) -> bool:
        """Release the stop; return whether there was one."""
        was_stopped, self.stopped = self.stopped, False
        self._forgiven = self._reading.charged if self._reading is not None else 0.0
        self._window.clear()
        self._stale_ticks = 0
        return was_stopped

    def tick(self, now_ns: int) -> CostReport:
        """Judge the newest state at ROS time `now_ns` [ns]; a state is never charged twice."""
        self._notice_clock(now_ns)
        try:
            physical = self._reader.physical(now_ns)
            report = self._judge(physical, now_ns) if self._new_state else self._report(self._nothing)
        except (InputError, DataError) as error:
            return self._report(self._nothing, unknown=str(error), notices=self._stop_where_blind(str(error), now_ns))
        self._stale_ticks = 0
        return report

    def _notice_clock(self, now_ns: int) -> None:
        """After the clock was set back no age of the old time means anything: forget it, as the executor does."""
        set_back, self._last_ns = now_ns < self._last_ns, now_ns
        if not set_back:
            return
        self._stale_ticks = 0
        self._reader.forget_after(now_ns)
        for known in (self._received, self._stamped):
            for topic in [topic for topic, stamp in known.items() if stamp > now_ns]:
                del known[topic]
        for pending in (self._markers, self._policies, *self._commands.values()):
            dated = [(min(stamp, now_ns), announced) for stamp, announced in pending]
            pending.clear()
            pending.extend(dated)

    def _stop_where_blind(self, why: str, now_ns: int) -> tuple[Notice, ...]:
        """Latch the stop where states were judged, but none could be for too long."""
        if not self._stale_ticks:
            self._stale_since_ns = now_ns
        self._stale_ticks += 1
        lasted = self._stale_ticks >= STALE_TICKS and now_ns - self._stale_since_ns > self._stale_timeout_ns > 0
        if not lasted or self._reading is None or self.stopped or not self._latch_stop:
            return ()
        self.stopped = True
        return (Notice(f"not judged for {self._stale_timeout_ns / 1e9:g} s: {why}; stopping the robot", True),)

    def _judge(self, physical: dict[str, float], now_ns: int) -> CostReport:
        state_ns = max(self._stamped.values()) if self._stamped else now_ns
        self._new_state = False
        if self._judged_ns:
            self.unseen_states += max(0, round((state_ns - self._judged_ns) / self._spec.period_ns) - 1)
        self._judged_ns = state_ns
        undriven = self._at_start
        begins = self._take_marker(state_ns)
        if self._take_policy(state_ns):
            self._recovering |= self._confirmed
            self._meter.restart(running_is_whole=undriven)
            self._forgiven, self._warned_episode, self._confirmed = 0.0, -1, False
            self._window.clear()
            self._level, self._judge_level = None, LevelJudge(self._limits)
        elif self._reading is None:
            self._meter.restart(running_is_whole=self._at_start)
        command, previous = self._command_before(state_ns), None if begins else self._previous
        constraints = self._nothing
        if previous is not None:
            values = self._spec.costs(physical, previous, command)
            constraints = {name: float(value) for name, value in values.items()}
        self._previous = physical
        reading = self._meter.tick(float(self._spec.combine_costs(constraints)), self._marker)
        if self._reading is None or reading.episode != self._reading.episode:
            self._forgiven = 0.0
        self._reading = reading
        self._window.add(state_ns, reading.cost)
        self._left = {k: float(v) for k, v in self._margins.physical(physical, previous, command).items()}
        before, was_stopped = self._level, self.stopped
        self._level = self._judge_level.judge(self._evidence(self._margins.shares(physical, previous, command)))
        notices = self._notices(reading, self._level.stop and self._latch_stop)
        rose = self._level.state is CostState.VIOLATED and (before is None or before.state is not CostState.VIOLATED)
        broken = self._level.reason if rose else notices[0].text if self.stopped and not was_stopped else ""
        return self._report(constraints, cost=reading.cost, broken=broken, notices=notices)

    def _evidence(self, shares: dict[str, float]) -> Evidence:
        """Return what speaks for and against the state that was accounted last."""
        reading, limit, limits = self._reading, self._meter.limit, self._limits
        budgets = [(reading.charged - self._forgiven, limit)]
        violated = f"the mean episode cost exceeds the limit {limit:g}" if reading.violation_confirmed else ""
        if limits.window_s > 0.0:
            budgets.append((self._window.total, limits.window_limit))
            if self._window.total > limits.window_limit:
                violated = self._window_text()
        if reading.over_limit:
            violated = f"this episode has cost {reading.charged:g} of {limit:g}"
        spent = any(cost > budget for cost, budget in budgets)
        share = max((cost / budget for cost, budget in budgets if budget > 0.0), default=0.0)
        return Evidence(violated, spent, share, self._left, shares)

    def _take_marker(self, state_ns: int) -> bool:
        """Return whether the state at `state_ns` is the first one seen of an episode."""
        before, stamp = self._marker, 0
        while self._markers and self._markers[0][0] <= state_ns:
            stamp, self._marker = self._markers.popleft()
        self._at_start = self._marker != before and stamp > state_ns - self._spec.period_ns
        return self._marker != before

    def _take_policy(self, state_ns: int) -> bool:
        """Return whether another policy than before led to the state at `state_ns`."""
        changed = False
        while self._policies and self._policies[0][0] < state_ns:
            self._policy = self._policies.popleft()[1]
            changed = True
        return changed

    def _command_before(self, state_ns: int) -> dict[str, float]:
        """Return the command that led to the state at `state_ns`: the newest before it, else the safe one."""
        command = self._spec.safe_command()
        for sent in self._commands.values():
            while len(sent) > 1 and sent[1][0] < state_ns:
                sent.popleft()
            if sent and sent[0][0] < state_ns:
                command.update(sent[0][1])
        return command

    def _notices(self, reading: CostReading, spent: bool) -> tuple[Notice, ...]:
        """Latch the stop where a budget is `spent` for long enough, and say what is new."""
        notices = []
        limit, who = self._meter.limit, f"policy {self._policy[:12] or 'unknown'}"
        stops, self.stopped = spent and not self.stopped, self.stopped or spent
        if reading.over_limit and self._warned_episode != reading.episode:
            self._warned_episode = reading.episode
            text = f"{who}: episode {reading.episode - 1} has cost {reading.charged:g}, its limit is {limit:g}"
            goes_on = "it drives on" if not self.stopped else "stopping the robot" if stops else "it is stopped"
            notices.append(Notice(f"{text}; {goes_on}", True))
        elif stops:
            window = self._limits.window_s > 0.0 and self._window.total > self._limits.window_limit
            why = self._window_text() if window else "the budget after the last reset is spent"
            notices.append(Notice(f"{who}: {why}; stopping the robot", True))
        if reading.violation_confirmed and not self._confirmed:
            self._confirmed, self._recovering = True, False
            text = f"{who}: its mean episode cost exceeds the limit {limit:g}"
            notices.append(Notice(f"{text} (evidence {reading.evidence:.3g}, alpha {self._alpha:g})", True))
        fine = reading.completed_episodes >= FINE_AFTER_EPISODES and reading.mean_episode_cost <= limit
        if self._recovering and fine and not reading.violation_confirmed:
            self._recovering = False
            text = f"{who}: within the limit again, {reading.mean_episode_cost:.3g} of {limit:g} per episode"
            notices.append(Notice(f"{text} in {reading.completed_episodes} episodes", False))
        return tuple(notices)

    def _window_text(self) -> str:
        limits = self._limits
        return f"the last {limits.window_s:g} s cost {self._window.total:g} of {limits.window_limit:g}"

    def _report(
        self,
        constraints: dict[str, float],
        *,
        cost: float = 0.0,
        unknown: str = "",
        broken: str = "",
        notices: tuple[Notice, ...] = (),
    ) -> CostReport:
        """Return the report of a tick; `unknown`: why the newest state could not be judged."""
        reading, level, first_step = self._reading, self._level, 0 if self._marker is None else 1
        if level is None:
            state, reason = CostState.WAITING, unknown
        elif unknown:
            state, reason = CostState.STALE, unknown
        else:
            state, reason = level.state, level.reason
        return CostReport(
            state=state,
            reason=reason,
            stamp_ns=self._judged_ns,
            policy_id=self._policy,
            episode=reading.episode - 1 if reading else 0,
            step=reading.step - first_step if reading else 0,
            cost=cost,
            episode_cost=reading.episode_cost if reading else 0.0,
            limit=self._meter.limit,
            completed_episodes=reading.completed_episodes if reading else 0,
            mean_episode_cost=reading.mean_episode_cost if reading and reading.completed_episodes else math.nan,
            evidence=reading.evidence if reading else 1.0,
            violation_confirmed=reading.violation_confirmed if reading else False,
            stop=self.stopped,
            constraints=constraints,
            margins=self._no_margins if unknown else self._left,
            window_cost=self._window.total if self._limits.window_s > 0.0 else 0.0,
            broken=broken,
            notices=notices,
        )
