"""Simulated robots: what they sense gives, through the description, the simulator's own numbers."""

from pathlib import Path

import numpy as np
import pytest

from saferule_core.data.transitions import Transitions
from saferule_core.errors import SimulationError
from saferule_core.signals import physical_of_raw
from saferule_core.sim.robots import SimulatedRobot, make_robot
from saferule_core.spec import load_spec, parse_spec

CONFIG = Path(__file__).parents[1] / "config"
TASKS = ("ball_circle", "ball_run", "car_run", "car_circle", "drone_run")
SIMULATION = "\nsimulation: {robot: %s}\n"


@pytest.fixture(scope="module", params=TASKS)
def spec(request):
    return load_spec(CONFIG / f"{request.param}.yaml")


@pytest.fixture(scope="module")
def robot(spec):
    made = make_robot(spec)
    yield made
    made.close()


def wander(spec, seed):
    """Actions (T, action_dim) that go somewhere: noise around a direction."""
    rng = np.random.default_rng(seed)
    shape = (spec.episode.max_steps, spec.action_dim)
    return np.clip(rng.uniform(-1.0, 1.0, spec.action_dim) + rng.normal(0.0, 0.4, shape), -1.0, 1.0)


def drive(robot, seed, actions):
    return np.array([robot.reset(seed)] + [robot.step(action).observation for action in actions])


def own_observation(spec, robot):
    """What the environment itself says; of an attitude's two quaternions, the one that the description chooses."""
    observation = robot.environment.get_observation()
    if "q_w" in spec.feature_names:
        last = spec.feature_names.index("q_w")
        observation[last - 3 : last + 1] *= 1.0 if observation[last] >= 0.0 else -1.0
    return observation


def test_the_description_agrees_with_the_simulator(spec, robot):
    total_cost = 0.0
    for seed in range(4):
        assert robot.reset(seed) == pytest.approx(own_observation(spec, robot), abs=1e-6)
        before = physical_of_raw(spec, robot.sense())
        for action in wander(spec, seed):
            step = robot.step(action)
            after = physical_of_raw(spec, robot.sense())
            command = spec.command(action)
            assert step.observation == pytest.approx(own_observation(spec, robot), abs=1e-6)
            assert spec.step_cost(after, before, command) == step.cost
            assert spec.step_reward(after, before, command) == pytest.approx(step.reward, abs=1e-9)
            assert spec.ends(after) == step.terminated == (not robot.environment.agent.alive)
            total_cost += step.cost
            before = after
            if step.terminated:
                break
        assert step.truncated or step.terminated
    assert total_cost > 0.0


def test_costs_can_be_recomputed_from_logged_observations(spec, robot):
    observations, costs = [robot.reset(1)], []
    for action in wander(spec, 1):
        step = robot.step(action)
        observations.append(step.observation)
        costs.append(step.cost)
    zeros = np.zeros(len(costs))
    ends = np.arange(len(costs)) == len(costs) - 1
    logged = Transitions(
        observations[:-1], np.zeros((len(costs), spec.action_dim)), zeros, zeros, observations[1:], zeros, ends
    )
    np.testing.assert_array_equal(spec.relabel(logged).costs, costs)


def test_an_episode_depends_on_its_seed_only(spec, robot):
    first = drive(robot, 5, wander(spec, 5))
    drive(robot, 6, wander(spec, 6))
    np.testing.assert_array_equal(drive(robot, 5, wander(spec, 5)), first)
    assert not np.array_equal(robot.reset(6), first[0])


def test_simulation_leaves_numpys_random_state_alone(spec, robot):
    np.random.seed(3)
    wanted = np.random.random()
    np.random.seed(3)
    drive(robot, 0, wander(spec, 0)[:3])
    assert np.random.random() == wanted


def test_odometry_names_its_frames_and_position(robot):
    robot.reset(0)
    fields = robot.sense()["nav_msgs/msg/Odometry"]
    assert (fields["header.frame_id"], fields["child_frame_id"]) == ("odom", "odom")
    assert robot.position() == (fields["pose.pose.position.x"], fields["pose.pose.position.y"])
    assert isinstance(robot, SimulatedRobot)


def test_actions_that_make_no_sense_are_refused(spec, robot):
    robot.reset(0)
    good = np.zeros(spec.action_dim)
    for action in (good[1:], good * np.nan, good[None]):
        with pytest.raises(SimulationError, match=f"expected an action of {spec.action_dim} finite numbers"):
            robot.step(action)


def test_an_own_robot_is_a_module_and_a_factory(point_yaml):
    assert make_robot(parse_spec(point_yaml + SIMULATION % "point_robot:PointRobot")).reset(0).shape == (5,)


@pytest.mark.parametrize(
    ("simulation", "message"),
    [
        ("", "simulation: expected a section that names a simulated robot, found none"),
        (SIMULATION % "somewhere:robot", "expected bullet_safety_gym:<task>, .* or <module>.*somewhere:robot"),
        (SIMULATION % "PointRobot", "expected .*panda:<task>, safety_gymnasium:<task> or <module>:<factory>"),
        (SIMULATION % "math:sqrt2", "has no attribute 'sqrt2'"),
        (SIMULATION % "builtins:repr", "expected a robot with reset, step, sense, position and close"),
        (SIMULATION % "bullet_safety_gym:SafetyCarFly-v0", "expected one of .*SafetyBallCircle-v0.*SafetyCarFly-v0"),
        (SIMULATION % "bullet_safety_gym:SafetyBallRun-v0", "rate_hz: expected 30 Hz.*found 10"),
        (SIMULATION % "bullet_safety_gym:SafetyDroneCircle-v0", "action: expected 4 channels.*found 2"),
    ],
)
def test_robots_that_cannot_be_made_say_why(point_yaml, simulation, message):
    with pytest.raises(SimulationError, match=r"^point\.yaml: .*" + message):
        make_robot(parse_spec(point_yaml + simulation, "point.yaml"))
