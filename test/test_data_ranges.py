"""The ranges of the training data: taken from all observations, kept on the card, refused where they make no sense."""

import numpy as np
import pytest
from point_logs import drive

from saferule_core import agents
from saferule_core.control.ranges import RangeCheck
from saferule_core.data.bags import read_bags, write_bags
from saferule_core.data.ranges import ObservationRanges, ranges_of
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError, StoreError
from saferule_core.store import Card, bundle


@pytest.fixture
def data(tmp_path, point_spec) -> Transitions:
    return read_bags(write_bags(drive(point_spec, 3, seed=10), point_spec, tmp_path / "logs"), point_spec).transitions


def test_ranges_cover_every_observation_and_no_more(data):
    ranges = ranges_of(data)
    seen = np.concatenate([data.observations, data.next_observations])
    np.testing.assert_array_equal(ranges.low, seen.min(0))
    np.testing.assert_array_equal(ranges.high, seen.max(0))
    check = RangeCheck(ranges, margin=0.0)
    assert not any(check.outside(observation) for observation in seen)
    assert check.outside(seen.max(0) + 0.01) == (0, 1, 2, 3, 4)


def test_a_constant_feature_may_keep_its_value():
    check = RangeCheck(ObservationRanges((0.1,), (0.1,)), margin=0.1)
    assert not check.outside(np.array([0.1], dtype=np.float32))
    assert check.outside(np.array([0.2], dtype=np.float32)) == (0,)


def test_an_explanation_names_the_feature_and_what_was_expected():
    check = RangeCheck(ObservationRanges((0.0, -1.0), (1.0, 1.0)), margin=0.0)
    observation = np.array([0.5, 3.0])
    told = check.explain(observation, check.outside(observation), ("speed", "heading"))
    assert "heading 3 (expected -1 to 1)" in told and "speed" not in told


def test_no_data_has_no_ranges(data):
    with pytest.raises(DataError, match="at least one transition"):
        ranges_of(data.select_episodes([]))


def save(tmp_path, point_spec, ranges):
    agent = agents.build("filtered_cloning", 5, 2, {"hidden": (4,)})
    bundle.save(tmp_path / "policy", agent, point_spec, Card(seed=0, ranges=ranges))


def test_a_policy_brings_the_ranges_of_its_card(tmp_path, point_spec, data):
    save(tmp_path, point_spec, ranges_of(data))
    assert bundle.load_policy(tmp_path / "policy", point_spec).ranges == ranges_of(data)


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        (ObservationRanges((0.0,) * 4, (1.0,) * 5), "expected 5 of each bound, found 4 and 5"),
        (ObservationRanges((0.0,) * 5, (1.0, 1.0, -1.0, 1.0, 1.0)), "feature 2: expected low <= high"),
        (ObservationRanges((float("nan"),) * 5, (1.0,) * 5), "feature 0"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(tmp_path, point_spec, ranges, words):
    with pytest.raises(StoreError, match=words):
        save(tmp_path, point_spec, ranges)
