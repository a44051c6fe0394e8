"""The SROS2 policy has the structure that `ros2 security` reads, and allows the nodes what they do and no more.

The structure is that of sros2's policy schema, version 0.2.0: elements, how often each may come, and attributes.
"""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from saferule_core.command_filter import unfiltered
from saferule_core.spec import load_spec
from saferule_ros import bringup

ROOT = Path(__file__).resolve().parents[1]
POLICY = ROOT / "config" / "sros2" / "ball_circle.policy.xml"
RULES = ("ALLOW", "DENY")
ANY = None
# element -> (children, whether they may be mixed and missing, required attributes, optional attributes)
SCHEMA = {
    "policy": (("enclaves",), False, {"version": ("0.2.0",)}, {}),
    "enclaves": (("enclave",), False, {}, {}),
    "enclave": (("profiles",), False, {"path": ANY}, {}),
    "profiles": (("profile",), False, {}, {"type": ANY}),
    "profile": (("topics", "services", "actions"), True, {"ns": ANY, "node": ANY}, {}),
    "topics": (("topic",), False, {}, {"publish": RULES, "subscribe": RULES}),
    "services": (("service",), False, {}, {"reply": RULES, "request": RULES}),
    "actions": (("action",), False, {}, {"call": RULES, "execute": RULES}),
    "topic": ((), True, {}, {}),
    "service": ((), True, {}, {}),
    "action": ((), True, {}, {}),
}


def defects(element):
    """Return what is wrong with an element and all below it."""
    children, may_lack, required, optional = SCHEMA[element.tag]
    allowed = {**required, **optional}
    found = [f"{element.tag}: no {name}" for name in required if name not in element.attrib]
    for name, value in element.attrib.items():
        if name not in allowed or (allowed[name] is not ANY and value not in allowed[name]):
            found.append(f"{element.tag}: {name}={value!r}")
    if not may_lack and not len(element):
        found.append(f"{element.tag}: empty")
    if element.tag == "policy" and len(element) != 1:
        found.append("policy: more than one child")
    for child in element:
        found += defects(child) if child.tag in children else [f"{element.tag}: {child.tag}"]
    return found


@pytest.fixture(scope="module")
def policy():
    return ElementTree.parse(POLICY).getroot()


def names(policy, node, kind, rule):
    """Return what a node is allowed, with ~ for its own name."""
    (profile,) = policy.findall(f".//profile[@node='{node}']")
    return {
        item.text.replace("~", node) for group in profile.findall(kind) if group.get(rule) == "ALLOW" for item in group
    }


def test_the_policy_has_the_structure_of_the_schema(policy):
    assert defects(policy) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('version="0.2.0"', 'version="0.1.0"'),
        ('publish="ALLOW"', 'publish="MAYBE"'),
        (' node="operator"', ""),
        ("topics", "topic"),
        ("<topic>/rosout</topic>", "<service>/rosout</service>"),
    ],
)
def test_the_check_of_the_structure_finds_defects(old, new):
    text = POLICY.read_text(encoding="utf-8")
    assert old in text and defects(ElementTree.fromstring(text.replace(old, new)))


def test_every_node_has_an_enclave_of_its_own(policy):
    found = {
        enclave.get("path"): [profile.get("node") for profile in enclave.iter("profile")]
        for enclave in policy.iter("enclave")
    }
    nodes = [*(node.name for node in bringup.NODES), "operator"]
    assert found == {f"/saferule/{name}": [name] for name in nodes}


def test_topics_are_those_of_the_robot_description(policy):
    spec = load_spec(ROOT / "config" / "ball_circle.yaml")
    commands, sensors = set(spec.command_topics), set(spec.sensor_topics) - set(spec.log_topics)
    for node in ("policy_executor", "cost_monitor", "flight_recorder"):
        assert sensors <= names(policy, node, "topics", "subscribe")
    assert commands | {"policy_status"} <= names(policy, "policy_executor", "topics", "publish")
    assert sensors | set(spec.log_topics) <= names(policy, "sim_robot", "topics", "publish")
    others = {node.name for node in bringup.NODES} - {"policy_executor", "command_filter"} | {"operator"}
    assert not [node for node in others if commands & names(policy, node, "topics", "publish")], "one node commands"
    assert {unfiltered(topic) for topic in commands} <= names(policy, "policy_executor", "topics", "publish")
    assert {unfiltered(topic) for topic in commands} <= names(policy, "command_filter", "topics", "subscribe")


def test_services_are_those_that_the_nodes_offer(policy):
    for node in bringup.NODES:
        source = (ROOT / "saferule_ros" / f"{node.name}.py").read_text(encoding="utf-8")
        made = re.findall(r'(?<!create_subscription)\(\s*\w+, "([^"]+)", [\w.]*on_', source)
        offered = {name.replace("~", node.name) for name in made}
        standard = re.compile(rf"{node.name}/(get|set|list|describe|change)_(?!policies)\w+")
        allowed = {name for name in names(policy, node.name, "services", "reply") if not standard.fullmatch(name)}
        assert allowed == offered, node.name


def test_only_the_server_swaps_and_only_the_operator_asks(policy):
    profiles = [profile.get("node") for profile in policy.iter("profile")]

    def asking(service):
        return [node for node in profiles if service in names(policy, node, "services", "request")]

    assert asking("policy_executor/swap_policy") == ["unlearning_server"]
    assert asking("unlearning_server/rollback") == asking("unlearn") == ["operator"]
    assert [node for node in profiles if names(policy, node, "actions", "call")] == ["operator"]
