"""Fills `policy_status` from the control loop; one message object serves all ticks.

    status = PolicyStatusWriter(spec)
    publisher.publish(status.of(controller, tick, stamp))
"""

from __future__ import annotations

from builtin_interfaces.msg import Time

from saferule.msg import PolicyStatus
from saferule_core.control import Controller, ControlState, Tick
from saferule_core.spec import RobotSpec

_STATES = {
    ControlState.RUNNING: PolicyStatus.STATE_RUNNING,
    ControlState.HOLDING: PolicyStatus.STATE_HOLDING,
    ControlState.STOPPED: PolicyStatus.STATE_STOPPED,
    ControlState.WAITING: PolicyStatus.STATE_WAITING,
}


class PolicyStatusWriter:
    """Writes the same message again and again: publishing copies it."""

    def __init__(self, spec: RobotSpec) -> None:
        names = [signal.name for signal in spec.source_signals()]
        self._message = PolicyStatus(spec_hash=spec.hash, input_names=names, input_ages=[float("nan")] * len(names))
        self._period_s = 1.0 / spec.rate_hz

    def of(self, controller: Controller, tick: Tick, now_ns: int, stamp: Time) -> PolicyStatus:
        """Return the status after a tick at `now_ns` of the node's clock [ns]."""
        message = self._message
        message.state, message.message = _STATES[tick.state], tick.reason or tick.warning
        message.lateness, message.interval = tick.timing.lateness_s, tick.timing.interval_s
        message.compute, message.inference = tick.compute_s, tick.inference_s
        ages = controller.ages(now_ns)
        message.input_ages = [ages[name] for name in message.input_names]
        return self._filled(controller, stamp)

    def inactive(self, controller: Controller, stamp: Time) -> PolicyStatus:
        """Return the status of a node that has been deactivated."""
        message = self._message
        message.state, message.message = PolicyStatus.STATE_INACTIVE, "deactivated"
        message.lateness = message.interval = message.compute = message.inference = 0.0
        return self._filled(controller, stamp)

    def _filled(self, controller: Controller, stamp: Time) -> PolicyStatus:
        message, statistics = self._message, controller.statistics
        message.header.stamp = stamp
        message.policy_id = controller.policy_id
        message.ticks, message.missed_ticks = statistics.ticks, statistics.missed_ticks
        message.overruns, message.clock_jumps = statistics.overruns, statistics.clock_jumps
        message.worst_lateness, message.lateness_histogram = statistics.worst_lateness_s, statistics.lateness.counts
        message.worst_compute, message.worst_tick = statistics.worst_compute_s, statistics.worst_tick
        message.mean_inference, message.worst_inference = statistics.mean_inference_s, statistics.worst_inference_s
        message.stale_ticks, message.starved_ticks = statistics.stale_ticks, statistics.starved_ticks
        message.ood_ticks, message.limited_ticks = statistics.ood_ticks, statistics.limited_ticks
        message.refused_actions = statistics.refused_actions
        policies = controller.succession
        message.swaps, message.last_swap_tick = policies.swaps, policies.last_swap_tick
        message.last_swap_duration = policies.last_swap_duration_s
        message.missed_since_swap, message.blend = statistics.missed_since_swap, controller.blend
        message.reverts, message.rejected_id = policies.reverts, policies.rejected_id
        shadow, probation = policies.shadow, policies.probation
        message.shadow_id = "" if shadow is None else shadow.policy_id
        message.shadow_ticks = 0 if shadow is None else shadow.compared
        message.shadow_difference = 0.0 if shadow is None else shadow.difference
        message.shadow_worst = 0.0 if shadow is None else shadow.worst
        message.probation_id = "" if probation is None else probation.policy_id
        message.probation_left = 0.0 if probation is None else probation.ticks_left * self._period_s
        return message
