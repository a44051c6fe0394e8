"""Robots of Safety-Gymnasium: what they sense gives, through the description, the environment's own numbers."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from saferule_core.data.transitions import Transitions
from saferule_core.errors import SimulationError
from saferule_core.signals import physical_of_raw
from saferule_core.sim import safety_gymnasium_package
from saferule_core.sim.robots import SimulatedRobot, make_robot
from saferule_core.spec import load_spec, parse_spec

pytest.importorskip("mujoco")
CONFIG = Path(__file__).parents[1] / "config"
CHEETAH, POINT = (load_spec(CONFIG / f"{task}.yaml") for task in ("half_cheetah_velocity", "point_circle"))


@pytest.fixture(scope="module", params=[CHEETAH, POINT], ids=lambda spec: spec.name)
def spec(request):
    return request.param


@pytest.fixture(scope="module")
def robot(spec):
    made = make_robot(spec)
    yield made
    made.close()


def hurry(spec, seed, steps=200):
    """Actions (T, action_dim) that break the rule now and then: straight ahead, or the gait that stumbles."""
    from saferule_core.sim.behaviours.half_cheetah import FREQUENCY, gait

    noise = np.random.default_rng(seed).normal(0.0, 0.2, (steps, spec.action_dim))
    if spec is POINT:
        return np.clip(noise + [1.0, 0.0], -1.0, 1.0)
    phases = 2.0 * np.pi * FREQUENCY * np.arange(steps) / spec.rate_hz
    return np.clip(noise + [gait(phase, 0.8) for phase in phases], -1.0, 1.0)


def drive(robot, seed, actions):
    return np.array([robot.reset(seed)] + [robot.step(action).observation for action in actions])


def test_the_description_agrees_with_the_environment(spec, robot):
    total_cost = 0.0
    for seed in range(3):
        robot.reset(seed)
        before = physical_of_raw(spec, robot.sense())
        for action in hurry(spec, seed):
            step = robot.step(action)
            after, command = physical_of_raw(spec, robot.sense()), spec.command(action)
            assert spec.step_cost(after, before, command) == step.cost
            assert spec.step_reward(after, before, command) == pytest.approx(step.reward, abs=1e-9)
            np.testing.assert_array_equal(step.observation, spec.observe(after))
            assert not step.terminated
            total_cost, before = total_cost + step.cost, after
    assert total_cost > 30.0
    assert isinstance(robot, SimulatedRobot)


def test_costs_can_be_recomputed_from_logged_observations(spec, robot):
    observations, costs = [robot.reset(1)], []
    for action in hurry(spec, 1):
        step = robot.step(action)
        observations.append(step.observation)
        costs.append(step.cost)
    zeros, ends = np.zeros(len(costs)), np.arange(len(costs)) == len(costs) - 1
    actions = np.zeros((len(costs), spec.action_dim))
    logged = Transitions(observations[:-1], actions, zeros, zeros, observations[1:], zeros, ends)
    np.testing.assert_array_equal(spec.relabel(logged).costs, costs)
    assert sum(costs) > 10.0


def test_an_episode_depends_on_its_seed_only(spec, robot):
    first = drive(robot, 5, hurry(spec, 5))
    drive(robot, 6, hurry(spec, 6))
    other = make_robot(spec)
    for again in (robot, other):
        np.testing.assert_array_equal(drive(again, 5, hurry(spec, 5)), first)
    other.close()
    assert not np.array_equal(robot.reset(6), first[0])


def test_simulation_leaves_numpys_random_state_alone(spec):
    np.random.seed(3)
    wanted = np.random.random()
    np.random.seed(3)
    made = make_robot(spec)
    drive(made, 0, hurry(spec, 0, steps=3))
    made.close()
    assert np.random.random() == wanted


def test_the_runner_sees_what_its_environment_shows_and_the_speed_that_is_judged():
    robot = make_robot(CHEETAH)
    robot.reset(2)
    for action in hurry(CHEETAH, 2)[:20]:
        observation = robot.step(action).observation
        np.testing.assert_allclose(observation[:17], robot.environment._get_obs(), rtol=1e-6, atol=1e-6)
    assert robot.position() == tuple(robot.environment.data.qpos[:2])
    step = robot.step(np.zeros(6))
    assert step.observation[17] == np.float32(step.info["x_velocity"])
    robot.close()


def test_the_point_senses_its_body_and_the_lidar():
    robot = make_robot(POINT)
    robot.reset(2)
    for action in hurry(POINT, 2)[:20]:
        robot.step(action)
    task, odometry = robot.environment.task, robot.sense()["nav_msgs/msg/Odometry"]
    assert odometry["header.frame_id"] == odometry["child_frame_id"] == "odom"
    assert robot.position() == tuple(task.agent.pos[:2])
    np.testing.assert_allclose(robot.sense()["std_msgs/msg/Float64MultiArray"]["data"], task.obs()[12:])
    seen = physical_of_raw(POINT, robot.sense())
    body = np.array([seen["heading_cos"] * seen["vx"] + seen["heading_sin"] * seen["vy"], seen["wz"]])
    np.testing.assert_allclose(body, [task.agent.get_sensor("velocimeter")[0], task.agent.get_sensor("gyro")[2]])
    robot.close()


def test_the_points_motor_is_used_over_its_whole_range():
    robot = make_robot(POINT)
    speeds = []
    for push in (0.5, 1.0):
        robot.reset(0)
        for _ in range(150):
            robot.step(np.array([push, 0.0]))
        speeds.append(np.linalg.norm(robot.environment.task.agent.vel))
    robot.environment.reset(seed=0)
    for _ in range(150):
        robot.environment.step(np.array([1.0, 0.0]))
    assert speeds[1] == pytest.approx(2.0 * speeds[0], rel=0.01)
    assert speeds[1] == pytest.approx(np.linalg.norm(robot.environment.task.agent.vel), rel=1e-6)
    robot.close()


def test_actions_that_make_no_sense_are_refused(spec, robot):
    robot.reset(0)
    good = np.zeros(spec.action_dim)
    for action in (good[1:], good * np.nan, good[None]):
        with pytest.raises(SimulationError, match=f"expected an action of {spec.action_dim} finite numbers"):
            robot.step(action)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("SafetyPointCircle1-v0", "SafetyPointFly1-v0", "expected a task such as .*, found 'SafetyPointFly1-v0'"),
        ("SafetyPointCircle1-v0", "SafetyHalfCheetahVelocity-v1", "action: expected 6 channels.*found 2"),
        ("rate_hz: 50.0", "rate_hz: 20.0", "rate_hz: expected 50 Hz.*found 20"),
        ("max_steps: 500 ", "max_steps: 501 ", "episode.max_steps: expected at most 500.*found 501"),
    ],
)
def test_robots_that_cannot_be_made_say_why(old, new, message):
    assert old in POINT.text
    with pytest.raises(SimulationError, match=r"^point\.yaml: .*" + message):
        make_robot(parse_spec(POINT.text.replace(old, new), "point.yaml"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "safety_gymnasium", None)
    with pytest.raises(SimulationError, match=r"^point\.yaml: .*the extra safety-gymnasium .*requirements-safety-gym"):
        safety_gymnasium_package.load_package("point.yaml")


def test_the_import_leaves_dataclasses_as_they_were():
    assert safety_gymnasium_package.load_package("robot.yaml").__name__ == "safety_gymnasium"
    assert dataclasses.dataclass.__module__ == "dataclasses"


def test_array_defaults_are_copied_for_the_packages_own_classes_only():
    content = {"__annotations__": {"colour": np.ndarray}, "colour": np.zeros(3)}
    theirs, ours = (
        type("Goal", (), {**content, "__module__": module}) for module in ("safety_gymnasium.assets", "somewhere")
    )
    with safety_gymnasium_package._array_defaults():
        made = dataclasses.dataclass(theirs)
        assert made().colour is not made().colour
        assert made.colour is content["colour"]
        if sys.version_info >= (3, 11):
            with pytest.raises(ValueError, match="mutable default"):
                dataclasses.dataclass(ours)
