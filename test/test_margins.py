"""Margins are read off the constraints of a description."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saferule_core.margins import Margins
from saferule_core.spec import load_spec, parse_spec


def margins_of(yaml: str, expression: str) -> Margins:
    return Margins(parse_spec(yaml.replace("abs(x) > 6.0", expression)))


@pytest.mark.parametrize(
    ("expression", "margin", "share"),
    [
        ("abs(x) > 6.0", 4.0, 4.0 / 6.0),
        ("6.0 < x", 4.0, 4.0 / 6.0),
        ("x >= 6.0 or y < 0.5", 0.5, 4.0 / 6.0),
        ("(x > 6.0) + (y > 2.0)", 1.0, 0.5),
        ("x > 1.0 and y > 2.0", 1.0, 0.5),
        ("1.0 < x < 3.0", -1.0, -1.0 / 3.0),
        ("not hypot(x, y) < 4.0", 4.0 - math.sqrt(5.0), None),
        ("10.0 * (x > 2 * pi)", 2 * math.pi - 2.0, 1.0 - 1.0 / math.pi),
        ("y > x", 1.0, math.nan),
        ("x > 0.0", -2.0, math.nan),
        ("x", math.nan, math.nan),
        ("x == 2.0 or y > 3.0", math.nan, math.nan),
        ("1.0 - (x > 6.0)", math.nan, math.nan),
    ],
)
def test_margins_of_expressions(point_yaml, expression, margin, share):
    margins, state = margins_of(point_yaml, expression), {"x": 2.0, "y": 1.0}
    assert margins.physical(state)["outside_bounds"] == pytest.approx(margin, nan_ok=True)
    if share is not None:
        assert margins.shares(state)["outside_bounds"] == pytest.approx(share, nan_ok=True)


EXPRESSIONS = ("abs(x) > 1.0", "x > 1.0 or y < -1.0", "x < 1.0 and not y > 0.5", "-1.0 < x < 1.0", "3 * (y > x)")


@given(st.sampled_from(EXPRESSIONS), st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_the_margin_is_positive_exactly_where_the_constraint_is_not_broken(expression, x, y):
    from conftest import POINT_SPEC

    spec = parse_spec(POINT_SPEC.replace("abs(x) > 6.0", expression))
    margin = Margins(spec).physical({"x": x, "y": y})["outside_bounds"]
    if margin != 0.0:
        assert (margin < 0.0) == (spec.costs({"x": x, "y": y}, None, None)["outside_bounds"] > 0.0)


def test_arrays_give_arrays(point_spec):
    margins = Margins(point_spec).physical({"x": np.array([0.0, 7.0])})
    assert np.array_equal(margins["outside_bounds"], [6.0, -1.0])


def test_commands_and_the_state_before_can_be_bounded(point_yaml):
    margins = margins_of(point_yaml, "abs(x - previous.x) > 0.5 or abs(action.force_x) > 3.0")
    assert margins.physical({"x": 1.0}, {"x": 0.9}, {"force_x": -1.0})["outside_bounds"] == pytest.approx(0.4)
    assert math.isnan(margins.physical({"x": 1.0}, None, {"force_x": -1.0})["outside_bounds"])
    assert margins.needs("outside_bounds") == {"x", "previous.x", "action.force_x"}


@pytest.mark.parametrize("name", ["ball_circle", "ball_run", "car_run", "drone_run", "panda_reach", "point_circle"])
def test_every_constraint_of_the_example_robots_has_a_margin(name):
    margins = Margins(load_spec(f"config/{name}.yaml"))
    assert margins.known == margins.names
