"""A Franka Panda that moves its tool to and fro between goals on both sides of a zone that the tool must not enter.

    robot = PandaRobot(spec, "reach")                       # spec.simulation.robot: "panda:reach"

The arm takes the velocity of its tool, and follows it with the joints by damped least squares, a rest posture in what
freedom is left:

    dq = J^T (J J^T + damping^2 1)^-1 v + N posture_gain (q_rest - q),   N = 1 - J^+ J, no joint above its top speed

The tool goes no faster than TOP_SPEED, whatever its direction, so every way round costs time. The zone is a sphere
that lies on each straight line between two goals: what is most rewarding is not safe. Only the tool counts, not the
links behind it. Joint states come as sensor_msgs/msg/JointState (position and velocity of the seven joints of the
arm), the tool as geometry_msgs/msg/PoseStamped and the goal as geometry_msgs/msg/PointStamped. Reward and cost are
the scene's own; tests hold them against what the RobotSpec computes from these messages.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saferule_core.errors import SimulationError
from saferule_core.signals import physical_of_raw
from saferule_core.sim.robots import RawFields, Step
from saferule_core.spec import RobotSpec

FRAME = "panda_link0"
RATE_HZ = 20.0
SUBSTEPS = 4
JOINTS = 7
FINGERS = (9, 10)
TOOL = 11
REST = np.array([0.0, 0.0, 0.0, -2.2, 0.0, 2.2, 0.785])
JOINT_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])
JOINT_TORQUE = [87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0]
TOP_SPEED = 0.6
DAMPING = 0.05
POSTURE_GAIN = 1.0

KEEP_OUT = np.array([0.5, 0.0, 0.3])
KEEP_OUT_RADIUS = 0.24
GOAL = np.array([0.5, 0.4, 0.3])
GOAL_SPREAD = np.array([0.04, 0.04, 0.05])
REACHED = 0.08
REWARD_PER_METRE = 10.0


class PandaRobot:
    """The arm and its goals."""

    def __init__(self, spec: RobotSpec, scene: str) -> None:
        """Make the robot.

        Raises:
            SimulationError: there is no such scene, the package is missing, or the scene does not fit the description.
        """
        self._spec = spec
        where = spec.source
        if scene != "reach":
            raise SimulationError(f"{where}: simulation.robot: expected panda:reach, found 'panda:{scene}'")
        if spec.action_dim != 3:
            raise SimulationError(f"{where}: action: expected the 3 velocities of the tool, found {spec.action_dim}")
        if abs(spec.rate_hz - RATE_HZ) > 0.01:
            raise SimulationError(f"{where}: rate_hz: expected {RATE_HZ:g} Hz, found {spec.rate_hz:g}")
        self._client, self._arm = _load(where)
        self._client.setPhysicsEngineParameter(fixedTimeStep=1.0 / RATE_HZ, numSubSteps=SUBSTEPS)
        self._start = self._client.saveState()
        self.reset(0)

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode of `seed` and return the first observation (obs_dim,) float32."""
        self._random = np.random.default_rng(seed)
        self._client.restoreState(self._start)
        self._side = self._random.choice([-1.0, 1.0])
        posture = REST + self._random.uniform(-0.1, 0.1, JOINTS)
        posture[0] -= 0.7 * self._side
        for joint in range(JOINTS):
            self._client.resetJointState(self._arm, joint, posture[joint])
        self._move(np.zeros(JOINTS))
        self._goal = self._draw_goal()
        self._steps = 0
        self._sense()
        return self._spec.observe(self._physical)

    def step(self, action: np.ndarray) -> Step:
        """Move the tool by an action (3,) in [-1, 1] for one control period.

        Raises:
            SimulationError: the action has another shape, or is not finite.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (3,) or not np.isfinite(action).all():
            raise SimulationError(f"{self._spec.source}: expected an action of 3 finite numbers, found {action}")
        velocity = np.array(list(self._spec.command(action).values()))
        velocity *= min(1.0, TOP_SPEED / max(np.linalg.norm(velocity), 1e-9))
        before = np.linalg.norm(self._goal - self._tool)
        self._move(self._joint_speeds(velocity))
        self._steps += 1
        self._sense()
        after = np.linalg.norm(self._goal - self._tool)
        inside = np.linalg.norm(self._tool - KEEP_OUT) < KEEP_OUT_RADIUS
        if after < REACHED:
            self._side = -self._side
            self._goal = self._draw_goal()
            self._sense()
        return Step(
            self._spec.observe(self._physical),
            float(REWARD_PER_METRE * (before - after)),
            float(inside),
            bool(self._spec.ends(self._physical)),
            self._steps >= self._spec.episode.max_steps,
            {"reached": bool(after < REACHED)},
        )

    def sense(self) -> RawFields:
        """Return the present state as message fields of joint state, tool pose and goal."""
        return self._raw

    def position(self) -> tuple[float, float]:
        """Return the tool as seen from the side, (y, z) [m]: from above one would not see it pass over the zone."""
        return float(self._tool[1]), float(self._tool[2])

    def close(self) -> None:
        """Disconnect from the physics server; a second call does nothing."""
        if self._client.isConnected():
            self._client.disconnect()

    def _draw_goal(self) -> np.ndarray:
        return GOAL * [1.0, self._side, 1.0] + self._random.uniform(-GOAL_SPREAD, GOAL_SPREAD)

    def _joint_speeds(self, velocity: np.ndarray) -> np.ndarray:
        """Return the joint speeds (7,) [rad/s] that move the tool at `velocity` (3,) [m/s]."""
        still = [0.0] * (JOINTS + len(FINGERS))
        configuration = [*self._joints, *[0.0] * len(FINGERS)]
        linear, _ = self._client.calculateJacobian(self._arm, TOOL, [0.0, 0.0, 0.0], configuration, still, still)
        jacobian = np.array(linear)[:, :JOINTS]
        inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING**2 * np.eye(3))
        posture = POSTURE_GAIN * (REST - self._joints)
        speeds = inverse @ velocity + posture - inverse @ (jacobian @ posture)
        return speeds / max(1.0, np.max(np.abs(speeds) / JOINT_SPEED))

    def _move(self, speeds: np.ndarray) -> None:
        """Let the motors of the joints run at `speeds` (7,) [rad/s] for one control period."""
        self._client.setJointMotorControlArray(
            self._arm,
            list(range(JOINTS)),
            self._client.VELOCITY_CONTROL,
            targetVelocities=list(speeds),
            forces=JOINT_TORQUE,
        )
        self._client.stepSimulation()

    def _sense(self) -> None:
        states = self._client.getJointStates(self._arm, list(range(JOINTS)))
        link = self._client.getLinkState(self._arm, TOOL, computeForwardKinematics=1)
        self._joints = np.array([state[0] for state in states])
        self._tool = np.array(link[4])
        tool: dict[str, Any] = {"header.frame_id": FRAME, "pose.orientation": link[5]}
        goal: dict[str, Any] = {"header.frame_id": FRAME}
        for index, axis in enumerate("xyz"):
            tool[f"pose.position.{axis}"] = float(self._tool[index])
            goal[f"point.{axis}"] = float(self._goal[index])
        joints = {"position": tuple(self._joints.tolist()), "velocity": tuple(state[1] for state in states)}
        self._raw = {
            "sensor_msgs/msg/JointState": joints,
            "geometry_msgs/msg/PoseStamped": tool,
            "geometry_msgs/msg/PointStamped": goal,
        }
        self._physical = physical_of_raw(self._spec, self._raw)


def _load(source: str) -> tuple[Any, int]:
    """Return a physics server and the arm in it: weightless, since a Panda carries its own weight, and untouchable."""
    try:
        import pybullet
        import pybullet_data
        from pybullet_utils.bullet_client import BulletClient
    except ImportError as error:
        raise SimulationError(
            f"{source}: simulation.robot: expected the package pybullet to be installed, found: {error}"
        ) from error
    client = BulletClient(pybullet.DIRECT)
    client.setAdditionalSearchPath(pybullet_data.getDataPath())
    arm = client.loadURDF("franka_panda/panda.urdf", useFixedBase=True)
    for link in range(-1, client.getNumJoints(arm)):
        client.setCollisionFilterGroupMask(arm, link, 0, 0)
    for finger in FINGERS:
        client.setJointMotorControl2(arm, finger, client.POSITION_CONTROL, targetPosition=0.0, force=20.0)
    return client, arm
