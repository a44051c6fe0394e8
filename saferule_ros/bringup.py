"""The one bring-up table: which nodes there are, in which order they start, and what they are told.

    for node in nodes(simulation=True):
        command = process_command(node, arguments, overrides)
    for transition, node in transitions(nodes(simulation=True)): ...

Plain data and small functions. `saferule_ros/launching.py` turns them into launch_ros actions, `saferule_ros/up.py`
into plain processes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from saferule_core.command_filter import unfiltered
from saferule_core.errors import SaferuleError
from saferule_core.spec import load_spec

PACKAGE = "saferule"

TRANSPORT = ("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
"""What Fast DDS is told where nobody else has told it: shared memory, its default between processes of one machine, can
hold up all others for a second when one of them is killed or frozen, and now and then a node that starts."""


class BringUpError(SaferuleError):
    """The nodes cannot be started, did not start, or one of them ended; the message says which and what to do."""


@dataclass(frozen=True)
class NodeEntry:
    """A node of the table: `name` is also its executable and its module in saferule_ros."""

    name: str
    takes: tuple[str, ...]
    """Bring-up arguments that are parameters of this node."""
    simulated: bool = False
    """It stands for the robot, so it is there only in simulation; it makes /clock and does not follow it."""
    vital: bool = False
    """When it ends, the others are stopped, too: the robot must not drive without it."""
    wanted_by: str = ""
    """Bring-up argument that has to be true for it to be there; empty: it always is."""
    commands: bool = False
    """It commands the robot: through the command filter, where there is one."""


@dataclass(frozen=True)
class Argument:
    """An argument of the launch files and of `saferule up`; an empty value leaves the parameters file's as it is."""

    name: str
    default: str
    description: str
    simulation_default: str | None = None

    def default_for(self, simulation: bool) -> str:
        """Return the default on a robot or in simulation."""
        return self.simulation_default if simulation and self.simulation_default is not None else self.default


# What records and what watches are there before the robot may move; a simulated robot moves when all else is there.
NODES = (
    NodeEntry("flight_recorder", takes=("spec",)),
    NodeEntry("cost_monitor", takes=("spec",), vital=True),
    NodeEntry("command_filter", takes=("spec",), vital=True, wanted_by="command_filter"),
    NodeEntry("policy_executor", takes=("spec", "store", "policy"), vital=True, commands=True),
    NodeEntry("unlearning_server", takes=("spec", "store")),
    NodeEntry("sim_robot", takes=("spec",), simulated=True, vital=True),
)

ARGUMENTS = (
    Argument("namespace", "", "namespace of all nodes"),
    Argument("use_sim_time", "false", "true: follow /clock instead of the machine's clock", simulation_default="true"),
    Argument("params_file", "", "parameters of all nodes (YAML); empty: params.yaml of this package"),
    Argument("policy", "", "policy to start with: `active`, or the id of one in the store"),
    Argument("spec", "", "robot description: a path, or a name such as ball_circle", simulation_default="ball_circle"),
    Argument("store", "", "policy store: path of a folder"),
    Argument("command_filter", "false", "true: a command_filter stands between policy_executor and robot"),
    Argument("autostart", "true", "true: configure and activate the nodes; false: only start them"),
    Argument("log_level", "info", "debug, info, warn, error or fatal"),
)

TRANSITIONS = ("configure", "activate")


def nodes(simulation: bool, arguments: Mapping[str, str] | None = None) -> tuple[NodeEntry, ...]:
    """Return the nodes of a robot, or of a simulated one, in their order; raises BringUpError."""
    arguments = arguments if arguments is not None else default_arguments(simulation)
    return tuple(
        node
        for node in NODES
        if (simulation or not node.simulated) and (not node.wanted_by or is_true(arguments, node.wanted_by))
    )


def transitions(entries: tuple[NodeEntry, ...]) -> list[tuple[str, NodeEntry]]:
    """Return the lifecycle transitions of the bring-up: all are configured before the first one is activated."""
    return [(transition, node) for transition in TRANSITIONS for node in entries]


def default_arguments(simulation: bool) -> dict[str, str]:
    """Return every argument with its default."""
    return {argument.name: argument.default_for(simulation) for argument in ARGUMENTS}


def share_directory() -> Path:
    """Return the folder with `config` and `launch`: of the installed package, or of the sources where it is not."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    for prefix in filter(None, prefixes):
        installed = Path(prefix) / "share" / PACKAGE
        if (installed / "config").is_dir():
            return installed
    return Path(__file__).resolve().parents[1]


def config_path(name: str | Path) -> Path:
    """Return the path of a robot description, given as a path or by the name of one that comes with the package.

    Raises:
        BringUpError: there is none.
    """
    given = Path(name).expanduser()
    shipped = share_directory() / "config"
    for candidate in (given, shipped / given, shipped / f"{given}.yaml"):
        if candidate.is_file():
            return candidate.absolute()
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml") if path.stem != "params"))
    raise BringUpError(f"spec {name}: expected a YAML file or one of {names}, found neither")


def params_path(arguments: Mapping[str, str]) -> Path:
    """Return the parameters file that the arguments name.

    Raises:
        BringUpError: it is not there.
    """
    path = Path(arguments["params_file"] or share_directory() / "config" / "params.yaml").expanduser().absolute()
    if not path.is_file():
        raise BringUpError(f"params_file {path}: expected a YAML file with parameters, found none")
    return path


def is_true(arguments: Mapping[str, str], name: str) -> bool:
    """Return an argument that is true or false.

    Raises:
        BringUpError: it is neither.
    """
    text = arguments[name].strip().lower()
    if text not in ("true", "false", "1", "0"):
        raise BringUpError(f"{name}: expected true or false, found {arguments[name]!r}")
    return text in ("true", "1")


def parameters(
    node: NodeEntry, arguments: Mapping[str, str], overrides: Mapping[str, Mapping[str, object]] | None = None
) -> dict[str, object]:
    """Return the parameters that go before those of the parameters file.

    `overrides` are parameters by node name; those under the empty name are for every node that takes them.

    Raises:
        BringUpError: an argument is not what it should be.
    """
    overrides = overrides or {}
    given: dict[str, object] = {name: arguments[name] for name in node.takes if arguments[name]}
    given |= {name: value for name, value in overrides.get("", {}).items() if name in node.takes}
    given |= overrides.get(node.name, {})
    if "spec" in given:
        given["spec"] = str(config_path(given["spec"]))
    if "store" in given:
        given["store"] = str(Path(given["store"]).expanduser().absolute())
    if not node.simulated:
        given["use_sim_time"] = is_true(arguments, "use_sim_time")
    return given


def remappings(
    node: NodeEntry, arguments: Mapping[str, str], overrides: Mapping[str, Mapping[str, object]] | None = None
) -> dict[str, str]:
    """Return topic -> topic that a node's names are changed by: with a command filter, what commands talks to it.

    Raises:
        BringUpError: the robot description that names the command topics is not given.
    """
    if not node.commands or not is_true(arguments, "command_filter"):
        return {}
    path = parameters(node, arguments, overrides).get("spec")
    if path is None:
        raise BringUpError("command_filter: expected the argument spec, which names the command topics, found none")
    return {topic: unfiltered(topic) for topic in load_spec(str(path)).command_topics}


def process_command(
    node: NodeEntry, arguments: Mapping[str, str], overrides: Mapping[str, Mapping[str, object]] | None = None
) -> list[str]:
    """Return the command line of a node as a plain process; raises BringUpError."""
    command = [sys.executable, "-m", f"saferule_ros.{node.name}", "--ros-args", "--log-level", arguments["log_level"]]
    command += ["-r", f"__node:={node.name}", "-r", f"__ns:=/{arguments['namespace'].strip('/')}"]
    for topic, other in remappings(node, arguments, overrides).items():
        command += ["-r", f"{topic}:={other}"]
    command += ["--params-file", str(params_path(arguments))]
    for name, value in parameters(node, arguments, overrides).items():
        command += ["-p", f"{name}:={json.dumps(value)}"]  # JSON is YAML, and an id of digits stays a string
    return command


def full_name(node: NodeEntry, arguments: Mapping[str, str]) -> str:
    """Return a node's name with its namespace, such as /robot_1/cost_monitor."""
    namespace = arguments["namespace"].strip("/")
    return f"/{namespace}/{node.name}" if namespace else f"/{node.name}"


def node_environment() -> dict[str, str]:
    """Return what nodes find in their environment beside what is there: they end with the process that started them."""
    environment = {"SAFERULE_STOP_WITH_PARENT": "1", "PYTHONUNBUFFERED": "1"}
    if TRANSPORT[0] not in os.environ:
        environment.update([TRANSPORT])
    if not any(os.environ.get(name) for name in ("HOME", "ROS_HOME", "ROS_LOG_DIR")):
        environment["ROS_LOG_DIR"] = str(Path(tempfile.gettempdir()) / "saferule_ros_log")  # ROS wants one of the three
    return environment
