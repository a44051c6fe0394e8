"""What the control loop measures of itself.

    statistics = LoopStatistics()
    statistics.lateness.add(0.0004)
    statistics.lateness.counts          # one count per bin of LATENESS_EDGES_S
    statistics.summary()                # two lines for the log, at deactivation
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

LATENESS_EDGES_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Edges of the lateness histogram [s]; PolicyStatus.msg documents the same."""


class Histogram:
    """Counts values in fixed bins: below the first edge, from each edge up to the next, and from the last one on."""

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = tuple(edges)
        self.counts = [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        """Count a value; one that lies on an edge belongs to the bin above it."""
        self.counts[bisect_right(self.edges, value)] += 1

    def quantile_bound(self, share: float) -> float:
        """Return an edge below which at least `share` of the values are, infinity where there is none."""
        needed, seen = share * sum(self.counts), 0
        for edge, count in zip(self.edges, self.counts, strict=False):
            seen += count
            if seen >= needed:
                return edge
        return float("inf")


@dataclass
class LoopStatistics:
    """Counters since the loop began.

    Lateness is on the timer's clock, the other times are wall [s]. An overrun is a tick that took longer than a control
    period, or that came after a period without one. starved_ticks: ticks without a new message of some topic since the
    tick before. stale_ticks: ticks without a usable observation. limited_ticks: ticks in which bounds or rate limits
    changed what the policy wanted. refused_actions: ticks in which the policy failed or gave no finite action.
    ood_ticks: ticks with an observation beyond the training data's ranges. worst_tick: number of the tick that took
    longest.
    """

    ticks: int = 0
    missed_ticks: int = 0
    overruns: int = 0
    stale_ticks: int = 0
    starved_ticks: int = 0
    limited_ticks: int = 0
    refused_actions: int = 0
    ood_ticks: int = 0
    clock_jumps: int = 0
    lateness: Histogram = field(default_factory=lambda: Histogram(LATENESS_EDGES_S))
    worst_lateness_s: float = 0.0
    worst_compute_s: float = 0.0
    worst_tick: int = 0
    inferences: int = 0
    inference_sum_s: float = 0.0
    worst_inference_s: float = 0.0
    missed_since_swap: int = 0

    @property
    def mean_inference_s(self) -> float:
        """Mean wall time of an answer of the policy [s], 0 before the first one."""
        return self.inference_sum_s / self.inferences if self.inferences else 0.0

    def count_inference(self, seconds: float) -> None:
        """Take the wall time of one answer of the policy [s]."""
        self.inferences += 1
        self.inference_sum_s += seconds
        self.worst_inference_s = max(self.worst_inference_s, seconds)

    def count_lateness(self, seconds: float) -> None:
        """Take the lateness of one tick [s]."""
        self.lateness.add(seconds)
        self.worst_lateness_s = max(self.worst_lateness_s, seconds)

    def count_compute(self, seconds: float) -> None:
        """Take how long the newest tick took [s]."""
        if seconds > self.worst_compute_s:
            self.worst_compute_s, self.worst_tick = seconds, self.ticks

    def summary(self) -> str:
        """Return what an operator wants to know when the loop ends."""
        return (
            f"{self.ticks} ticks: {self.missed_ticks} periods missed, {self.overruns} overruns, 99 % of ticks less "
            f"than {1e3 * self.lateness.quantile_bound(0.99):g} ms late, worst {1e3 * self.worst_lateness_s:.3f} ms; "
            f"worst tick {self.worst_tick} took {1e3 * self.worst_compute_s:.3f} ms; inference "
            f"{1e3 * self.mean_inference_s:.3f} ms on average, {1e3 * self.worst_inference_s:.3f} ms at worst\n"
            f"inputs: {self.stale_ticks} ticks without usable ones, {self.starved_ticks} without a new one of some "
            f"topic, {self.ood_ticks} beyond the training data; actions: {self.limited_ticks} limited, "
            f"{self.refused_actions} refused; {self.clock_jumps} jumps of the clock"
        )
