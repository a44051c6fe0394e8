"""Robots of Safety-Gymnasium (Ji et al. 2023), on MuJoCo, as robots that publish odometry.

    robot = SafetyGymnasiumRobot(spec, "SafetyHalfCheetahVelocity-v1")
    robot = SafetyGymnasiumRobot(spec, "SafetyPointCircle1-v0")

The runners (SafetyHalfCheetahVelocity and its kin) give the positions and velocities of all joints of their model as
sensor_msgs/msg/JointState, the torso's three degrees of freedom first, and a nav_msgs/msg/Odometry of the torso whose
twist.twist.linear.x is the mean speed of the last control period, which is what the environment judges. The robots that
find their way (SafetyPoint..., SafetyCar...) give a nav_msgs/msg/Odometry with its twist in the odom frame, as
child_frame_id says, and the environment's lidars, one after the other, as std_msgs/msg/Float64MultiArray: per bin 0
where nothing is, 1 where something is at zero distance. Their motors reach their largest force long before the largest
control, 0.05 of it for the Point; an action of 1 is the control from which on nothing changes. Reward and cost are the
environment's own; tests hold them against what the RobotSpec computes from these messages.

An episode depends on its seed only, as the environments make all they draw from the seed of reset; what they draw from
numpy's global random state when they are made is given back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saferule_core.errors import SimulationError
from saferule_core.signals import physical_of_raw
from saferule_core.sim.robots import RawFields, Step
from saferule_core.sim.safety_gymnasium_package import load_package
from saferule_core.spec import RobotSpec

FRAME = "odom"


class SafetyGymnasiumRobot:
    """One robot of Safety-Gymnasium; `environment` is the environment behind it."""

    def __init__(self, spec: RobotSpec, env_id: str) -> None:
        """Make the robot.

        Raises:
            SimulationError: the package is missing, has no such task, or the task does not fit the description.
        """
        self._spec = spec
        self.environment = _make_environment(env_id, spec.source)
        self._task = getattr(self.environment, "task", None)
        self._check(env_id)
        self._useful = np.ones(spec.action_dim) if self._task is None else useful_controls(self._task.model)
        self.reset(0)

    def _check(self, env_id: str) -> None:
        where, env = self._spec.source, self.environment
        if env.action_space.shape != (self._spec.action_dim,):
            raise SimulationError(
                f"{where}: action: expected {env.action_space.shape[0]} channels, as {env_id} has, "
                f"found {self._spec.action_dim}"
            )
        self._period = env.dt if self._task is None else self._navigation_period()
        if abs(self._spec.rate_hz * self._period - 1.0) > 0.01:
            raise SimulationError(
                f"{where}: rate_hz: expected {1.0 / self._period:g} Hz, at which {env_id} steps, "
                f"found {self._spec.rate_hz:g}"
            )
        longest = getattr(self._task, "num_steps", self._spec.episode.max_steps)
        if self._spec.episode.max_steps > longest:
            raise SimulationError(
                f"{where}: episode.max_steps: expected at most {longest}, as {env_id} has, "
                f"found {self._spec.episode.max_steps}"
            )

    def _navigation_period(self) -> float:
        self.environment.reset(seed=0)  # there is no model before
        return self._task.model.opt.timestep * self._task.sim_conf.frameskip_binom_n

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode of `seed` and return the first observation (obs_dim,) float32."""
        self.environment.reset(seed=seed % 2**32)
        self._steps, self._x = 0, None
        self._read_state()
        return self._spec.observe(self._physical)

    def step(self, action: np.ndarray) -> Step:
        """Apply an action (action_dim,) in [-1, 1] for one control period.

        Raises:
            SimulationError: the action has another shape, or is not finite.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self._spec.action_dim,) or not np.isfinite(action).all():
            raise SimulationError(
                f"{self._spec.source}: expected an action of {self._spec.action_dim} finite numbers, found {action}"
            )
        _, reward, cost, terminated, _, info = self.environment.step(self._useful * np.clip(action, -1.0, 1.0))
        self._steps += 1
        self._read_state()
        return Step(
            self._spec.observe(self._physical),
            float(reward),
            float(cost),
            bool(terminated) or bool(self._spec.ends(self._physical)),
            self._steps >= self._spec.episode.max_steps,
            info,
        )

    def sense(self) -> RawFields:
        """Return the present state: message type -> field path -> value."""
        return self._raw

    def position(self) -> tuple[float, float]:
        """Return (x, y) [m]; of a runner, which moves in a plane that stands upright, (x, z)."""
        fields = self._raw["nav_msgs/msg/Odometry"]
        return fields["pose.pose.position.x"], fields[f"pose.pose.position.{'z' if self._task is None else 'y'}"]

    def close(self) -> None:
        """Free the simulation; a second call does nothing."""
        self.environment.close()

    def _read_state(self) -> None:
        self._raw = self._runner_state() if self._task is None else self._navigation_state()
        self._physical = physical_of_raw(self._spec, self._raw)

    def _runner_state(self) -> dict[str, dict[str, Any]]:
        data = self.environment.data
        x, z, pitch = (float(value) for value in data.qpos[:3])
        speed = float(data.qvel[0]) if self._x is None else (x - self._x) / self._period
        self._x = x
        attitude = (0.0, float(np.sin(pitch / 2.0)), 0.0, float(np.cos(pitch / 2.0)))
        linear, angular = (speed, 0.0, float(data.qvel[1])), (0.0, float(data.qvel[2]), 0.0)
        joints = {"position": tuple(data.qpos.tolist()), "velocity": tuple(data.qvel.tolist())}
        return {
            "sensor_msgs/msg/JointState": joints,
            "nav_msgs/msg/Odometry": _odometry((x, 0.0, z), attitude, linear, angular),
        }

    def _navigation_state(self) -> dict[str, dict[str, Any]]:
        task, agent = self._task, self._task.agent
        w, x, y, z = task.data.body("agent").xquat.tolist()
        turning = agent.mat @ agent.get_sensor("gyro")
        lidars = [task._obs_lidar(each.pos, each.group) for each in task._obstacles if each.is_lidar_observed]
        return {
            "nav_msgs/msg/Odometry": _odometry(agent.pos.tolist(), (x, y, z, w), agent.vel.tolist(), turning.tolist()),
            "std_msgs/msg/Float64MultiArray": {"data": tuple(np.concatenate([[], *lidars]).tolist())},
        }


def useful_controls(model: Any) -> np.ndarray:
    """Return per actuator (A,) the control beyond which the force of a motor does not grow, or else the largest one."""
    largest = model.actuator_ctrlrange[:, 1]
    motor = (model.actuator_biastype == 0) & (model.actuator_forcelimited != 0)  # no feedback, and a largest force
    return np.where(motor, np.minimum(largest, model.actuator_forcerange[:, 1] / model.actuator_gainprm[:, 0]), largest)


def _odometry(position: Any, quaternion: Any, linear: Any, angular: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "header.frame_id": FRAME,
        "child_frame_id": FRAME,
        "pose.pose.orientation": tuple(quaternion),
    }
    for index, axis in enumerate("xyz"):
        fields[f"pose.pose.position.{axis}"] = position[index]
        fields[f"twist.twist.linear.{axis}"] = linear[index]
        fields[f"twist.twist.angular.{axis}"] = angular[index]
    return fields


def _make_environment(env_id: str, source: str) -> Any:
    package = load_package(source)
    known = sorted(package.utils.registration.safe_registry)
    if env_id not in known:
        raise SimulationError(
            f"{source}: simulation.robot: expected a task such as SafetyHalfCheetahVelocity-v1 or "
            f"SafetyPointCircle1-v0, found {env_id!r}"
        )
    outside = np.random.get_state()
    try:
        return package.make(env_id, disable_env_checker=True).unwrapped
    finally:
        np.random.set_state(outside)
