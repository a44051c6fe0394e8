"""Expressions compute over signals, and can do nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saferule_core.errors import SpecError
from saferule_core.expressions import Expression

numbers = st.floats(-1e3, 1e3)


@given(x=numbers, y=numbers)
def test_arithmetic_agrees_with_python(x, y):
    assert Expression("2 * x - y / 4 + abs(y)")({"x": x, "y": y}) == pytest.approx(2 * x - y / 4 + abs(y))


def test_comparisons_and_logic_give_numbers_elementwise():
    indicator = Expression("abs(x) > 6.0 and not y < 0")
    result = indicator({"x": np.array([5.0, 7.0, 7.0]), "y": np.array([1.0, 1.0, -1.0])})
    assert result.tolist() == [0.0, 1.0, 0.0]


def test_the_sum_of_two_indicators_counts_both():
    assert Expression("(x > 0) + (y > 0)")({"x": 1.0, "y": 1.0}) == 2.0


def test_chained_comparison_is_an_interval():
    assert Expression("0 < x < 2")({"x": np.array([-1.0, 1.0, 3.0])}).tolist() == [0.0, 1.0, 0.0]


def test_names_include_dotted_ones():
    assert Expression("x - previous.x + action.force").names == {"x", "previous.x", "action.force"}


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "x.y.z", "[x]", "x[0]", "lambda: 1", "abs(x=1)", "'a'", "(x for x in y)", "x and", "", "f(x)",
     "abs(*x)", "x if y else z", "x := 1"],
)  # fmt: skip
def test_anything_else_is_refused_with_its_place(text):
    with pytest.raises(SpecError, match="robot.yaml: cost"):
        Expression(text, "robot.yaml: cost")


@pytest.mark.parametrize("text", ["1 / x", "9.0 ** 999 ** x", "y"])
def test_failing_arithmetic_and_missing_names_are_spec_errors(text):
    with pytest.raises(SpecError, match="cannot be computed"):
        Expression(text)({"x": 0.0} if text == "1 / x" else {"x": 9.0})
