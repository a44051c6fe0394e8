"""The bring-up table: order, arguments, and what a node is told."""

import importlib
import sys
from pathlib import Path

import pytest
import yaml

from saferule_ros import bringup
from saferule_ros.bringup import BringUpError

NAMES = [node.name for node in bringup.nodes(True)]


def entry(name):
    return next(node for node in bringup.NODES if node.name == name)


def told(command):
    """Return the parameters of a command line, read as ROS reads them."""
    pairs = [after.split(":=", 1) for before, after in zip(command, command[1:], strict=False) if before == "-p"]
    return {name: yaml.safe_load(value) for name, value in pairs}


def test_a_robot_has_no_simulated_robot():
    assert [node.name for node in bringup.nodes(False)] == [name for name in NAMES if name != "sim_robot"]
    assert [node.name for node in bringup.nodes(True)] == NAMES


def test_a_command_filter_is_there_where_it_is_wanted_before_what_it_filters(tmp_path):
    arguments = {**bringup.default_arguments(True), "command_filter": "true"}
    names = [node.name for node in bringup.nodes(True, arguments)]
    assert sorted(names) == sorted([*NAMES, "command_filter"])
    assert names.index("command_filter") < names.index("policy_executor")
    assert bringup.remappings(entry("policy_executor"), arguments) == {"cmd_force": "unfiltered/cmd_force"}
    assert "cmd_force:=unfiltered/cmd_force" in bringup.process_command(entry("policy_executor"), arguments)
    assert not bringup.remappings(entry("command_filter"), arguments)
    assert not bringup.remappings(entry("policy_executor"), bringup.default_arguments(True))
    overrides = {"": {"spec": "car_run"}}
    assert list(bringup.remappings(entry("policy_executor"), arguments, overrides)) == ["cmd_vel"]
    with pytest.raises(BringUpError, match="command_filter: expected the argument spec"):
        bringup.remappings(entry("policy_executor"), {**arguments, "spec": ""})


def test_all_nodes_are_configured_before_the_first_is_activated():
    steps = [(transition, node.name) for transition, node in bringup.transitions(bringup.nodes(True))]
    assert steps == [("configure", name) for name in NAMES] + [("activate", name) for name in NAMES]


def test_the_watch_comes_before_what_drives_and_the_simulated_robot_last():
    assert NAMES.index("flight_recorder") < NAMES.index("cost_monitor") < NAMES.index("policy_executor")
    assert NAMES[-1] == "sim_robot"


def test_an_empty_argument_leaves_the_parameters_file_as_it_is():
    assert bringup.parameters(entry("policy_executor"), bringup.default_arguments(False)) == {"use_sim_time": False}


def test_arguments_reach_the_nodes_that_take_them(tmp_path):
    arguments = {**bringup.default_arguments(True), "store": str(tmp_path), "policy": "active"}
    executor = bringup.parameters(entry("policy_executor"), arguments)
    assert executor["store"] == str(tmp_path) and executor["policy"] == "active" and executor["use_sim_time"]
    assert executor["spec"].endswith("config/ball_circle.yaml") and Path(executor["spec"]).is_file()
    assert set(bringup.parameters(entry("cost_monitor"), arguments)) == {"spec", "use_sim_time"}


def test_the_robot_that_makes_the_clock_does_not_follow_it():
    assert set(bringup.parameters(entry("sim_robot"), bringup.default_arguments(True))) == {"spec"}


def test_overrides_go_before_arguments_and_shared_ones_only_where_they_are_taken(tmp_path):
    overrides = {"": {"store": str(tmp_path), "policy": "abcdef"}, "cost_monitor": {"latch_stop": False}}
    arguments = {**bringup.default_arguments(True), "store": "elsewhere"}
    monitor = bringup.parameters(entry("cost_monitor"), arguments, overrides)
    assert monitor["latch_stop"] is False and "store" not in monitor
    assert bringup.parameters(entry("policy_executor"), arguments, overrides)["store"] == str(tmp_path)


def test_a_policy_id_of_digits_stays_a_string():
    arguments = {**bringup.default_arguments(False), "policy": "12345678", "store": "a b"}
    command = bringup.process_command(entry("policy_executor"), arguments)
    assert command[:3] == [sys.executable, "-m", "saferule_ros.policy_executor"]
    assert told(command)["policy"] == "12345678"
    assert told(command)["store"] == str(Path("a b").absolute())


@pytest.mark.parametrize(("namespace", "name"), [("", "/x"), ("/", "/x"), ("a", "/a/x"), ("/a/b/", "/a/b/x")])
def test_names_carry_the_namespace(namespace, name):
    assert bringup.full_name(bringup.NodeEntry("x", ()), {"namespace": namespace}) == name


def test_descriptions_are_found_by_name_and_by_path(tmp_path, point_yaml):
    own = tmp_path / "own.yaml"
    own.write_text(point_yaml, encoding="utf-8")
    assert bringup.config_path(own) == own
    assert bringup.config_path("car_run").name == "car_run.yaml"


def test_an_unknown_description_is_refused_with_those_that_exist():
    with pytest.raises(BringUpError, match="spec nothing: expected a YAML file or one of ball_circle, .*found neither"):
        bringup.config_path("nothing")


def test_a_missing_parameters_file_is_refused():
    with pytest.raises(BringUpError, match="params_file /nowhere.yaml: expected a YAML file"):
        bringup.params_path({"params_file": "/nowhere.yaml"})


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("1", True), ("0", False)])
def test_true_and_false_are_read(text, value):
    assert bringup.is_true({"autostart": text}, "autostart") is value


def test_neither_true_nor_false_is_refused():
    with pytest.raises(BringUpError, match="autostart: expected true or false, found 'maybe'"):
        bringup.is_true({"autostart": "maybe"}, "autostart")


def test_without_a_home_directory_logs_have_a_place(monkeypatch):
    for name in ("HOME", "ROS_HOME", "ROS_LOG_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert bringup.node_environment()["ROS_LOG_DIR"]
    monkeypatch.setenv("HOME", "/home/somebody")
    assert "ROS_LOG_DIR" not in bringup.node_environment()


def test_nodes_do_without_shared_memory_unless_somebody_says_otherwise(monkeypatch):
    monkeypatch.delenv("FASTDDS_BUILTIN_TRANSPORTS", raising=False)
    assert bringup.node_environment()["FASTDDS_BUILTIN_TRANSPORTS"] == "UDPv4"
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "SHM")
    assert "FASTDDS_BUILTIN_TRANSPORTS" not in bringup.node_environment()


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_file_has_every_parameter_of_a_node_and_no_other(name):
    """A typing error in a parameters file is silent in ROS."""
    managed_node = pytest.importorskip("saferule_ros.managed_node")
    module = importlib.import_module(f"saferule_ros.{name}")
    classes = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, managed_node.ManagedNode) and kind.__module__ == module.__name__
    ]
    assert len(classes) == 1
    declared = {parameter.name: parameter.default for parameter in classes[0].PARAMETERS}
    path = bringup.params_path({"params_file": ""})
    written = yaml.safe_load(path.read_text(encoding="utf-8"))[f"/**/{name}"]["ros__parameters"]
    assert set(written) == set(declared)
    assert {key: type(value) for key, value in written.items()} == {key: type(value) for key, value in declared.items()}
    assert set(entry(name).takes) <= set(declared)
