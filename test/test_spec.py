"""A robot description is checked in full on load, and computes observation, cost, reward and commands."""

from pathlib import Path

import numpy as np
import pytest

from saferule_core.data.transitions import Transitions
from saferule_core.errors import SpecError
from saferule_core.spec import load_spec, parse_spec

STATE = {"x": 7.0, "y": 0.0, "heading_sin": 0.0, "heading_cos": 1.0, "radial_error": 0.0}


def test_observe_scales_in_the_order_of_the_file(point_spec):
    assert point_spec.feature_names == ("x", "y", "heading_sin", "heading_cos", "radial_error")
    np.testing.assert_allclose(point_spec.observe(STATE), [0.7, 0.0, 0.0, 1.0, 0.0], rtol=1e-6)


def test_physical_undoes_observe(point_spec):
    observations = point_spec.observe({name: np.array([value, -value]) for name, value in STATE.items()})
    np.testing.assert_allclose(point_spec.physical(observations)["x"], [7.0, -7.0], rtol=1e-6)


def test_cost_and_reward_of_a_step(point_spec):
    command = {"force_x": 2.0, "force_y": 0.0}
    assert point_spec.step_cost(STATE, {"x": 6.5}, command) == 1.0
    assert point_spec.step_reward(STATE, {"x": 6.5}, command) == pytest.approx(0.5 - 0.002)


def test_relabel_recomputes_costs_and_ignores_the_label(point_spec):
    x = np.array([5.0, 6.5, 7.0])
    states = point_spec.observe({**{name: np.zeros(3) for name in STATE}, "x": x})
    logged = Transitions(states, np.zeros((3, 2)), np.zeros(3), np.zeros(3), states, np.zeros(3), [0, 0, 1])
    assert point_spec.relabel(logged).costs.tolist() == [0.0, 1.0, 1.0]


def test_command_and_normalise_action_are_inverse(point_spec):
    action = np.array([[-1.0, 0.25], [1.0, 0.0]])
    command = point_spec.command(action)
    np.testing.assert_allclose(command["force_x"], [-3.5, 3.5])
    np.testing.assert_allclose(point_spec.normalise_action(command), action, atol=1e-6)


def test_commands_never_leave_their_bounds(point_spec):
    assert point_spec.command(np.array([9.0, -9.0])) == {"force_x": 3.5, "force_y": -3.5}


def test_hash_follows_what_a_policy_depends_on(point_yaml, point_spec):
    described = parse_spec(point_yaml + "description: words\n")
    rescaled = parse_spec(point_yaml.replace("scale: 0.1", "scale: 0.2", 1))
    assert described.hash == point_spec.hash
    assert rescaled.hash != point_spec.hash


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate_hz: 10.0", "rate_hz: fast", "rate_hz: expected float, found 'fast'"),
        ("rate_hz: 10.0", "rate_hz: -1.0", r"rate_hz: expected a rate in \(0, 10000\] Hz, found -1.0"),
        ("rate_hz: 10.0", "rate: 10.0", "unknown field `rate`"),
        ("scale: 0.1", "scale: 0.0", "observation: x.scale: expected a number other than 0"),
        ("max_age: 0.35", "max_age: 0", "observation: x.max_age"),
        ("field: pose.pose.position.x", "field: pose..x", "observation: x.field: expected a path"),
        ("transform: yaw_sin_cos", "transform: pitch", "expected one of quaternion, yaw, yaw_sin_cos, found 'pitch'"),
        ("hypot(x, y)", "hypot(x, z)", "expected names of earlier signals"),
        ("abs(x) > 6.0", "abs(altitude) > 6.0", "cost.constraints.*expected signal names.*found 'altitude'"),
        ("limit: 3.0", "limit: -3.0", "cost.limit: expected a finite number >= 0"),
        ("low: -3.5", "low: 4.5", r"action\[0\].low, high: expected low < high"),
        ("type: nav_msgs/msg/Odometry", "type: Odometry", "expected a message type such as nav_msgs/msg/Odometry"),
        ("name: y,", "name: x,", "expected names that differ, found 'x'"),
        ("max_steps: 20", "max_steps: 0", "episode.max_steps: expected at least 1, found 0"),
        ("unit: N}", "unit: N, safe: 9.0}", r"action\[0\].safe: expected a value in \[-3.5, 3.5\], found 9.0"),
    ],
)
def test_every_error_names_file_key_expected_and_found(point_yaml, old, new, message):
    assert old in point_yaml
    with pytest.raises(SpecError, match=r"^point\.yaml: .*" + message):
        parse_spec(point_yaml.replace(old, new, 1), "point.yaml")


def test_an_unknown_function_is_named(point_yaml):
    broken = point_yaml.replace('expression: "abs(x) > 6.0"', 'function: "nowhere:nothing"')
    with pytest.raises(SpecError, match="importable module:function, found 'nowhere:nothing'"):
        parse_spec(broken)


def test_a_missing_file_and_broken_yaml_are_spec_errors(tmp_path):
    with pytest.raises(SpecError, match=r"none\.yaml"):
        load_spec(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(SpecError, match=r"broken\.yaml: expected YAML"):
        load_spec(tmp_path / "broken.yaml")


def test_cost_over_a_signal_outside_the_observation_needs_the_bags(point_yaml):
    spec = parse_spec(
        point_yaml.replace('"abs(x) > 6.0"', '"altitude > 1.0"').replace(
            "action:\n",
            "signals:\n  - {name: altitude, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.z, "
            "max_age: 0.3}\naction:\n",
        )
    )
    rows = np.zeros((1, 5))
    with pytest.raises(SpecError, match="altitude"):
        spec.relabel(Transitions(rows, np.zeros((1, 2)), [0.0], [0.0], rows, [False], [True]))


@pytest.mark.parametrize(
    ("constraint", "needed"),
    [
        ('expression: "abs(x) > 6.0"', set()),
        ('expression: "abs(x - previous.x) > 1.0"', {"previous"}),
        ('expression: "abs(action.force_x) > 2.0"', {"command"}),
        ("function: 'numpy:abs'", {"previous", "command"}),
    ],
)
def test_it_says_what_the_cost_looks_at_besides_the_state(point_yaml, constraint, needed):
    spec = parse_spec(point_yaml.replace('expression: "abs(x) > 6.0"', constraint))
    assert (spec.cost_needs_previous, spec.cost_needs_command) == ("previous" in needed, "command" in needed)


@pytest.mark.parametrize(
    ("expression", "costs"),
    [("abs(x - previous.x) > 1.0", [0.0, 1.0, 0.0]), ("abs(action.force_x) > 2.0", [1.0, 0.0, 0.0])],
)
def test_relabel_looks_at_the_state_before_and_at_the_command_where_the_cost_does(point_yaml, expression, costs):
    spec = parse_spec(point_yaml.replace("abs(x) > 6.0", expression))
    before, after = (
        spec.observe({**{name: np.zeros(3) for name in STATE}, "x": np.array(x)})
        for x in ([1.0, 2.0, 4.0], [1.5, 4.0, 4.5])
    )
    actions = np.array([[0.9, 0.0], [0.1, 0.0], [0.1, 0.9]])
    logged = Transitions(before, actions, np.zeros(3), np.zeros(3), after, np.zeros(3), [0, 0, 1])
    assert spec.relabel(logged).costs.tolist() == costs


def test_the_description_in_the_readme_is_a_description():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    spec = parse_spec(text.split("```yaml\n")[1].split("```")[0], "README.md")
    assert (spec.obs_dim, spec.action_dim) == (39, 1)
