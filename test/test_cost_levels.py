"""Levels of the cost, their debounce, and the budget of a sliding window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saferule_core.cost_levels import CostState, Debounce, Evidence, LevelJudge, Limits, SlidingCost
from saferule_core.errors import DataError

SECOND = 1_000_000_000
looks = st.lists(st.integers(0, 2), max_size=30)


def levels(trigger: int, release: int, raw: list[int]) -> list[int]:
    debounce = Debounce(trigger, release)
    return [debounce.update(level) for level in raw]


@given(looks)
def test_without_debounce_the_level_is_what_is_seen(raw):
    assert levels(1, 1, raw) == raw


def test_a_level_rises_after_enough_looks_in_a_row_and_falls_likewise():
    assert levels(3, 1, [2, 2, 0, 2, 2, 2]) == [0, 0, 0, 0, 0, 2]
    assert levels(1, 3, [2, 0, 0, 2, 0, 0, 0]) == [2, 2, 2, 2, 2, 2, 0]


def test_worse_looks_count_for_the_lower_level():
    assert levels(2, 2, [1, 2, 1, 1, 0, 0]) == [0, 1, 1, 1, 1, 0]


@given(looks, st.integers(1, 4), st.integers(1, 4))
def test_a_level_was_seen_within_the_last_looks(raw, trigger, release):
    for count, level in enumerate(levels(trigger, release, raw), start=1):
        assert level <= max(raw[:count])
        if count >= release:
            assert level <= max(raw[count - release : count])


def judged(limits: Limits, margin: float = 9.0, share: float = 1.0, **evidence) -> tuple[CostState, str]:
    known = {"violated": "", "spent": False, "budget_share": 0.0, **evidence}
    level = LevelJudge(limits).judge(Evidence(margins={"wall": margin}, shares={"wall": share}, **known))
    return level.state, level.reason


def test_what_counts_as_close():
    assert judged(Limits()) == (CostState.OK, "")
    assert judged(Limits(near_margin=10.0))[0] is CostState.NEAR
    assert judged(Limits(near_margin_share=0.2), share=0.19) == (CostState.NEAR, "wall: 9 left to the bound")
    assert judged(Limits(near_margin_share=0.0), share=0.0)[0] is CostState.OK
    assert judged(Limits(near_share=0.5), budget_share=0.5) == (CostState.NEAR, "50% of the budget is spent")
    assert judged(Limits(near_share=1.0), budget_share=1.0)[0] is CostState.OK
    assert judged(Limits(), margin=float("nan"), share=float("nan"))[0] is CostState.OK
    assert judged(Limits(), violated="all is spent", margin=-1.0) == (CostState.VIOLATED, "all is spent")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=40))
def test_the_window_adds_up_what_is_not_too_old(steps):
    window, seen, now = SlidingCost(3.0), [], 0
    for seconds, cost in steps:
        now += seconds
        seen.append((now, cost))
        assert window.add(now * SECOND, float(cost)) == sum(c for t, c in seen if t > now - 3)


def test_a_clock_that_is_set_back_begins_the_window_anew():
    window = SlidingCost(10.0)
    window.add(100 * SECOND, 5.0)
    assert window.add(50 * SECOND, 1.0) == 1.0


@pytest.mark.parametrize("wrong", [{"window_s": -1.0}, {"near_share": float("nan")}, {"trigger_ticks": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        Limits(**wrong)
