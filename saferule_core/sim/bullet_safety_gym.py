"""Robots of Bullet-Safety-Gym (Gronauer 2022) as robots that publish odometry.

    robot = BulletSafetyGymRobot(spec, "SafetyBallCircle-v0")

Position, orientation, velocity and turn rate come as the fields of a nav_msgs/msg/Odometry. Its twist is given in the
odom frame, and child_frame_id says so. The drone also gives the velocity of its rotors, as sensor_msgs/msg/JointState,
and the number of its parts that touch the ground, as std_msgs/msg/UInt8. Reward and cost are the environment's own;
tests hold them, and the environment's own observation, against what the RobotSpec computes from these messages.

Two habits of the environments would make episodes depend on what was run before, and are undone here:

- they draw from numpy's global random state, and ignore the seed that reset takes;
- reset takes a physics step while the last command of the previous episode still acts on the motors, and on the
  drone's rotors in the directions that they had when it was given.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np

from saferule_core.errors import SimulationError
from saferule_core.signals import physical_of_raw
from saferule_core.sim.robots import RawFields, Step
from saferule_core.spec import RobotSpec

FRAME = "odom"


class BulletSafetyGymRobot:
    """One robot of Bullet-Safety-Gym; `environment` is the Gymnasium environment behind it."""

    def __init__(self, spec: RobotSpec, env_id: str) -> None:
        """Make the robot.

        Raises:
            SimulationError: the package is missing, has no such task, or the task does not fit the description.
        """
        self._spec = spec
        self.environment = _make_environment(env_id, spec.source)
        self._agent = self.environment.agent
        self._steps = 0
        self._check(env_id)
        self._read_state()

    def _check(self, env_id: str) -> None:
        where, env = self._spec.source, self.environment
        if env.action_space.shape != (self._spec.action_dim,):
            raise SimulationError(
                f"{where}: action: expected {env.action_space.shape[0]} channels, as {env_id} has, "
                f"found {self._spec.action_dim}"
            )
        if abs(self._spec.rate_hz * env.dt - 1.0) > 0.01:
            raise SimulationError(
                f"{where}: rate_hz: expected {1.0 / env.dt:g} Hz, at which {env_id} steps, found {self._spec.rate_hz:g}"
            )

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode of `seed` and return the first observation (obs_dim,) float32."""
        if self.environment.stored_state_id >= 0:
            self._agent.bc.restoreState(self.environment.stored_state_id)
        self._agent.apply_action(np.zeros(self._spec.action_dim))
        outside = np.random.get_state()
        np.random.seed(seed % 2**32)
        try:
            self.environment.reset()
        finally:
            np.random.set_state(outside)
        task = self.environment.task
        if hasattr(task, "old_potential"):
            # else the first step's reward would contain the way that reset's physics step went
            task.old_potential = task.calculate_task_potential()
        self._agent.collect_information_after_step()
        self._steps = 0
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
        _, reward, terminated, _, info = self.environment.step(np.clip(action, -1.0, 1.0))
        self._steps += 1
        self._read_state()
        return Step(
            self._spec.observe(self._physical),
            float(reward),
            float(info.get("cost", 0.0)),
            bool(terminated) or bool(self._spec.ends(self._physical)),
            self._steps >= self._spec.episode.max_steps,
            info,
        )

    def sense(self) -> RawFields:
        """Return the present state: the fields of a nav_msgs/msg/Odometry, and what else the robot senses."""
        return self._raw

    def position(self) -> tuple[float, float]:
        """Return (x, y) [m]."""
        fields = self._raw["nav_msgs/msg/Odometry"]
        return fields["pose.pose.position.x"], fields["pose.pose.position.y"]

    def close(self) -> None:
        """Disconnect from the physics server; a second call does nothing."""
        self.environment.close()

    def _read_state(self) -> None:
        client, body = self._agent.bc, self._agent.body_id
        position, quaternion = client.getBasePositionAndOrientation(body)
        linear, angular = client.getBaseVelocity(body)
        fields: dict[str, Any] = {
            "header.frame_id": FRAME,
            "child_frame_id": FRAME,
            "pose.pose.orientation": quaternion,
        }
        for index, axis in enumerate("xyz"):
            fields[f"pose.pose.position.{axis}"] = position[index]
            fields[f"twist.twist.linear.{axis}"] = linear[index]
            fields[f"twist.twist.angular.{axis}"] = angular[index]
        self._raw = {"nav_msgs/msg/Odometry": fields}
        if hasattr(self._agent, "rotor_ground_contact"):
            rotors = tuple(float(motor.get_velocity()) for motor in self._agent.motor_list)
            self._raw["sensor_msgs/msg/JointState"] = {"velocity": rotors}
            self._raw["std_msgs/msg/UInt8"] = {"data": int(self._agent.ground_collision_penalty)}
        self._physical = physical_of_raw(self._spec, self._raw)


def _make_environment(env_id: str, source: str) -> Any:
    # The package silences the physics engine through the names of the process's own streams, so it has to see these.
    with redirect_stdout(sys.__stdout__), redirect_stderr(sys.__stderr__):
        try:
            import gymnasium
            from bullet_safety_gym import get_bullet_safety_gym_env_list
        except ImportError as error:
            raise SimulationError(
                f"{source}: simulation.robot: expected the packages bullet-safety-gym, gymnasium and pybullet "
                f"to be installed, found: {error}"
            ) from error
        known = sorted(get_bullet_safety_gym_env_list())
        if env_id not in known:
            raise SimulationError(f"{source}: simulation.robot: expected one of {', '.join(known)}; found {env_id!r}")
        return gymnasium.make(env_id, disable_env_checker=True).unwrapped
