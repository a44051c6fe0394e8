"""When ticks are due: what is missed, and what a pause, a jump and another speed of the clock are taken for."""

import pytest

from saferule_core.control.schedule import TickSchedule

TICK = 100_000_000


def take(schedule, ticks, wall_per_tick=1.0):
    """Take ticks at multiples of the period; `wall_per_tick` is the wall time of one, in periods."""
    return [schedule.tick(round(at * TICK), round(at * TICK * wall_per_tick)) for at in ticks]


def test_missed_periods_are_counted():
    assert [timing.missed for timing in take(TickSchedule(TICK), (1, 2, 3, 6, 7))] == [0, 0, 0, 2, 0]


def test_jitter_below_half_a_period_is_no_missed_tick():
    timing = take(TickSchedule(TICK), (0, 1.4))[-1]
    assert timing.missed == 0
    assert timing.lateness_s == pytest.approx(0.04)


def test_lateness_counts_from_the_grid_and_not_from_the_tick_before():
    timings = take(TickSchedule(TICK), (0, 1.3, 2.3, 3.0))
    assert [timing.lateness_s for timing in timings] == pytest.approx([0.0, 0.03, 0.03, 0.0])


def test_a_first_tick_that_was_late_does_not_make_the_others_early():
    timings = take(TickSchedule(TICK), (0.4, 1.0, 2.0, 3.1))
    assert [timing.lateness_s for timing in timings] == pytest.approx([0.0, 0.0, 0.0, 0.01])


def test_a_pause_misses_nothing():
    schedule = TickSchedule(TICK)
    take(schedule, range(5))
    timing = schedule.tick(5 * TICK, 3600 * 10**9)
    assert (timing.missed, timing.lateness_s, timing.jumped) == (0, 0.0, False)
    assert timing.interval_s > 3000.0


def test_another_speed_of_the_clock_misses_nothing():
    schedule = TickSchedule(TICK)
    wall, timings = 0, []
    for number in range(60):
        wall += TICK * (1, 10, 0.1)[number // 20]
        timings.append(schedule.tick(number * TICK, round(wall)))
    assert not any(timing.missed or timing.jumped or timing.lateness_s for timing in timings)


def test_a_jump_back_begins_anew():
    schedule = TickSchedule(TICK)
    take(schedule, range(50))
    timings = [schedule.tick(at * TICK, (50 + at) * TICK) for at in range(3)]
    assert [timing.jumped for timing in timings] == [True, False, False]
    assert not any(timing.missed or timing.lateness_s for timing in timings)


def test_a_jump_ahead_is_told_from_a_loop_that_was_held_up():
    for wall_periods, jumped, missed in ((1, True, 0), (100, False, 99)):
        schedule = TickSchedule(TICK)
        take(schedule, range(10))
        timing = schedule.tick(109 * TICK, (9 + wall_periods) * TICK)
        assert (timing.jumped, timing.missed) == (jumped, missed)


def test_a_steady_clock_never_jumps_however_long_the_loop_was_held_up():
    timing = take(TickSchedule(TICK), (0, 1, 2, 500))[-1]
    assert (timing.jumped, timing.missed) == (False, 497)
