"""The package files agree with each other and with the code; colcon and rosdep are silent where they do not."""

import ast
import configparser
import importlib
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

import saferule_core
from saferule_ros import bringup

ROOT = Path(__file__).resolve().parents[1]
INTERFACES = sorted(path for folder in ("msg", "srv", "action") for path in (ROOT / folder).iterdir())
EXACT = re.compile(r"^(?P<name>[A-Za-z0-9_.-]+)(\[[a-z,]+\])?==(?P<version>[0-9][A-Za-z0-9.]*)$")


@pytest.fixture(scope="module")
def manifest():
    """package.xml, validated as colcon and the ROS build farm do."""
    package = pytest.importorskip("catkin_pkg.package")
    warnings = []
    parsed = package.parse_package(str(ROOT / "package.xml"), warnings=warnings)
    assert not warnings
    return parsed


def scripts():
    """The console scripts of setup.cfg: name -> module:function."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options.entry_points"]["console_scripts"].strip().splitlines()
    return dict(re.split(r"\s*=\s*", line.strip()) for line in lines)


def pinned(name):
    """The lines of a requirements file: package -> version."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    matches = {line: EXACT.match(line) for line in lines if line}
    assert all(matches.values()), f"{name}: not pinned: {[line for line, match in matches.items() if not match]}"
    return {match["name"].lower().replace("_", "-"): match["version"] for match in matches.values()}


def imported(folder):
    """The top-level names that the modules of a folder import."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.partition(".")[0])
    return names


def test_the_manifest_is_valid(manifest):
    assert (manifest.name, manifest.package_format, manifest.licenses) == ("saferule", 3, ["Apache-2.0"])
    assert manifest.get_build_type() == "ament_cmake"
    assert [group.name for group in manifest.member_of_groups] == ["rosidl_interface_packages"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


def test_versions_agree(manifest):
    setup = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))[1]
    assert manifest.version == setup == saferule_core.__version__


def test_every_ros_package_that_is_imported_is_declared(manifest):
    ours = {"saferule", "saferule_core", "saferule_ros"}
    used = imported("saferule_ros") - ours
    libraries = ("rclpy", "launch", "launch_ros", "ament_index_python")
    ros = {name for name in used if name.endswith(("_msgs", "_interfaces")) or name in libraries}
    declared = {dependency.name for dependency in manifest.exec_depends}
    assert ros and ros <= declared


def test_the_science_imports_no_ros():
    used = imported("saferule_core")
    assert not {name for name in used if name.startswith(("rcl", "saferule_ros", "launch")) or name.endswith("_msgs")}
    assert not used & {"saferule", "pickle", "multiprocessing", "cloudpickle", "joblib"}


def test_every_interface_is_built():
    listed = re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert sorted(listed) == [path.relative_to(ROOT).as_posix() for path in INTERFACES]


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_every_field_of_an_interface_is_explained(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# "), "the first line says what it is for"
    fields = [line for line in lines if line and line != "---" and not line.startswith("#")]
    states = ("uint8 state", "uint8 status", "uint8 phase")  # their constants stand above them
    assert not [line for line in fields if "#" not in line and line not in states]


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_every_interface_can_be_imported(path):
    pytest.importorskip("rclpy")
    module = importlib.import_module(f"saferule.{path.parent.name}")
    assert hasattr(module, path.stem)


@pytest.mark.parametrize(("name", "target"), scripts().items())
def test_every_console_script_resolves(name, target):
    pytest.importorskip("rclpy")
    module, _, function = target.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_node_of_the_table_has_a_console_script():
    nodes = {node.name: f"saferule_ros.{node.name}:main" for node in bringup.NODES}
    assert scripts() == {"saferule": "saferule_core.cli:main", **nodes}


def test_requirements_are_pinned_and_the_constraints_agree():
    required, constraints = pinned("requirements.txt"), pinned("constraints.txt")
    assert required.items() <= constraints.items()
    extra = pinned("requirements-safety-gymnasium.txt")
    assert extra["safety-gymnasium"] in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert not extra.keys() & constraints.keys()


def test_every_package_that_is_imported_is_required():
    """What comes only with something else may go with it."""
    used = imported("saferule_core") - {"saferule_core"} - set(sys.stdlib_module_names)
    providers = importlib.metadata.packages_distributions()
    names = {name: {found.lower().replace("_", "-") for found in providers.get(name, [name])} for name in used}
    required = set(pinned("requirements.txt"))
    assert not {name: found for name, found in names.items() if not found & required}
