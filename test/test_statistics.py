"""Bounds of means and proportions, and the cases where a formula would say too much."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saferule_core.errors import DataError
from saferule_core.validation.statistics import paired_difference, proportion, summarise

samples = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


def test_the_bounds_are_students():
    summary = summarise([0.0, 3.0, 1.0, 0.0], confidence=0.95)
    assert summary.mean == 1.0
    assert summary.upper == pytest.approx(1.0 + 2.353363 * math.sqrt(2.0) / 2.0, rel=1e-6)
    assert summary.upper - summary.mean == pytest.approx(summary.mean - summary.lower)
    assert summary.note == ""


@given(samples, st.floats(0.55, 0.99))
def test_bounds_enclose_the_mean_and_widen_with_confidence(values, confidence):
    summary, wider = summarise(values, confidence), summarise(values, (1.0 + confidence) / 2.0)
    assert summary.lower <= summary.mean <= summary.upper
    assert wider.upper >= summary.upper and wider.lower <= summary.lower


def test_the_upper_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [summarise(rng.normal(5.0, 2.0, 10), 0.9).upper >= 5.0 for _ in range(2000)]
    assert np.mean(held) == pytest.approx(0.9, abs=0.025)


def test_one_episode_has_no_bound_and_says_so():
    summary = summarise([3.0])
    assert (summary.lower, summary.upper) == (None, None)
    assert "single episode" in summary.note


def test_equal_episodes_are_bounded_by_their_value_and_say_what_may_hide():
    summary = summarise([0.1] * 20, confidence=0.95)
    assert summary.mean == summary.upper == summary.lower == 0.1
    assert "14%" in summary.note


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_values_that_are_no_figures_are_refused(values):
    with pytest.raises(DataError):
        summarise(values)


@pytest.mark.parametrize("confidence", [0.0, 0.5, 1.0, math.nan])
def test_a_confidence_out_of_range_is_refused(confidence):
    with pytest.raises(DataError, match="confidence"):
        summarise([1.0, 2.0], confidence)


def test_pairs_remove_what_the_starts_share():
    starts = np.array([0.0, 100.0, 200.0, 300.0])
    change = paired_difference(starts, starts - np.array([1.0, 2.0, 1.0, 2.0]))
    assert change.mean == -1.5 and change.upper < 0.0


def test_pairs_need_partners():
    with pytest.raises(DataError, match="expected pairs"):
        paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("hits", "count", "lower", "upper"),
    [(0, 20, 0.0, 0.1391), (20, 20, 0.8609, 1.0), (1, 20, 0.00256, 0.2161)],
)
def test_clopper_pearson(hits, count, lower, upper):
    rate = proportion(hits, count, confidence=0.95)
    assert (rate.lower, rate.upper) == (pytest.approx(lower, abs=1e-4), pytest.approx(upper, abs=1e-4))
    assert rate.rate == hits / count


@pytest.mark.parametrize(("hits", "count"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(hits, count):
    with pytest.raises(DataError, match="hits"):
        proportion(hits, count)
