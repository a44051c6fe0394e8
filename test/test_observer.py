"""Commands that a robot missed around a swap are told apart from those that it misses anyway."""

import pytest

pytest.importorskip("rclpy")

from saferule_ros.observer import missed_near

COUNTS = [(0, 4), (7, 5), (60, 6), (61, 7), (64, 9), (90, 10), (150, 11)]


@pytest.mark.parametrize(
    ("tick", "distance", "around", "elsewhere"),
    [
        (62, 5, 4, 1),  # the swap is what is worst
        (90, 5, 1, 4),  # it is not
        (90, 30, 5, 1),
        (120, 5, 0, 4),
        (3, 5, 1, 4),  # what was missed before the first tick is nobody's
    ],
)
def test_missed_commands_around_a_swap_and_elsewhere(tick, distance, around, elsewhere):
    assert missed_near(COUNTS, tick, distance) == (around, elsewhere)


def test_a_robot_that_missed_nothing():
    assert missed_near([], 10, 5) == (0, 0)
