"""The simulated robot as a process: states, clock, labels and commands of its episodes."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("rclpy")

from conftest import POINT_SPEC
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import WrenchStamped
from nav_msgs.msg import Odometry
from point_robot import PointRobot
from ros_testing import RosGraph, nanoseconds, write_yaml_of_point_robot
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64, Header, UInt64

from saferule_core.sim.collect import reset_seed
from saferule_core.spec import load_spec
from saferule_ros.messages import COMMAND, LATCHED

pytestmark = pytest.mark.timed

EPISODES, STEPS, SEED, PERIOD = 3, 20, 5, 100_000_000


@dataclass
class Drive:
    """What was heard of a whole drive."""

    states: list
    clock: list
    markers: list
    rewards: list
    costs: list
    commands: dict
    missed: list

    def stamps(self) -> list[int]:
        return [nanoseconds(state.header.stamp) for state in self.states]

    def episodes(self) -> list[list]:
        return [self.states[k : k + STEPS + 1] for k in range(0, len(self.states), STEPS + 1)]


@pytest.fixture(scope="module")
def spec_path(tmp_path_factory):
    return write_yaml_of_point_robot(tmp_path_factory.mktemp("spec") / "point.yaml", POINT_SPEC)


@pytest.fixture(scope="module")
def drive(tmp_path_factory, spec_path):
    """Three episodes, driven by an answer to every tick: a force that differs from tick to tick."""
    with RosGraph(tmp_path_factory.mktemp("drive")) as graph:
        robot = graph.start("sim_robot", spec=spec_path, seed=SEED, real_time_factor=5.0, episodes=EPISODES)
        graph.configure(robot)
        publisher = graph.node.create_publisher(WrenchStamped, "cmd_force", COMMAND)
        commands = {}

        def command(tick: Clock) -> None:
            time = nanoseconds(tick.clock)
            if heard.states and time not in commands:
                message = WrenchStamped()
                message.header.stamp = tick.clock
                message.wrench.force.x = commands[time] = 3.5 * float(np.sin(time / PERIOD))
                publisher.publish(message)

        heard = Drive(
            states=graph.collect("odom", Odometry),
            clock=graph.collect("/clock", Clock),
            markers=graph.collect("episode", Header),
            rewards=graph.collect("reward", Float64),
            costs=graph.collect("cost", Float64),
            commands=commands,
            missed=graph.collect("sim_robot/missed_commands", UInt64, LATCHED),
        )
        graph.answer("/clock", Clock, command)
        graph.wait_for_reader(publisher)
        graph.wait_until(lambda: heard.clock and heard.missed, "/clock of the inactive robot")
        graph.activate(robot)
        graph.wait_until(lambda: f"drove {EPISODES} episodes" in graph.log(robot), "the drive's end")
        assert not graph.is_active(robot)
        assert graph.stop(robot) == 0
    return heard


def test_every_episode_has_one_state_more_than_steps(drive):
    assert len(drive.states) == EPISODES * (STEPS + 1)
    assert len(drive.rewards) == len(drive.costs) == EPISODES * STEPS


def test_states_are_stamped_with_consecutive_periods_across_episodes(drive):
    stamps = drive.stamps()
    assert stamps == [stamps[0] + k * PERIOD for k in range(len(stamps))]
    assert stamps[0] > 0 and stamps[0] % PERIOD == 0
    assert {state.header.frame_id for state in drive.states} == {"odom"}


def test_the_clock_reaches_every_state_and_never_goes_back(drive):
    times = [nanoseconds(tick.clock) for tick in drive.clock]
    assert times == sorted(times) and times[0] > 0
    assert sorted(set(times))[1:] == drive.stamps()


def test_markers_name_the_episodes_and_carry_the_stamp_of_their_first_state(drive):
    assert [marker.frame_id for marker in drive.markers] == [f"episode_{e}" for e in range(EPISODES)]
    assert [nanoseconds(marker.stamp) for marker in drive.markers] == drive.stamps()[:: STEPS + 1]


def test_episodes_begin_where_the_seed_says(drive, spec_path):
    robot = PointRobot(load_spec(spec_path))
    for number, states in enumerate(drive.episodes()):
        robot.reset(reset_seed(SEED, number))
        assert (states[0].pose.pose.position.x, states[0].pose.pose.position.y) == robot.position()


def test_each_step_is_that_of_the_command_between_its_states(drive):
    """Where a command was missed (a busy machine), the one before is held."""
    missed, held = 0, 0.0
    for states in drive.episodes():
        for before, after in itertools.pairwise(states):
            moved = 3.5 * (after.pose.pose.position.x - before.pose.pose.position.x)
            told = drive.commands.get(nanoseconds(before.header.stamp), 0.0)
            on_time = moved == pytest.approx(told, abs=1e-5)
            assert on_time or moved == pytest.approx(held, abs=1e-5)
            missed, held = missed + (not on_time), moved
    assert missed <= drive.missed[-1].data + 1, "the first command may come after the first step"


def test_labels_are_those_of_the_steps(drive):
    paths = [[state.pose.pose.position.x for state in states] for states in drive.episodes()]
    steps = [step for path in paths for step in itertools.pairwise(path)]
    assert [r.data for r in drive.rewards] == pytest.approx([b - a for a, b in steps])
    assert [c.data for c in drive.costs] == [float(abs(b) > 6.0) for _, b in steps]


def last_move(states: list) -> float:
    return states[-1].pose.pose.position.x - states[-2].pose.pose.position.x


def test_without_commands_it_stands_until_the_first_and_then_holds_it(tmp_path, spec_path):
    with RosGraph(tmp_path) as graph:
        robot = graph.start("sim_robot", spec=spec_path, real_time_factor=20.0)
        graph.configure(robot)
        states, clock = graph.collect("odom", Odometry), graph.collect("/clock", Clock)
        missed = graph.collect("sim_robot/missed_commands", UInt64, LATCHED)
        reports = graph.collect("/diagnostics", DiagnosticArray)
        publisher = graph.node.create_publisher(WrenchStamped, "cmd_force", COMMAND)
        graph.wait_for_reader(publisher)
        graph.wait_until(lambda: len(clock) > 2, "a clock that stands still")
        assert len({nanoseconds(tick.clock) for tick in clock}) == 1
        graph.activate(robot)
        graph.wait_until(lambda: len(states) > 30, "states")
        assert {m.data for m in missed} == {0}
        assert states[0].pose.pose.position.x == states[5].pose.pose.position.x
        nonsense, command = WrenchStamped(), WrenchStamped()
        nonsense.wrench.force.x = float("nan")
        command.wrench.force.x = 0.35
        command.header.stamp.sec = nonsense.header.stamp.sec = 10_000
        publisher.publish(command)
        graph.wait_until(lambda: abs(last_move(states) - 0.1) < 1e-6, "motion")
        publisher.publish(nonsense)
        graph.wait_until(lambda: missed[-1].data >= 25, "missed commands")
        assert [m.data for m in missed] == sorted(m.data for m in missed)
        moves = np.diff([state.pose.pose.position.x for state in states[-12:]])
        assert sum(abs(move - 0.1) < 1e-6 for move in moves) >= 10, "all but the jump to a new episode"
        assert "expected finite commands" in graph.log(robot)
        graph.wait_until(lambda: any("missing" in r.status[0].message for r in reports), "a diagnostic")
        values = {pair.key: pair.value for pair in reports[-1].status[0].values}
        assert int(values["missed commands"]) > 0 and float(values["real-time factor"]) > 0.0
        graph.deactivate(robot)
        before, count = nanoseconds(clock[-1].clock), len(states)
        graph.activate(robot)
        graph.wait_until(lambda: len(states) > count + 5, "states after the pause")
        assert nanoseconds(states[-1].header.stamp) > before
        assert [nanoseconds(t.clock) for t in clock] == sorted(nanoseconds(t.clock) for t in clock)
        assert graph.stop(robot) == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "found nothing"), (POINT_SPEC, "a section that names a simulated robot"), ("name: 7\n", "name")],
)
def test_what_it_cannot_simulate_is_refused_with_the_reason(tmp_path, text, complaint):
    path = tmp_path / "robot.yaml"
    path.write_text(text, encoding="utf-8")
    with RosGraph(tmp_path) as graph:
        robot = graph.start("sim_robot", spec=path if text else "''")
        assert not graph.change_state(robot, 1)
        graph.wait_until(lambda: complaint in graph.log(robot), f"{complaint} in the log")
        assert graph.stop(robot) == 0
