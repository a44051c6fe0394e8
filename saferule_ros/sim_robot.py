"""sim_robot: a simulated robot behind the topics of the real one, with /clock.

    ros2 run saferule sim_robot --ros-args -p spec:=robot.yaml -p real_time_factor:=10.0

Paced by the wall clock, not in lock step: it waits for nobody, as a robot does. A control period k, at ROS time t_k:

    sensors of the state s_k, stamped t_k; before them the episode marker, where s_k begins an episode; after them, on
        the log topics, reward and cost of the step that led to s_k
    `sensor_lead` of a period later: /clock = t_k, so that timers find all that there
    at the end of the period: a step with the newest command, to s_k+1

An episode is s_0 ... s_T. What is commanded at s_T is ignored: the next period begins the next episode. ROS time
starts at 1 s and never goes back. While the node is inactive, time stands still and /clock repeats it.

A missed command is a step for which no command came since its tick t_k (or none with a stamp of at least t_k); the
previous one is held. Not counted are steps before the first command, and s_T, whose command nobody waits for.
"""

from __future__ import annotations

import gc
import math
import time

from rclpy.clock import Clock, ClockType
from rclpy.time import Time
from rosgraph_msgs.msg import Clock as ClockMessage
from std_msgs.msg import UInt64

from saferule_core.signals import fill_sensors, read_commands, stamp_of
from saferule_core.sim.collect import reset_seed
from saferule_core.sim.robots import Step, make_robot
from saferule_ros.diagnostics import Diagnostics, Level
from saferule_ros.managed_node import SPEC_PARAMETER, ManagedNode, Parameter, run
from saferule_ros.messages import COMMAND, LATCHED, STATUS, make_message, message_class
from saferule_ros.pacing import Pacer

START_S = 1.0
"""ROS time at which robots begin [s]; 0 means to ROS that there is no time yet."""

IDLE_CLOCK_S = 0.2
"""How often an inactive robot repeats /clock [s wall]."""


class SimRobot(ManagedNode):
    """Sensors and /clock out, commands in."""

    PARAMETERS = (
        SPEC_PARAMETER,
        Parameter("seed", 0, "seed of the episodes; they begin as those collected with it", 0, 2**31 - 1),
        Parameter("real_time_factor", 10.0, "ROS seconds per wall second", 0.01, 1000.0),
        Parameter("episodes", 0, "episodes to drive before it becomes inactive, 0: endless", 0, 2**31 - 1),
        Parameter("sensor_lead", 0.3, "share of a period between the sensors and /clock", 0.0, 0.8),
    )
    READS_CLOCK = False  # it is the clock

    def __init__(self, name: str, **options: object) -> None:
        super().__init__(name, **options)
        self._time_ns = self._clock_ns = 0
        self._episode = -1

    def configure(self) -> None:
        """Make the robot; raises SimulationError where it cannot be."""
        self._spec = spec = self.load_spec()
        self._robot = make_robot(spec)
        period_ns = round(spec.period_ns / self.parameter("real_time_factor"))
        self._pacer = Pacer(period_ns, self.parameter("sensor_lead"))
        self._seed, self._episodes = self.parameter("seed"), self.parameter("episodes")
        if self._time_ns == 0:
            # A multiple of the period: timers that were made before there was a time fire with it, too.
            self._time_ns = self._clock_ns = math.ceil(START_S * 1e9 / spec.period_ns) * spec.period_ns
        self._ticks = self._missed = self._missed_before = 0
        self._since = (time.monotonic(), 0)
        self._publishers_made = {
            topic: self.create_publisher(message_class(kind), topic, self._quality(topic))
            for topic, kind in {**spec.sensor_topics, **spec.log_topics}.items()
        }
        self._clock_topic = self._publishers_made["/clock"] = self.create_publisher(ClockMessage, "/clock", COMMAND)
        self._missed_topic = self._publishers_made["missed"] = self.create_publisher(
            UInt64, "~/missed_commands", LATCHED
        )
        self._diagnostics = Diagnostics(self, "simulation", spec.name)
        self._subscriptions_made = [
            self.create_subscription(message_class(kind), topic, self._listener(topic), COMMAND)
            for topic, kind in spec.command_topics.items()
        ]
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._alarm = self.create_timer(1.0, self._on_alarm, clock=steady)
        self._alarm.cancel()
        self._timers_made = [
            self._alarm,
            self.create_timer(IDLE_CLOCK_S, self._on_idle, clock=steady),
            self.create_timer(1.0, self._on_second, clock=steady),
        ]
        self._publish_clock()
        self._publish_missed()
        self.get_logger().info(f"{spec.name}: {spec.rate_hz:g} Hz, a period takes {period_ns / 1e6:g} ms")

    def activate(self) -> None:
        """Begin an episode and drive."""
        self._last_episode = self._episode + self._episodes if self._episodes else None
        self._command, self._fresh, self._commanded = dict(self._spec.safe_command()), set(), False
        self._ended = True
        gc.collect()
        gc.freeze()  # what is loaded stays: the collector need not look at it during a tick
        self._since = (time.monotonic(), self._ticks)
        self._next = self._move
        self._wake_at(time.monotonic_ns())

    def deactivate(self) -> None:
        """Stand still; the running episode is left as it is."""
        self._alarm.cancel()

    def cleanup(self) -> None:
        """Free the simulation and the topics."""
        for timer in self.__dict__.pop("_timers_made", ()):
            self.destroy_timer(timer)
        for subscription in self.__dict__.pop("_subscriptions_made", ()):
            self.destroy_subscription(subscription)
        for publisher in self.__dict__.pop("_publishers_made", {}).values():
            self.destroy_publisher(publisher)
        for owned in ("_diagnostics", "_robot"):
            if owned in self.__dict__:
                self.__dict__.pop(owned).close()

    def _quality(self, topic: str) -> object:
        marker = self._spec.episode.marker
        return LATCHED if marker is not None and topic == marker.topic else STATUS

    # -- one period: settle, move and sense, tick ------------------------------------------------------------------

    def _wake_at(self, due_ns: int) -> None:
        self._alarm.timer_period_ns = max(1, due_ns - time.monotonic_ns())
        self._alarm.reset()

    def _on_alarm(self) -> None:
        self._alarm.cancel()
        self._next()

    def _settle(self) -> None:
        """Move on, but where a command is waited for after one more round of the executor: it may be here already."""
        self._begun_ns = time.monotonic_ns()
        if self._ended or self._all_fresh() or not self._commanded:
            self._move()
        else:
            self._next = self._move
            self._wake_at(0)

    def _all_fresh(self) -> bool:
        return len(self._fresh) == len(self._spec.command_topics)

    def _move(self) -> None:
        """Step to the next state, or begin the next episode, and publish the sensors."""
        if self._ended and self._episode == self._last_episode:
            self.get_logger().info(f"drove {self._episodes} episodes, {self._missed} commands missed")
            self.trigger_deactivate()
            return
        self._time_ns += self._spec.period_ns
        if self._ended:
            self._begin_episode()
        else:
            self._result = self._step()
            self._ended = self._result.terminated or self._result.truncated
        stamp = Time(nanoseconds=self._time_ns).to_msg()
        for topic, message in fill_sensors(self._spec, self._robot.sense(), make_message).items():
            if hasattr(message, "header"):
                message.header.stamp = stamp
            self._publishers_made[topic].publish(message)
        self._publish_labels()
        self._next = self._tick
        self._wake_at(self._pacer.sensed(self._begun_ns, time.monotonic_ns()))

    def _tick(self) -> None:
        """Let time reach the state that was sensed: now everybody acts on it."""
        self._fresh.clear()
        self._clock_ns = self._time_ns
        self._publish_clock()
        self._ticks += 1
        self._next = self._settle
        self._wake_at(self._pacer.ticked(time.monotonic_ns()))

    def _begin_episode(self) -> None:
        self._episode += 1
        self._robot.reset(reset_seed(self._seed, self._episode))
        self._result, self._ended = None, False
        marker = self._spec.episode.marker
        if marker is not None:
            message = make_message(marker.type)
            self._spec.path(marker.field).set(message, f"episode_{self._episode}")
            stamped = getattr(message, "header", message)
            if hasattr(stamped, "stamp"):
                stamped.stamp = Time(nanoseconds=self._time_ns).to_msg()
            self._publishers_made[marker.topic].publish(message)
        self._begun_ns = time.monotonic_ns()
        self._pacer.begin(self._begun_ns)

    def _step(self) -> Step:
        if self._commanded and not self._all_fresh():
            self._missed += 1
            self._publish_missed()
        return self._robot.step(self._spec.normalise_action(self._command))

    def _publish_labels(self) -> None:
        """Publish reward and cost of the last step, by the simulation's own account."""
        if self._result is None:
            return
        messages = {}
        for source, value in (
            (self._spec.reward.topic, self._result.reward),
            (self._spec.cost.logged, self._result.cost),
        ):
            if source is not None:
                message = messages.setdefault(source.topic, make_message(source.type))
                self._spec.path(source.field).set(message, value)
        for topic, message in messages.items():
            self._publishers_made[topic].publish(message)

    # -- commands, clock, reports ----------------------------------------------------------------------------------

    def _listener(self, topic: str) -> object:
        return lambda message: self._on_command(topic, message)

    def _on_command(self, topic: str, message: object) -> None:
        if not self.working:
            return
        command = read_commands(self._spec, topic, message)
        if not all(map(math.isfinite, command.values())):
            self.get_logger().warning(f"topic {topic}: expected finite commands, found {command}; ignored")
            return
        self._commanded = True
        self._command.update(command)
        if stamp_of(message, self._clock_ns) >= self._time_ns:
            self._fresh.add(topic)

    def _publish_clock(self) -> None:
        self._clock_topic.publish(ClockMessage(clock=Time(nanoseconds=self._clock_ns).to_msg()))

    def _publish_missed(self) -> None:
        self._missed_topic.publish(UInt64(data=self._missed))

    def _on_idle(self) -> None:
        if not self.working:
            self._publish_clock()

    def _on_second(self) -> None:
        self._publish_missed()
        (begun, ticks), self._since = self._since, (time.monotonic(), self._ticks)
        achieved = (self._ticks - ticks) * self._spec.period_ns / 1e9 / (self._since[0] - begun)
        missing, self._missed_before = self._missed > self._missed_before, self._missed
        level = Level.WARN if missing else Level.OK
        text = "commands are missing" if missing else "driving" if self.working else "inactive"
        values = {
            "episode": self._episode,
            "ticks": self._ticks,
            "missed commands": self._missed,
            "real-time factor": achieved,
            "real-time factor asked for": self.parameter("real_time_factor"),
            "late periods": self._pacer.late_periods,
            "slipped [s wall]": self._pacer.slipped_ns / 1e9,
            "worst lateness [s wall]": self._pacer.worst_ns / 1e9,
        }
        self._diagnostics.publish(level, text, values, Time(nanoseconds=self._clock_ns).to_msg())


def main(arguments: list[str] | None = None) -> None:
    """Run the node."""
    run(SimRobot, "sim_robot", arguments)


if __name__ == "__main__":
    main()
