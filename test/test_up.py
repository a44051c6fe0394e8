"""`saferule up` with the real nodes and the simulated point: they come up in order, and nothing is left of them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import WrenchStamped
from ros_testing import ROOT, write_yaml_of_point_robot
from std_msgs.msg import UInt64

from saferule.msg import FilterStatus
from saferule_core import agents
from saferule_core.spec import load_spec
from saferule_core.store import Card, PolicyStore
from saferule_ros import bringup, up
from saferule_ros.bringup import BringUpError
from saferule_ros.messages import LATCHED
from saferule_ros.up import BringUp

NAMES = [node.name for node in bringup.nodes(True)]


@pytest.fixture
def robot(tmp_path, point_yaml, ros_graph, monkeypatch):
    """Overrides for a simulated point with a policy; the nodes run in the domain of `ros_graph`."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(ros_graph.domain))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "test"), os.environ.get("PYTHONPATH", "")]))
    path = write_yaml_of_point_robot(tmp_path / "point.yaml", point_yaml)
    spec, store = load_spec(path), PolicyStore(tmp_path / "store")
    agent = agents.build("return_conditioned", spec.obs_dim, spec.action_dim, {"hidden": (4,)})
    store.activate(store.add(agent, spec, Card(seed=0, created="2026-01-01")))
    return {
        "": {"spec": str(path), "store": str(store.root)},
        "flight_recorder": {"out_dir": str(tmp_path / "recordings")},
        "unlearning_server": {"work_dir": str(tmp_path / "repairs")},
    }


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(parent):
    """Return the processes that a process has started: command line -> pid."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == parent:
                command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[command] = int(stat.parent.name)
    return found


def wait_for_line(path, text, process, timeout_s=60.0):
    limit = time.monotonic() + timeout_s
    while text not in path.read_text(encoding="utf-8"):
        assert process.poll() is None and time.monotonic() < limit, path.read_text(encoding="utf-8")
        time.sleep(0.05)


def wait_until_gone(pids, timeout_s=20.0):
    limit = time.monotonic() + timeout_s
    while running := {name for name, pid in pids.items() if is_running(pid)}:
        assert time.monotonic() < limit, f"left: {running}"
        time.sleep(0.05)


def test_all_nodes_are_active_inside_and_gone_after(robot, ros_graph, tmp_path):
    arguments = {"namespace": "robot_1"}
    with BringUp(True, arguments, robot, log_file=tmp_path / "nodes.log") as nodes:
        pids = nodes.pids()
        assert list(pids) == NAMES
        assert all(ros_graph.is_active(f"/robot_1/{name}") for name in NAMES)
        nodes.check()
    assert not [name for name, pid in pids.items() if is_running(pid)]
    assert list((tmp_path / "recordings").rglob("metadata.yaml"))
    assert "[policy_executor] " in (tmp_path / "nodes.log").read_text(encoding="utf-8")


def test_with_a_command_filter_the_robot_hears_the_executor_through_it(robot, ros_graph, tmp_path):
    unfiltered = ros_graph.collect("unfiltered/cmd_force", WrenchStamped)
    statuses = ros_graph.collect("filter_status", FilterStatus)
    without = ["flight_recorder", "unlearning_server"]
    robot["command_filter"] = {"rates": ["x=action.force_x"], "horizon": 0.5}
    nodes = BringUp(True, {"command_filter": "true"}, robot, log_file=tmp_path / "nodes.log", without=without)
    with nodes:
        ros_graph.wait_until(lambda: len(unfiltered) > 5 and len(statuses) > 5, "commands through the filter")
        (writer,) = ros_graph.node.get_publishers_info_by_topic("cmd_force")
        assert writer.node_name == "command_filter"
        missed = ros_graph.collect("sim_robot/missed_commands", UInt64, LATCHED)
        ticks = len(statuses)
        ros_graph.wait_until(lambda: len(statuses) > ticks + 50 and missed, "some more")
        assert missed[-1].data < len(statuses)


def test_a_node_that_refuses_ends_the_others_and_is_named(robot, tmp_path):
    robot[""]["store"] = str(tmp_path / "nothing")
    nodes = BringUp(True, overrides=robot, log_file=tmp_path / "nodes.log")
    with pytest.raises(BringUpError, match="/policy_executor: expected it to configure, found it unconfigured"):
        nodes.start()
    pids = nodes.pids()
    nodes.stop()
    assert not [name for name, pid in pids.items() if is_running(pid)]


def test_only_the_end_of_a_vital_node_is_an_error(robot, tmp_path):
    with BringUp(True, {"autostart": "false"}, robot, log_file=tmp_path / "nodes.log") as nodes:
        os.kill(nodes.pids()["flight_recorder"], signal.SIGKILL)
        wait_until_gone({"flight_recorder": nodes.pids()["flight_recorder"]})
        nodes.check()
        os.kill(nodes.pids()["cost_monitor"], signal.SIGKILL)
        wait_until_gone({"cost_monitor": nodes.pids()["cost_monitor"]})
        with pytest.raises(BringUpError, match="cost_monitor ended with exit code -9; its last lines were"):
            nodes.check()
    log = (tmp_path / "nodes.log").read_text(encoding="utf-8")
    assert "[up] flight_recorder ended with exit code -9; the others go on" in log


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_no_node_outlives_the_command(robot, tmp_path, how):
    params = tmp_path / "params.yaml"
    params.write_text("/**/flight_recorder: {ros__parameters: {out_dir: recordings}}\n", encoding="utf-8")
    command = [sys.executable, "-m", "saferule_ros.up", "--simulation", "--params-file", str(params)]
    command += ["--spec", robot[""]["spec"], "--store", robot[""]["store"]]
    with (tmp_path / "up.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
        wait_for_line(tmp_path / "up.log", "all nodes are up", process)
        children = children_of(process.pid)
        assert len(children) == len(NAMES)
        process.send_signal(how)
        assert process.wait(30.0) == (0 if how == signal.SIGTERM else -how)
    wait_until_gone(children)


def test_a_wrong_argument_is_refused_before_anything_starts(capsys):
    assert up.main(["--spec", "nothing"]) == 1
    assert "spec nothing: expected a YAML file or one of" in capsys.readouterr().err
