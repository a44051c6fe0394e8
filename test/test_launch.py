"""The launch files with the real launch_ros. `saferule up`, tested in test_up.py, starts the same table without it."""

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("launch_ros", reason="launch_ros is not installed")

from ros_testing import ROOT, write_yaml_of_point_robot

from saferule_core import agents
from saferule_core.spec import load_spec
from saferule_core.store import Card, PolicyStore
from saferule_ros import bringup, launching

RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)]))
sys.exit(service.run())
"""


@pytest.fixture
def launch(tmp_path, point_yaml, ros_graph, monkeypatch):
    """Starts a launch file with a point robot; its nodes run in the domain of `ros_graph`."""
    path = [str(ROOT), str(ROOT / "test"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.environ.get("AMENT_PREFIX_PATH") or sys.prefix)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(ros_graph.domain))
    description = write_yaml_of_point_robot(tmp_path / "point.yaml", point_yaml)
    spec, store = load_spec(description), PolicyStore(tmp_path / "store")
    agent = agents.build("return_conditioned", spec.obs_dim, spec.action_dim, {"hidden": (4,)})
    store.activate(store.add(agent, spec, Card(seed=0, created="2026-01-01")))
    params = tmp_path / "params.yaml"
    params.write_text("/**/flight_recorder: {ros__parameters: {out_dir: recordings}}\n", encoding="utf-8")
    given = {"spec": description, "store": store.root, "params_file": params}

    def start(name, **arguments):
        words = [f"{key}:={value}" for key, value in {**given, **arguments}.items()]
        # Ctrl-C is ignored by what a shell without job control starts in the background; not so here.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [sys.executable, "-c", RUN, str(ROOT / "launch" / name), *words],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)

    return start


@pytest.mark.parametrize("simulation", [False, True])
def test_the_arguments_are_those_of_the_table(simulation):
    declared = {argument.name for argument in launching.describe(simulation).get_launch_arguments()}
    assert declared == set(bringup.default_arguments(simulation))


@pytest.mark.parametrize(("name", "simulation"), [("saferule.launch.py", False), ("demo.launch.py", True)])
def test_a_launch_file_brings_the_nodes_up_and_ctrl_c_ends_them(launch, ros_graph, name, simulation):
    process = launch(name, namespace="robot_1")
    nodes = [node.name for node in bringup.nodes(simulation)]
    ros_graph.wait_until(lambda: all(ros_graph.is_active(f"/robot_1/{node}") for node in nodes), "active nodes")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60.0)
    assert process.returncode == 0, output
    assert output.count("process has finished cleanly") == len(nodes), output
    assert "all nodes are up" in output


def test_without_autostart_the_nodes_wait(launch, ros_graph):
    process = launch("demo.launch.py", autostart="false")
    assert not ros_graph.is_active("/policy_executor")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60.0)
    assert process.returncode == 0 and "all nodes are up" not in output, output


def test_a_node_that_refuses_ends_the_launch_with_an_error(launch, tmp_path):
    process = launch("demo.launch.py", store=tmp_path / "nothing")
    output, _ = process.communicate(timeout=120.0)
    assert process.returncode == 1, output
    assert "/policy_executor: expected it to configure, found it unconfigured" in output
