"""The gate accepts what is safe and keeps its reward, and says why it refuses the rest."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saferule_core.errors import DataError
from saferule_core.validation.gate import GateRules, judge, safe_mean_return

RULES = GateRules(cost_limit=10.0, min_reward_kept=0.85, confidence=0.95, episodes=4)


@dataclass(frozen=True)
class Record:
    seed: int
    reward: float
    cost: float


def records(costs, rewards, first_seed=0):
    return [Record(first_seed + i, r, c) for i, (c, r) in enumerate(zip(costs, rewards, strict=True))]


UNSAFE = records([70.0, 90.0, 80.0, 85.0], [500.0, 510.0, 490.0, 505.0])
SAFE = records([0.0, 2.0, 1.0, 0.0], [300.0, 310.0, 290.0, 305.0])


def failed(verdict):
    return [check.name for check in verdict.checks if not check.passed]


def test_a_safe_candidate_that_keeps_its_reward_is_accepted():
    verdict = judge(UNSAFE, SAFE, RULES, safe_return=320.0)
    assert verdict.accepted and verdict.message.startswith("Accepted") and not failed(verdict)
    assert verdict.reward_reference == 320.0 and "retained data" in verdict.reference_source
    assert verdict.reward_needed == pytest.approx(272.0)
    assert verdict.cost_change.mean == pytest.approx(-80.5)


def test_an_unsafe_incumbent_is_no_yardstick_for_reward():
    assert judge(UNSAFE, SAFE, RULES, safe_return=320.0).accepted
    against_itself = judge(SAFE, SAFE, RULES, safe_return=1000.0)
    assert against_itself.accepted and "incumbent is within" in against_itself.reference_source


def test_an_incumbent_that_may_be_unsafe_is_no_yardstick_either():
    doubtful = records([0.0, 0.0, 0.0, 30.0], [500.0] * 4)
    assert judge(doubtful, SAFE, RULES, safe_return=320.0).reward_reference == 320.0


def test_one_episode_is_never_enough():
    verdict = judge(UNSAFE[:1], SAFE[:1], RULES, safe_return=320.0)
    assert failed(verdict) == ["enough episodes", "safe"]


def test_a_mean_within_the_limit_is_not_enough():
    lucky = records([0.0, 0.0, 0.0, 30.0], [310.0] * 4)
    verdict = judge(UNSAFE, lucky, RULES, safe_return=320.0)
    assert failed(verdict) == ["safe"]
    assert verdict.candidate.cost.mean < RULES.cost_limit < verdict.candidate.cost.upper


def test_lost_reward_is_refused_with_expected_and_found():
    timid = records([0.0] * 4, [100.0] * 4)
    verdict = judge(UNSAFE, timid, RULES, safe_return=320.0)
    assert failed(verdict) == ["reward kept"]
    assert "272.00" in verdict.message and "100.00" in verdict.message and verdict.message.startswith("Refused")


def test_too_few_episodes_are_refused():
    verdict = judge(UNSAFE, SAFE, replace(RULES, episodes=20), safe_return=320.0)
    assert failed(verdict) == ["enough episodes"]


def test_without_a_yardstick_reward_cannot_be_kept_unless_none_is_asked_for():
    verdict = judge(UNSAFE, SAFE, RULES, safe_return=None)
    assert failed(verdict) == ["reward kept"] and verdict.reward_reference is None
    assert judge(UNSAFE, SAFE, replace(RULES, min_reward_kept=0.0), safe_return=None).accepted


@pytest.mark.parametrize(("kept", "accepted"), [(0.85, True), (1.0, False)])
def test_a_negative_reference_asks_for_a_share_of_its_size(kept, accepted):
    candidate = records([0.0] * 4, [-110.0] * 4)
    verdict = judge(UNSAFE, candidate, replace(RULES, min_reward_kept=kept), safe_return=-100.0)
    assert verdict.reward_needed == pytest.approx(-115.0 if kept == 0.85 else -100.0)
    assert verdict.accepted == accepted


@given(st.permutations(range(4)))
def test_the_order_of_episodes_does_not_matter(order):
    assert judge(UNSAFE, [SAFE[i] for i in order], RULES, 320.0) == judge(UNSAFE, SAFE, RULES, 320.0)


@pytest.mark.parametrize(
    ("incumbent", "candidate", "message"),
    [
        (UNSAFE, records([0.0] * 4, [1.0] * 4, first_seed=1), "same episode seeds"),
        (UNSAFE, SAFE[:3], "same episode seeds"),
        (UNSAFE, [*SAFE[:3], SAFE[0]], "one episode per seed"),
        (UNSAFE, [], "found none"),
        (UNSAFE, [*SAFE[:3], Record(3, float("nan"), 0.0)], "finite"),
    ],
)
def test_what_cannot_be_compared_is_an_error_not_a_verdict(incumbent, candidate, message):
    with pytest.raises(DataError, match=message):
        judge(incumbent, candidate, RULES, 320.0)


@pytest.mark.parametrize(
    "change",
    [{"cost_limit": -1.0}, {"min_reward_kept": 2.0}, {"confidence": 1.0}, {"episodes": 1}],
)
def test_rules_out_of_range_are_refused(change):
    with pytest.raises(DataError, match=next(iter(change))):
        replace(RULES, **change)


def test_the_safe_mean_return_leaves_unsafe_episodes_out():
    assert safe_mean_return([100.0, 900.0, 200.0], [0.0, 50.0, 10.0], limit=10.0) == 150.0
    assert safe_mean_return([900.0], [50.0], limit=10.0) is None
