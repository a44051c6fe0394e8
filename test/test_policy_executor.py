"""The executor as a process beside a simulated robot: a policy with a memory is told what really happened."""

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from geometry_msgs.msg import WrenchStamped
from nav_msgs.msg import Odometry
from ros_testing import nanoseconds, write_yaml_of_point_robot

from saferule_core import agents
from saferule_core.agents.memory import Memory
from saferule_core.signals import SignalReader
from saferule_core.spec import load_spec
from saferule_core.store import Card, PolicyStore

pytestmark = pytest.mark.ros

STEPS, EPISODES = 20, 2


def test_commands_are_those_of_a_memory_that_begins_with_each_episode(ros_graph, tmp_path, point_yaml):
    path = write_yaml_of_point_robot(tmp_path / "point.yaml", point_yaml)
    spec, store = load_spec(path), PolicyStore(tmp_path / "store")
    torch.manual_seed(0)
    agent = agents.build("decision_transformer", spec.obs_dim, spec.action_dim, {"context": 6})
    store.activate(store.add(agent, spec, Card(seed=0, created="2026-01-01")))
    robot = ros_graph.start("sim_robot", spec=path, real_time_factor=2.0, episodes=EPISODES)
    executor = ros_graph.start("policy_executor", spec=path, store=store.root, use_sim_time=True)
    states, commands = ros_graph.collect("odom", Odometry), ros_graph.collect("cmd_force", WrenchStamped)
    ros_graph.configure(robot, executor)
    ros_graph.wait_for_readers("odom", 2)
    ros_graph.wait_for_readers("episode", 1)
    ros_graph.activate(executor, robot)
    ros_graph.wait_until(lambda: f"drove {EPISODES} episodes" in ros_graph.log(robot), "the drive's end")

    seen = {nanoseconds(state.header.stamp): state for state in states}
    begins = sorted(seen)[:: STEPS + 1]
    reader, memory, chosen, sent = SignalReader(spec), Memory(5, spec.obs_dim, spec.action_dim), [], []
    for command in commands:
        now = nanoseconds(command.header.stamp)
        if now not in seen:  # before the first state, and when the robot stood still after the last
            continue
        if now in begins:
            memory.clear()
        reader.update("odom", seen[now], now)
        observation = spec.observe(reader.physical(now))[None]
        applied = {"force_x": command.wrench.force.x, "force_y": command.wrench.force.y}
        chosen.append(spec.command(agent.act(observation, memory)[0])["force_x"])
        sent.append(applied["force_x"])
        memory.add(observation, spec.normalise_action(applied)[None])
    assert len(sent) > EPISODES * STEPS
    np.testing.assert_allclose(sent, chosen, atol=1e-4)
