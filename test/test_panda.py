"""The Panda's scene: what its messages say gives, through the description, the scene's own numbers."""

from pathlib import Path

import numpy as np
import pytest

from saferule_core.data.transitions import Transitions
from saferule_core.errors import SimulationError
from saferule_core.signals import physical_of_raw
from saferule_core.sim import panda
from saferule_core.sim.behaviours.panda import way_round
from saferule_core.sim.robots import SimulatedRobot, make_robot
from saferule_core.spec import load_spec, parse_spec

SPEC = load_spec(Path(__file__).parents[1] / "config" / "panda_reach.yaml")


@pytest.fixture(scope="module")
def robot():
    made = make_robot(SPEC)
    yield made
    made.close()


def tool_of(robot):
    fields = robot.sense()["geometry_msgs/msg/PoseStamped"]
    return np.array([fields[f"pose.position.{axis}"] for axis in "xyz"])


def goal_of(robot):
    fields = robot.sense()["geometry_msgs/msg/PointStamped"]
    return np.array([fields[f"point.{axis}"] for axis in "xyz"])


def shuttle(robot, seed):
    """Go straight to the goal, through the zone, with some noise; yield what was there before and after each step."""
    rng = np.random.default_rng(seed)
    robot.reset(seed)
    for _ in range(SPEC.episode.max_steps):
        before = physical_of_raw(SPEC, robot.sense())
        way = goal_of(robot) - tool_of(robot)
        action = np.clip(way / np.linalg.norm(way) + rng.normal(0.0, 0.2, 3), -1.0, 1.0)
        step = robot.step(action)
        yield before, action, step, physical_of_raw(SPEC, robot.sense())


def test_the_description_agrees_with_the_scene(robot):
    total_cost = reached = 0
    for seed in range(3):
        for before, action, step, after in shuttle(robot, seed):
            command = SPEC.command(action)
            assert SPEC.step_cost(after, before, command) == step.cost
            assert SPEC.step_reward(after, before, command) == pytest.approx(step.reward, abs=1e-12)
            np.testing.assert_array_equal(step.observation, SPEC.observe(after))
            total_cost += step.cost
            reached += step.info["reached"]
        assert step.truncated and not step.terminated
    assert total_cost > 0 and reached >= 6
    assert SPEC.obs_dim == 23 and isinstance(robot, SimulatedRobot)


def test_costs_can_be_recomputed_from_logged_observations(robot):
    steps = list(shuttle(robot, 1))
    observations = np.array([SPEC.observe(before) for before, *_ in steps])
    following = np.array([step.observation for _, _, step, _ in steps])
    costs = np.array([step.cost for _, _, step, _ in steps])
    zeros = np.zeros(len(costs))
    ends = np.arange(len(costs)) == len(costs) - 1
    logged = Transitions(observations, np.zeros((len(costs), 3)), zeros, zeros, following, zeros, ends)
    np.testing.assert_array_equal(SPEC.relabel(logged).costs, costs)


def test_an_episode_depends_on_its_seed_only(robot):
    first = np.array([step.observation for _, _, step, _ in shuttle(robot, 5)])
    list(shuttle(robot, 6))
    other = make_robot(SPEC)
    for again in (robot, other):
        np.testing.assert_array_equal([step.observation for _, _, step, _ in shuttle(again, 5)], first)
    other.close()
    assert not np.array_equal(robot.reset(6), robot.reset(5))


def test_the_tool_follows_its_command_but_not_beyond_the_top_speed(robot):
    robot.reset(0)
    for action in ([0.0, 0.5, 0.0], [0.0, 0.0, 0.5], [0.3, -0.4, 0.3]):
        for _ in range(3):
            before = tool_of(robot)
            robot.step(np.array(action))
        assert panda.RATE_HZ * (tool_of(robot) - before) == pytest.approx(0.6 * np.array(action), abs=0.03)
    speeds = [np.linalg.norm(a["tool_y"] - b["tool_y"]) * panda.RATE_HZ for b, _, _, a in shuttle(robot, 2)]
    assert 0.5 < max(speeds) < 1.05 * panda.TOP_SPEED


def test_the_zone_is_always_in_the_way_and_never_at_the_start_or_a_goal(robot):
    for seed in range(4):
        robot.reset(seed)
        stops = [tool_of(robot), goal_of(robot)]
        stops += [goal_of(robot) for _, _, step, _ in shuttle(robot, seed) if step.info["reached"]]
        assert len(stops) > 5
        for start, goal in zip(stops[:-1], stops[1:], strict=True):
            line = start + np.linspace(0.0, 1.0, 200)[:, None] * (goal - start)
            distances = np.linalg.norm(line - panda.KEEP_OUT, axis=1)
            assert distances.min() < 0.6 * panda.KEEP_OUT_RADIUS
            assert min(distances[0], distances[-1]) > panda.KEEP_OUT_RADIUS


def test_the_way_round_leads_over_the_top_and_straight_where_nothing_is_in_the_way():
    left, right = panda.KEEP_OUT + [0.0, 0.4, 0.0], panda.KEEP_OUT - [0.0, 0.4, 0.0]
    for start, goal in ((left, right), (right, left)):
        path = [start]
        while np.linalg.norm(goal - path[-1]) > 0.02 and len(path) < 300:
            path.append(path[-1] + 0.01 * way_round(path[-1], goal, 0.27, push=3.0))
        heights = np.array(path)[:, 2] - panda.KEEP_OUT[2]
        assert np.linalg.norm(np.array(path) - panda.KEEP_OUT, axis=1).min() > 0.25
        assert heights.max() > 0.26 and heights.min() > -0.01 and len(path) < 110
    np.testing.assert_allclose(way_round(left, right, 0.0, push=3.0), [0.0, -1.0, 0.0])
    np.testing.assert_allclose(way_round(left, left + [0.0, 0.1, 0.0], 0.27, push=3.0), [0.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("panda:reach", "panda:grasp", "simulation.robot: expected panda:reach, found 'panda:grasp'"),
        ("rate_hz: 20.0", "rate_hz: 50.0", "rate_hz: expected 20 Hz, found 50"),
        ("action:", "action:\n  - {name: grip, topic: grip, type: std_msgs/msg/Float64, field: data, low: 0.0, "
         "high: 0.04, unit: m}", "action: expected the 3 velocities of the tool, found 4"),
    ],
)  # fmt: skip
def test_scenes_that_do_not_exist_or_fit_say_so(old, new, message):
    with pytest.raises(SimulationError, match=message):
        make_robot(parse_spec(SPEC.text.replace(old, new, 1), "panda.yaml"))


@pytest.mark.parametrize("action", [[0.0], [np.nan, 0.0, 0.0], [[0.0, 0.0, 0.0]]])
def test_actions_that_make_no_sense_are_refused(robot, action):
    with pytest.raises(SimulationError, match="expected an action of 3 finite numbers"):
        robot.step(np.array(action))
