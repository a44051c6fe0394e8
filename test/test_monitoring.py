"""Episode cost accounting, and the anytime-valid test that the mean episode cost exceeds its limit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import false_alarms
from saferule_core.errors import DataError
from saferule_core.monitoring import LARGEST_EVIDENCE, CostMeter, ExceedanceTest

LIMIT = 10.0
LARGEST = 200.0
THRESHOLD = 20.0

costs = st.lists(st.floats(0.0, LARGEST), max_size=40)


def first_alarms(episode_costs: np.ndarray) -> np.ndarray:
    """Number of episodes after which the test confirms, per run of (runs, episodes); 0: never."""
    runs, episodes = episode_costs.shape
    test, first = ExceedanceTest(LIMIT, LARGEST, runs), np.zeros(runs, int)
    for count in range(1, episodes + 1):
        test.add(episode_costs[:, count - 1])
        first = np.where((first == 0) & (test.evidence() >= THRESHOLD), count, first)
    return first


@pytest.mark.parametrize("null", false_alarms.NULLS, ids=str)
def test_false_alarms_stay_below_alpha_although_every_episode_is_looked_at(null):
    alarms = false_alarms.count_alarms(null, runs=2000, episodes=80, alpha=0.05, seed=1)
    assert alarms / 2000 <= 0.05


def test_the_simulation_of_false_alarms_finds_a_policy_that_is_over_its_limit():
    over = false_alarms.Null("over", 2.0 * false_alarms.LIMIT, false_alarms.NULLS[0].draw)
    assert false_alarms.count_alarms(over, runs=500, episodes=200, alpha=0.05, seed=1) > 250


def test_many_tests_at_once_are_the_same_as_one_after_another():
    costs = np.random.default_rng(4).uniform(0.0, 40.0, (5, 20))
    many = ExceedanceTest(LIMIT, LARGEST, 5)
    ones = [ExceedanceTest(LIMIT, LARGEST) for _ in range(5)]
    for episode in costs.T:
        many.add(episode)
        for one, cost in zip(ones, episode, strict=True):
            one.add(float(cost))
        running = episode / 2.0
        expected = [one.evidence(float(cost)) for one, cost in zip(ones, running, strict=True)]
        assert many.evidence(running) == pytest.approx(expected, rel=1e-12)


def test_a_dangerous_policy_is_confirmed_within_three_episodes():
    alarms = first_alarms(np.random.default_rng(2).uniform(60.0, 110.0, (200, 10)))
    assert max(alarms) <= 3 and min(alarms) > 0


def test_a_policy_slightly_over_the_limit_is_confirmed_in_time():
    alarms = first_alarms(np.random.default_rng(3).uniform(5.0, 20.0, (200, 100)))
    assert np.mean(alarms > 0) > 0.95


def test_the_docstring_example():
    test = ExceedanceTest(limit=10.0, max_episode_cost=200.0)
    test.add(77.0)
    test.add(104.0)
    assert test.evidence() == pytest.approx(21.6, abs=0.05)


@given(costs, st.floats(0.0, LARGEST), st.floats(0.0, 1.0))
def test_a_running_episode_never_claims_more_than_its_end_will_show(past, final, share):
    test = ExceedanceTest(LIMIT, LARGEST)
    for cost in past:
        test.add(cost)
    before = test.evidence()
    running = test.evidence(final * share)
    test.add(final)
    assert running <= max(test.evidence(), before) * (1 + 1e-12)


@given(costs)
def test_the_order_of_episodes_does_not_matter(past):
    forward, backward = ExceedanceTest(LIMIT, LARGEST), ExceedanceTest(LIMIT, LARGEST)
    for cost in past:
        forward.add(cost)
    for cost in reversed(past):
        backward.add(cost)
    assert forward.evidence() == pytest.approx(backward.evidence(), rel=1e-9)


def test_evidence_stays_finite_for_ever():
    test = ExceedanceTest(LIMIT, LARGEST)
    for _ in range(1000):
        test.add(LARGEST)
    assert test.evidence() == LARGEST_EVIDENCE
    for _ in range(50000):
        test.add(0.0)
    assert 0.0 <= test.evidence() < 1.0


def test_a_limit_of_zero_is_refuted_by_one_positive_cost():
    test = ExceedanceTest(0.0, LARGEST)
    test.add(0.0)
    assert test.evidence() == 1.0
    assert test.evidence(running_cost=1.0) == LARGEST_EVIDENCE


def test_a_limit_that_cannot_be_exceeded_gives_no_evidence():
    test = ExceedanceTest(LARGEST, LARGEST)
    for _ in range(50):
        test.add(LARGEST)
    assert test.evidence() <= 1.0


@given(st.lists(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6), min_size=1, max_size=8), st.integers(1, 4))
def test_the_meter_adds_up_every_episode(episodes, window):
    meter = CostMeter(limit=2.0, max_steps=6, window=window, first_is_whole=True)
    for number, ticks in enumerate(episodes):
        for cost in ticks:
            reading = meter.tick(cost, f"episode_{number}")
        assert reading.episode == number + 1
        assert reading.step == len(ticks)
        assert reading.episode_cost == pytest.approx(sum(ticks))
        assert reading.over_limit == (reading.episode_cost > 2.0)
        assert reading.completed_episodes == number
        whole = [sum(done) for done in episodes[:number]][-window:]
        assert reading.mean_episode_cost == pytest.approx(sum(whole) / len(whole) if whole else 0.0)


def test_an_episode_that_was_joined_midway_is_not_judged():
    meter = CostMeter(limit=1.0, max_steps=10)
    for _ in range(5):
        reading = meter.tick(1.0, "a")
    assert reading.over_limit and not reading.violation_confirmed and reading.evidence == 1.0
    assert meter.tick(0.0, "b").completed_episodes == 0
    assert meter.tick(0.0, "c").completed_episodes == 1


def test_restart_forgets_the_previous_policy_but_not_the_running_episode():
    meter = CostMeter(limit=1.0, max_steps=10, first_is_whole=True)
    for episode in "abcd":
        for _ in range(10):
            reading = meter.tick(1.0, episode)
    assert reading.violation_confirmed
    meter.restart()
    reading = meter.tick(0.0, "d")
    assert reading.episode_cost == 10.0 and reading.step == 11
    assert reading.charged == 0.0 and not reading.over_limit
    assert (reading.completed_episodes, reading.evidence, reading.violation_confirmed) == (0, 1.0, False)
    assert meter.tick(0.0, "e").completed_episodes == 0


def test_confirmation_stays_when_evidence_falls_again():
    meter = CostMeter(limit=1.0, max_steps=4, first_is_whole=True)
    number = 0
    while not meter.tick(1.0, number // 4).violation_confirmed:
        number += 1
    for quiet in range(400):
        reading = meter.tick(0.0, f"quiet {quiet // 4}")
    assert reading.evidence < 20.0 and reading.violation_confirmed


def test_without_a_marker_an_episode_is_its_longest_length():
    meter = CostMeter(limit=5.0, max_steps=3, first_is_whole=True)
    readings = [meter.tick(1.0) for _ in range(7)]
    assert [r.episode for r in readings] == [1, 1, 1, 2, 2, 2, 3]
    assert [r.completed_episodes for r in readings] == [0, 0, 0, 1, 1, 1, 2]
    assert readings[-1].mean_episode_cost == 3.0


@pytest.mark.parametrize("cost", [-0.1, math.nan, math.inf])
def test_a_cost_that_is_no_cost_is_refused(cost):
    with pytest.raises(DataError, match="expected a finite number of at least 0"):
        CostMeter(limit=1.0, max_steps=10).tick(cost)


@pytest.mark.parametrize(
    "arguments",
    [{"limit": -1.0}, {"limit": math.nan}, {"max_steps": 0}, {"window": 0}, {"alpha": 0.0}, {"alpha": 1.0}],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(DataError, match=next(iter(arguments))):
        CostMeter(**{"limit": 1.0, "max_steps": 10, **arguments})
