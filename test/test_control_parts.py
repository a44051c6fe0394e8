"""Heartbeat, shadow, probation and settings of the control loop, each alone."""

import numpy as np
import pytest

from saferule_core.control.heartbeat import SILENT_TICKS, Heartbeat
from saferule_core.control.probation import OVERRUN_BURST, OVERRUN_WINDOW, Probation, ProbationTerms
from saferule_core.control.settings import ControlSettings
from saferule_core.control.shadow import PATIENCE, Shadow
from saferule_core.errors import SpecError

SECOND = 10**9


def silence(heartbeat, seconds, ticks):
    """Let ticks pass evenly over a time without a beat; return the last one's word."""
    return [heartbeat.tick(round(seconds * SECOND * (tick + 1) / ticks)) for tick in range(ticks)][-1]


def test_a_monitor_that_was_never_heard_is_not_missed_unless_it_is_required():
    assert not silence(Heartbeat(0.5, required=False), 10.0, 100)
    assert "cost monitor" in silence(Heartbeat(0.5, required=True), 10.0, 100)


@pytest.mark.parametrize(
    ("timeout", "seconds", "ticks", "stops"),
    [
        (0.5, 0.4, 40, False),
        (0.5, 0.6, 60, True),
        (0.5, 3600.0, SILENT_TICKS - 1, False),  # a pause
        (0.5, 3600.0, SILENT_TICKS, True),  # very slow, and dead
        (0.0, 3600.0, 1000, False),
    ],
)
def test_silence_needs_both_time_and_ticks(timeout, seconds, ticks, stops):
    heartbeat = Heartbeat(timeout, required=False)
    heartbeat.beat(0)
    assert bool(silence(heartbeat, seconds, ticks)) == stops


class Constant:
    def __init__(self, value):
        self.value = value

    def act(self, observations, memory):
        if isinstance(self.value, Exception):
            raise self.value
        return np.full((len(observations), 2), self.value, dtype=np.float32)


def shadow_of(value, ticks=4, threshold=0.5, period_s=10.0):
    return Shadow(Constant(value), "candidate", ticks, threshold, period_s)


def compare(shadow, times, driven=0.0):
    for _ in range(times):
        shadow.compare(np.zeros(3, np.float32), None, np.full(2, driven, np.float32))


def test_a_candidate_that_acts_alike_may_take_over():
    shadow = shadow_of(0.4)
    compare(shadow, 3)
    assert not shadow.finished
    compare(shadow, 1)
    assert shadow.finished and not shadow.refusal
    assert (shadow.compared, shadow.difference) == (4, pytest.approx(0.4))


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.6, "within 0.5 of the incumbent's"), (float("nan"), "finite"), (RuntimeError("no layer"), "no layer")],
)
def test_a_candidate_that_acts_otherwise_or_not_at_all_is_refused(value, words):
    shadow = shadow_of(value)
    compare(shadow, 4)
    assert shadow.finished and words in shadow.refusal


def test_a_candidate_that_is_too_slow_is_refused():
    shadow = shadow_of(0.0, period_s=0.0)
    compare(shadow, 4)
    assert "on average" in shadow.refusal


def test_a_shadow_does_not_wait_for_ever_for_a_robot_that_stands():
    shadow = shadow_of(0.0)
    for _ in range(PATIENCE * 4):
        shadow.wait()
        assert not shadow.finished
    shadow.wait()
    assert "in which the robot drives" in shadow.refusal


@pytest.fixture
def probation():
    return Probation("candidate", ProbationTerms(ticks=100, limit=2.0))


def test_the_candidates_own_steps_of_one_episode_count(probation):
    probation.take_cost("incumbent", 0, 1, 5.0, True)
    for step in range(2):
        probation.take_cost("candidate", 0, step, 1.0, False)
        probation.take_cost("candidate", 0, step, 1.0, False)  # the same step told again
    probation.take_cost("candidate", 1, 0, 1.0, False)
    assert not probation.failure
    probation.take_cost("candidate", 1, 1, 1.5, False)
    assert "found 2.5" in probation.failure and "candidate" in probation.failure


def test_a_cost_that_is_no_number_does_not_hide_the_others(probation):
    probation.take_cost("candidate", 0, 0, float("nan"), False)
    probation.take_cost("candidate", 0, 1, 3.0, False)
    assert probation.failure


@pytest.mark.parametrize(
    ("costs", "fails_at"),
    [
        ([1.0] * 4 + [0.0] + [1.0] * 3, 7),  # it brought the robot back; what comes then is its own
        ([1.0] * 20, 12),  # nor did 5 ticks of the safe command after 5 of its own: what comes then is its own, too
        ([0.0] + [1.0] * 3, 3),  # there was nothing to bring back
    ],
)
def test_what_the_policy_before_has_left_behind_does_not_count(costs, fails_at):
    probation = Probation("candidate", ProbationTerms(ticks=100, limit=2.0, grace=5))
    for step, cost in enumerate(costs):
        probation.take_cost("candidate", 0, step, cost, False)
        probation.take_tick(drove=not probation.wait_reason, overran=False)
        if probation.failure:
            break
    assert (step, bool(probation.failure)) == (fails_at, True)


def test_the_safe_command_ends_an_inherited_violation_that_a_policy_does_not():
    probation, drove = Probation("candidate", ProbationTerms(ticks=8, limit=2.0, grace=3)), []
    for step, cost in enumerate([1.0] * 5 + [0.0] * 5):
        probation.take_cost("candidate", 0, step, cost, False)
        drove.append(not probation.wait_reason)
        probation.take_tick(drove=drove[-1], overran=False)
    assert drove == [True] * 3 + [False] * 2 + [True] * 5
    assert probation.passed and not probation.failure


def test_without_a_word_of_the_monitor_a_policy_drives():
    probation = Probation("candidate", ProbationTerms(ticks=100, limit=2.0, grace=3))
    for _ in range(10):
        probation.take_tick(drove=True, overran=False)
    assert not probation.wait_reason


def test_a_grace_does_not_hide_a_violation_that_is_certain():
    probation = Probation("candidate", ProbationTerms(ticks=100, limit=2.0, grace=5))
    probation.take_cost("candidate", 0, 0, 1.0, True)
    assert probation.failure


def test_a_confirmed_violation_fails(probation):
    probation.take_cost("candidate", 0, 0, 0.0, True)
    assert "certain" in probation.failure


def test_single_overruns_pass_and_a_burst_fails(probation):
    for tick in range(5 * OVERRUN_WINDOW):
        probation.take_tick(drove=True, overran=tick % 10 == 0)
    assert not probation.failure
    for _ in range(OVERRUN_BURST):
        probation.take_tick(drove=True, overran=True)
    assert "overruns" in probation.failure


def test_only_driven_ticks_count(probation):
    for tick in range(150):
        probation.take_tick(drove=tick >= 100, overran=False)
    assert (probation.ticks_left, probation.passed) == (50, False)
    for _ in range(50):
        probation.take_tick(drove=True, overran=False)
    assert probation.passed


@pytest.mark.parametrize(
    "odd",
    [{"ood": "perhaps"}, {"ood_margin": -0.1}, {"input_timeout_s": float("nan")},
     {"require_monitor": True, "monitor_timeout_s": 0.0}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(odd):
    with pytest.raises(SpecError, match=next(iter(odd))):
        ControlSettings(**odd)
