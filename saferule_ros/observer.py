"""Watches a running robot from outside: what it costs, earns, where it drives, and how its control loop keeps time.

    observer = Observer(node, spec)
    ...                                        # the node spins
    observer.completed_episodes(policy_id)     # whole episodes driven by one policy
    observer.series()                          # everything, for the report
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rclpy.node import Node
from std_msgs.msg import UInt64

from saferule.msg import CostStatus, PolicyStatus
from saferule_core.errors import InputError
from saferule_core.signals import SignalReader
from saferule_core.spec import RobotSpec
from saferule_core.validation.report_data import LiveSeries, SwapMark
from saferule_ros.messages import LATCHED, SENSOR, STATUS, message_class

AROUND_SWAP = 50
"""Control ticks before and after the swap that the timing figures are about."""

_COLUMNS = ("time", "episode", "cost", "reward", "x", "y")


@dataclass
class Row:
    """One control tick as seen from outside; time [s], position [m]."""

    time: float
    episode: int
    cost: float
    reward: float
    x: float
    y: float
    policy_id: str


@dataclass(frozen=True)
class DrivenEpisode:
    """One whole episode of one policy."""

    policy_id: str
    cost: float
    reward: float


def missed_near(counts: Sequence[tuple[int, int]], tick: int, distance: int) -> tuple[int, int]:
    """Return how many commands were missed within `distance` ticks of `tick`, and the most in as many ticks elsewhere.

    counts: (tick, commands missed so far), each time that the number rose; what was missed before the first tick does
    not count.
    """
    totals = [0, *(missed for _, missed in counts)]
    rises = [(at, after - before) for (at, after), before in zip(counts, totals, strict=False)]
    rises = [(at, rise) for at, rise in rises if at > 0]
    near = sum(rise for at, rise in rises if abs(at - tick) <= distance)
    others = [(at, rise) for at, rise in rises if abs(at - tick) > distance]
    within = [sum(rise for at, rise in others if first <= at <= first + 2 * distance) for first, _ in others]
    return near, max(within, default=0)


class Observer:
    """Collects from `cost_status`, `policy_status`, the sensors and the reward topic; thread-safe to read."""

    def __init__(self, node: Node, spec: RobotSpec) -> None:
        self._node, self._spec = node, spec
        self._lock = threading.Lock()
        self._reader = SignalReader(spec)
        self._reward = 0.0
        self._rows: list[Row] = []
        self._swaps: list[SwapMark] = []
        self._statuses: list[PolicyStatus] = []
        self._confirmed: set[str] = set()
        self._robot_missed: list[tuple[int, int]] = []
        node.create_subscription(CostStatus, "cost_status", self._on_cost, STATUS)
        node.create_subscription(PolicyStatus, "policy_status", self._on_policy, STATUS)
        node.create_subscription(UInt64, "sim_robot/missed_commands", self._on_missed, LATCHED)
        for topic, kind in spec.sensor_topics.items():
            node.create_subscription(message_class(kind), topic, self._on_sensor(topic), SENSOR)
        if spec.reward.topic is not None:
            kind = message_class(spec.reward.topic.type)
            node.create_subscription(kind, spec.reward.topic.topic, self._on_reward, STATUS)

    def series(self) -> LiveSeries:
        """Return all ticks so far."""
        with self._lock:
            rows, swaps = list(self._rows), tuple(self._swaps)
        return LiveSeries(
            **{name: tuple(getattr(row, name) for row in rows) for name in _COLUMNS},
            swaps=swaps,
        )

    def completed_episodes(self, policy_id: str) -> list[DrivenEpisode]:
        """Return the whole episodes that one policy drove alone."""
        with self._lock:
            rows = list(self._rows)
        episodes: dict[int, list[Row]] = {}
        for row in rows:
            episodes.setdefault(row.episode, []).append(row)
        whole = list(episodes.values())[1:-1]
        return [
            DrivenEpisode(policy_id, sum(row.cost for row in ticks), sum(row.reward for row in ticks))
            for ticks in whole
            if {row.policy_id for row in ticks} == {policy_id}
        ]

    def statuses(self) -> list[PolicyStatus]:
        """Return what the executor said, tick by tick."""
        with self._lock:
            return list(self._statuses)

    def stop_reason(self) -> str:
        """Return why the executor has stopped or holds the robot, empty where it does neither."""
        with self._lock:
            newest = self._statuses[-1] if self._statuses else PolicyStatus()
        return newest.message if newest.state in (PolicyStatus.STATE_STOPPED, PolicyStatus.STATE_HOLDING) else ""

    def policy_id(self) -> str:
        """Return the policy that drives, empty while unknown."""
        with self._lock:
            return self._statuses[-1].policy_id if self._statuses else ""

    def confirmed(self, policy_id: str) -> bool:
        """Say whether the cost monitor ever confirmed that a policy breaks its limit."""
        with self._lock:
            return policy_id in self._confirmed

    def timing_around_swap(self) -> dict[str, float]:
        """Return how the control loop kept time in the `AROUND_SWAP` ticks on either side of the last swap.

        missed_ticks_...: control periods without a command, counted by the executor in ROS time.
        missed_commands_...: commands that the robot waited for in vain, by its own count; ..._elsewhere: the most in as
        many ticks of the same run that lie farther from the swap.
        worst_interval_...: longest wall time between two ticks [s]; typical_interval: median of all [s].
        """
        statuses = self.statuses()
        swapped = [status for status in statuses if status.swaps > 0]
        if not swapped:
            return {}
        tick = swapped[-1].last_swap_tick
        near = [status for status in statuses if abs(int(status.ticks) - int(tick)) <= AROUND_SWAP]
        with self._lock:
            counts = list(self._robot_missed)
        around, elsewhere = missed_near(counts, int(tick), AROUND_SWAP)
        return {
            "swap_tick": tick,
            "swap_duration_s": swapped[-1].last_swap_duration,
            "missed_ticks_around_swap": near[-1].missed_ticks - near[0].missed_ticks,
            "missed_commands_around_swap": around,
            "missed_commands_elsewhere": elsewhere,
            "missed_ticks": statuses[-1].missed_ticks,
            "missed_commands": counts[-1][1] if counts else 0,
            "ticks": statuses[-1].ticks,
            "worst_interval_around_swap_s": max(status.interval for status in near[1:]),
            "typical_interval_s": median(status.interval for status in statuses[1:]),
        }

    def _on_sensor(self, topic: str) -> object:
        return lambda message: self._reader.update(topic, message, self._node.get_clock().now().nanoseconds)

    def _on_reward(self, message: object) -> None:
        self._reward += float(self._spec.path(self._spec.reward.topic.field).get(message))

    def _on_missed(self, message: UInt64) -> None:
        with self._lock:
            ticks = self._statuses[-1].ticks if self._statuses else 0
            self._robot_missed.append((ticks, int(message.data)))

    def _on_cost(self, status: CostStatus) -> None:
        reward, self._reward = self._reward, 0.0
        if status.state in (CostStatus.STATE_WAITING, CostStatus.STATE_STALE):
            return
        try:
            physical = self._reader.physical(None)
        except InputError:
            return
        time = status.header.stamp.sec + status.header.stamp.nanosec * 1e-9
        if status.violation_confirmed:
            self._confirmed.add(status.policy_id)
        x, y = physical.get("x", float("nan")), physical.get("y", float("nan"))
        with self._lock:
            self._rows.append(Row(time, status.episode, status.cost, reward, x, y, status.policy_id))

    def _on_policy(self, status: PolicyStatus) -> None:
        with self._lock:
            before = self._statuses[-1] if self._statuses else None
            self._statuses.append(status)
            if before is not None and status.swaps > before.swaps:
                time = status.header.stamp.sec + status.header.stamp.nanosec * 1e-9
                self._swaps.append(SwapMark(time, f"swap to {status.policy_id[:8]}"))
