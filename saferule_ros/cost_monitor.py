"""cost_monitor: watches the safety cost of the running policy, and asks for a stop when its budget is spent.

    ros2 run saferule cost_monitor --ros-args -p spec:=robot.yaml -p latch_stop:=true
    ros2 service call /cost_monitor/reset_stop std_srvs/srv/Trigger

Every control period it judges the newest sensors (`saferule_core.live_cost`), publishes `cost_status` and, where
something happens, `safety_stop` (latched) and a line in the log. /diagnostics tells the same once per second; the stop
does not depend on it. A latched stop outlives deactivation: only `~/reset_stop` releases it. Periods are those of a
steady clock, so that setting the machine's clock does not stop them; under `use_sim_time` they follow ROS time.

When a limit is broken it asks the flight recorder for a snapshot and, with `on_violation:=propose` or `start`,
publishes a request on `unlearn_proposal`, or also starts it: to unlearn the bags that are marked as not trusted in
`suspect_bags` (which may be set while it runs).
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import fields

from rclpy.clock import Clock, ClockType
from rclpy.time import Time
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from saferule.msg import CostStatus, PolicyStatus
from saferule_core.cost_levels import CostState, Limits
from saferule_core.errors import SpecError
from saferule_core.live_cost import CostReport, CostWatch
from saferule_core.proposals import Reaction
from saferule_core.signals import stamp_of
from saferule_ros.diagnostics import Diagnostics, Level, UnusableMessages
from saferule_ros.managed_node import SPEC_PARAMETER, ManagedNode, Parameter, run
from saferule_ros.messages import LATCHED, SENSOR, STATUS, message_class
from saferule_ros.violation_response import ViolationResponse

_STATES = {
    CostState.WAITING: CostStatus.STATE_WAITING,
    CostState.OK: CostStatus.STATE_OK,
    CostState.NEAR: CostStatus.STATE_NEAR,
    CostState.VIOLATED: CostStatus.STATE_VIOLATED,
    CostState.STALE: CostStatus.STATE_STALE,
}


class CostMonitor(ManagedNode):
    """Sensors, commands and policy_status in; cost_status, safety_stop and diagnostics out."""

    PARAMETERS = (
        SPEC_PARAMETER,
        Parameter("window", 20, "completed episodes that the mean episode cost is over", 1, 100_000),
        Parameter("latch_stop", True, "ask for a stop when a budget is spent or it is blind; else it only tells"),
        Parameter("stale_timeout", 0.5, "blindness until it asks for a stop [s ROS time], 0: never", 0.0, 1e6),
        Parameter("alpha", 0.05, "highest probability of confirming a violation that is none", 1e-9, 0.5),
        Parameter("window_s", 0.0, "length of the sliding window [s ROS time], 0: none", 0.0, 1e6),
        Parameter("window_limit", 0.0, "what the sliding window may cost", 0.0, 1e12),
        Parameter("near_share", 0.8, "share of a budget from which it counts as NEAR, 1: never", 0.0, 1.0),
        Parameter("near_margin", 0.0, "margin from which a bound is NEAR [units of the constraint]", 0.0, 1e12),
        Parameter("near_margin_share", 0.05, "margin from which a bound is NEAR, as a share of the bound", 0.0, 1.0),
        Parameter("trigger_ticks", 1, "judged states in a row for a level to rise, and for a stop", 1, 100_000),
        Parameter("release_ticks", 1, "judged states in a row for a level to fall", 1, 100_000),
        Parameter("recorder", "flight_recorder", "node to ask for a snapshot when a limit is broken, empty: none"),
        Parameter("on_violation", "none", "none, propose (publish an UnlearnRequest) or start (also start it)"),
        Parameter("suspect_bags", [""], "bags that are not trusted: what a proposal forgets"),
        Parameter("retain_bags", [""], "bags that are trusted: what a proposal keeps"),
        Parameter("proposal_swap", False, "true: a policy repaired by a proposal may take over the robot"),
        Parameter("diagnostics_hz", 1.0, "how often /diagnostics is published [Hz wall]", 0.01, 100.0),
    )

    def configure(self) -> None:
        """Read the description and connect; raises SpecError or DataError."""
        self._spec = spec = self.load_spec()
        reaction = self.choice("on_violation", Reaction)
        self._limits = Limits(**{field.name: self.parameter(field.name) for field in fields(Limits)})
        self._watch = self._make_watch(stopped=False)
        self._report: CostReport | None = None
        self._stop_reason = ""
        self._unusable = UnusableMessages(self)
        self._marker: tuple[object, int] | None = None
        self._ticks = self._ticks_before = self._unseen_before = self._unusable_before = 0
        self._status = self.create_publisher(CostStatus, "cost_status", STATUS)
        self._stop = self.create_publisher(Bool, "safety_stop", LATCHED)
        self._diagnostics = Diagnostics(self, "safety cost", spec.name)
        self._response = ViolationResponse(self, reaction, self.parameter("recorder"))
        self._subscriptions_made = self.subscribe_sensors(spec, self._on_message, SENSOR)
        for topic, kind in spec.command_topics.items() if spec.cost_needs_command else ():
            self._listen(topic, kind, self._on_message, SENSOR)
        if spec.episode.marker is not None:
            self._listen(spec.episode.marker.topic, spec.episode.marker.type, self._on_marker, self._marker_quality())
        self._subscriptions_made.append(
            self.create_subscription(PolicyStatus, "policy_status", self._on_policy, STATUS)
        )
        self._service = self.create_service(Trigger, "~/reset_stop", self._on_reset)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._slow_timer = self.create_timer(1.0 / self.parameter("diagnostics_hz"), self._on_diagnostics, clock=steady)
        self._timer = None
        self._stop.publish(Bool(data=False))
        self.get_logger().info(f"{spec.name}: an episode may cost {spec.cost.limit:g}")

    def activate(self) -> None:
        """Begin to judge; what was seen before is forgotten, but for a latched stop and the running episode's name."""
        self._watch = self._make_watch(stopped=self._watch.stopped)
        self._unusable = UnusableMessages(self)
        if self._marker is not None:
            self._take(self._spec.episode.marker.topic, *self._marker)
        self._report = None
        self._ticks = self._ticks_before = self._unseen_before = self._unusable_before = 0
        gc.collect()
        gc.freeze()  # what is loaded stays: the collector need not look at it during a tick
        self._timer = self.create_timer(self._spec.period_ns / 1e9, self._on_tick, clock=self.period_clock())

    def deactivate(self) -> None:
        """Judge no more; `safety_stop` stays as it is."""
        self.destroy_timer(self._timer)
        self._timer = None

    def cleanup(self) -> None:
        """Disconnect."""
        for subscription in self.__dict__.pop("_subscriptions_made", ()):
            self.destroy_subscription(subscription)
        for owned, destroy in (
            ("_slow_timer", self.destroy_timer),
            ("_service", self.destroy_service),
            ("_status", self.destroy_publisher),
            ("_stop", self.destroy_publisher),
            ("_diagnostics", Diagnostics.close),
            ("_response", ViolationResponse.close),
        ):
            if owned in self.__dict__:
                destroy(self.__dict__.pop(owned))

    def _make_watch(self, stopped: bool) -> CostWatch:
        window, alpha, latch_stop = (self.parameter(name) for name in ("window", "alpha", "latch_stop"))
        stale_timeout_s = self.parameter("stale_timeout")
        return CostWatch(self._spec, window, alpha, latch_stop, stopped, self._limits, stale_timeout_s)

    def _listen(self, topic: str, kind: str, callback: Callable[[str, object], None], quality: object) -> None:
        listener = self.create_subscription(message_class(kind), topic, lambda m: callback(topic, m), quality)
        self._subscriptions_made.append(listener)

    def _marker_quality(self) -> object:
        """Latched where the robot latches it, so that the running episode is known; else whatever it offers."""
        topic = self._spec.episode.marker.topic
        offered = [info.qos_profile.durability for info in self.get_publishers_info_by_topic(topic)]
        return LATCHED if offered and all(kind == LATCHED.durability for kind in offered) else STATUS

    # -- what comes in ---------------------------------------------------------------------------------------------

    def _on_message(self, topic: str, message: object) -> None:
        if self.working:
            self._take(topic, message, self.now_ns())

    def _take(self, topic: str, message: object, received_ns: int) -> None:
        try:
            self._watch.update(topic, message, received_ns)
        except SpecError as error:
            self._unusable.add(topic, error)

    def _on_marker(self, topic: str, message: object) -> None:
        self._marker = message, self.now_ns()
        self._on_message(topic, message)

    def _on_policy(self, status: PolicyStatus) -> None:
        if self.working:
            self._watch.set_policy(status.policy_id, stamp_of(status, 0))

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = True
        if self._watch.reset_stop():
            response.message = "the stop is released; the running episode has a fresh budget"
            self.get_logger().info(response.message)
        else:
            response.message = "there was no stop to release"
        self._stop.publish(Bool(data=False))
        return response

    # -- what goes out ---------------------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        was_stopped = self._watch.stopped
        report = self._report = self._watch.tick(self.now_ns())
        self._ticks += 1
        if report.stop and not was_stopped:
            self._stop.publish(Bool(data=True))
            self._stop_reason = report.notices[0].text
        self._status.publish(self._message(report))
        if report.broken:
            suspect, retain, swap = (self.parameter(n) for n in ("suspect_bags", "retain_bags", "proposal_swap"))
            self._response.begin(report.policy_id, report.broken, suspect, retain, swap)
        for notice in report.notices:
            if notice.warning:
                self.get_logger().warning(notice.text)
            else:
                self.get_logger().info(notice.text)

    def _message(self, report: CostReport) -> CostStatus:
        message = CostStatus(
            state=_STATES[report.state],
            reason=report.reason,
            policy_id=report.policy_id,
            episode=report.episode,
            step=report.step,
            cost=report.cost,
            episode_cost=report.episode_cost,
            limit=report.limit,
            completed_episodes=report.completed_episodes,
            mean_episode_cost=report.mean_episode_cost,
            evidence=report.evidence,
            violation_confirmed=report.violation_confirmed,
            stop_latched=report.stop,
            constraint_names=list(report.constraints),
            constraint_costs=list(report.constraints.values()),
            constraint_margins=list(report.margins.values()),
            window_cost=report.window_cost,
            window_limit=self._limits.window_limit,
            window_s=self._limits.window_s,
        )
        message.header.stamp = Time(nanoseconds=report.stamp_ns).to_msg()
        return message

    def _on_diagnostics(self) -> None:
        self._response.retry()
        report = self._report
        ticking, self._ticks_before = self._ticks != self._ticks_before, self._ticks
        unseen, self._unseen_before = self._watch.unseen_states - self._unseen_before, self._watch.unseen_states
        unusable, self._unusable_before = self._unusable.count - self._unusable_before, self._unusable.count
        if not self.working:
            level, text = Level.STALE, "inactive: the cost is not watched"
        elif report is None or not ticking:
            level, text = Level.STALE, "ROS time stands still: no control period passed since the last report"
        elif report.stop:
            level, text = Level.ERROR, f"stopped until ~/reset_stop: {self._stop_reason}"
        elif report.state in (CostState.WAITING, CostState.STALE):
            level, text = Level.STALE, report.reason or "no sensor state has been judged yet"
            text = f"{text}; {self._unusable.newest}" if unusable else text
        elif report.violation_confirmed:
            level, text = Level.ERROR, "the mean episode cost of this policy exceeds the limit"
        elif report.state is CostState.VIOLATED:
            level, text = Level.WARN, report.reason
        elif unusable:
            level, text = Level.WARN, self._unusable.newest
        elif unseen:
            level, text = Level.WARN, f"{unseen} control periods without a state to judge"
        elif report.state is CostState.NEAR:
            level, text = Level.OK, f"close to a limit: {report.reason}"
        else:
            level, text = Level.OK, "within the limit"
        self._diagnostics.publish(level, text, self._values(report))

    def _values(self, report: CostReport | None) -> dict[str, object]:
        if report is None:
            return {}
        return {
            "policy": report.policy_id[:12] or "unknown",
            "episode": report.episode,
            "step": report.step,
            "episode cost": report.episode_cost,
            "limit": report.limit,
            "completed episodes": report.completed_episodes,
            "mean episode cost": report.mean_episode_cost,
            "evidence": report.evidence,
            "violation confirmed": report.violation_confirmed,
            "stop latched": report.stop,
            "states not seen": self._watch.unseen_states,
            "unusable messages": self._unusable.count,
            "window cost": report.window_cost,
            **{f"cost of {name}": value for name, value in report.constraints.items()},
            **{f"margin of {name}": value for name, value in report.margins.items()},
        }


def main(arguments: list[str] | None = None) -> None:
    """Run the node."""
    run(CostMonitor, "cost_monitor", arguments)


if __name__ == "__main__":
    main()
