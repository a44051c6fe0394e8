"""The simulated robot's schedule: keeps its rate, slips where it must, never bursts."""

from hypothesis import given
from hypothesis import strategies as st

from saferule_ros.pacing import ABSORBED, Pacer

PERIOD, LEAD = 10_000_000, 0.3


def run(delays, work: int = 0) -> tuple[Pacer, list[int], list[int]]:
    """Return times of sensors and ticks where events come late by `delays`, and moving takes `work` [ns]."""
    pacer = Pacer(PERIOD, LEAD)
    pacer.begin(1000)
    sensors, ticks, due = [], [], 1000
    for first, second in delays:
        sensors.append(due + first)
        due = pacer.sensed(sensors[-1], sensors[-1] + work)
        ticks.append(max(due, sensors[-1]) + second)
        due = max(pacer.ticked(ticks[-1]), ticks[-1])
    return pacer, sensors, ticks


def test_on_time_the_rate_is_exact():
    pacer, sensors, ticks = run([(0, 0)] * 5)
    assert sensors == [1000 + k * PERIOD for k in range(5)]
    assert ticks == [time + 3_000_000 for time in sensors]
    assert pacer.late_periods == pacer.slipped_ns == pacer.worst_ns == 0


def test_small_delays_are_made_up_for():
    pacer, sensors, _ = run([(500_000, 200_000), (1_900_000, 0), (0, 0)])
    assert sensors[-1] == 1000 + 2 * PERIOD
    assert pacer.late_periods == 0 and pacer.worst_ns == 1_900_000


def test_the_tick_leaves_the_sensors_some_time_after_a_slow_step():
    pacer, sensors, ticks = run([(0, 0), (0, 0)], work=2_500_000)
    assert ticks == [time + 2_500_000 + 1_500_000 for time in sensors]
    assert pacer.late_periods == 0


def test_after_a_large_delay_the_schedule_slips():
    pacer, sensors, ticks = run([(0, 0), (25_000_000, 0), (0, 0), (0, 0)])
    assert sensors == [1000, 35_001_000, 45_001_000, 55_001_000]
    assert pacer.late_periods == 1 and pacer.slipped_ns == 25_000_000


delay = st.integers(0, 4 * PERIOD)


@given(st.lists(st.tuples(delay, delay), min_size=2, max_size=30))
def test_whoever_answers_always_gets_his_share_of_the_period(delays):
    pacer, sensors, ticks = run(delays)
    shortest = (1 - LEAD - ABSORBED) * PERIOD
    assert all(after - tick >= shortest - 1 for tick, after in zip(ticks, sensors[1:], strict=False))
    assert pacer.slipped_ns <= sum(map(sum, delays))
