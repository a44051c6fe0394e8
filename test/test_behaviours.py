"""Drivers: safe ones keep the limit, reckless ones earn more and break it, and a seed gives one style."""

from pathlib import Path

import numpy as np
import pytest

from saferule_core.errors import SimulationError
from saferule_core.signals import physical_of_raw
from saferule_core.sim import behaviours
from saferule_core.sim.robots import make_robot
from saferule_core.spec import load_spec, parse_spec

CONFIG = Path(__file__).parents[1] / "config"
STATE = {
    **{"x": 3.0, "y": 2.0, "z": 0.6, "vx": 0.5, "vy": -0.2, "vz": 0.1, "wx": 0.1, "wy": -0.2, "wz": 0.0},
    **{"tool_x": 0.5, "tool_y": -0.3, "tool_z": 0.4, "goal_x": 0.5, "goal_y": 0.4, "goal_z": 0.3},
    **{"forward_speed": 2.0},
    **{"heading_sin": 0.1, "heading_cos": -0.9, "q_x": 0.05, "q_y": -0.05, "q_z": 0.0, "q_w": 0.9975},
}

THIRD_ACTION = """action:
  - {name: force_z, topic: cmd_force, type: geometry_msgs/msg/WrenchStamped, field: wrench.force.z,
     low: -3.5, high: 3.5, unit: N}"""


@pytest.fixture(params=sorted(behaviours.BEHAVIOURS))
def spec(request):
    found = load_spec(CONFIG / f"{request.param}.yaml")
    assert found.simulation.behaviour == request.param
    return found


def with_reckless(spec, share):
    return parse_spec(spec.text.replace("options: {reckless:", f"options: {{reckless: {share}}} #"), spec.source)


def make(spec, *seed):
    return behaviours.make(spec.simulation.behaviour, spec, np.random.default_rng(seed))


def test_a_seed_gives_one_style_and_one_course(spec):
    first, second, other = make(spec, 1, 2), make(spec, 1, 2), make(spec, 1, 3)
    assert first.style == second.style != other.style
    assert all(np.array_equal(first(STATE), second(STATE)) for _ in range(5))


def test_actions_are_in_bounds(spec):
    for seed in range(20):
        action = make(spec, seed)(STATE)
        assert action.shape == (spec.action_dim,) and action.dtype == np.float32 and np.abs(action).max() <= 1.0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_of_reckless_drivers_is_an_option(spec, share):
    chosen = with_reckless(spec, share)
    assert {make(chosen, seed).style["reckless"] for seed in range(20)} == {bool(share)}


def test_recklessness_pays_and_costs(spec):
    if spec.simulation.robot.startswith("safety_gymnasium:"):
        pytest.importorskip("mujoco")
    robot = make_robot(spec)
    reward, cost = {}, {}
    for share in (0.0, 1.0):
        chosen, rewards, costs = with_reckless(spec, share), [], []
        for episode in range(6):
            driver = make(chosen, 7, episode)
            robot.reset(episode)
            steps = [robot.step(driver(physical_of_raw(spec, robot.sense()))) for _ in range(spec.episode.max_steps)]
            rewards.append(sum(step.reward for step in steps))
            costs.append(sum(step.cost for step in steps))
        reward[share], cost[share] = np.mean(rewards), np.median(costs)
    robot.close()
    assert cost[0.0] <= spec.cost.limit < 3.0 * spec.cost.limit <= cost[1.0]
    assert reward[0.0] > spec.normalisation.reward_min
    assert reward[1.0] > reward[0.0]


def test_unknown_behaviours_and_robots_that_do_not_fit(point_spec):
    with pytest.raises(SimulationError, match="expected one of ball_circle, ball_run, .*; found 'dance'"):
        behaviours.make("dance", point_spec, np.random.default_rng(0))
    with pytest.raises(SimulationError, match="ball_circle expects the signals x, y, vx, vy .* found no vx, vy"):
        behaviours.make("ball_circle", point_spec, np.random.default_rng(0))
    three = load_spec(CONFIG / "ball_run.yaml").text.replace("action:", THIRD_ACTION, 1)
    with pytest.raises(SimulationError, match="ball_run expects .* and 2 actions, found 3 actions"):
        behaviours.make("ball_run", parse_spec(three), np.random.default_rng(0))
