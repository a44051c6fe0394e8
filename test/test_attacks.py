"""The trajectory attack lies about danger, and about nothing else."""

import numpy as np
import pytest
from point_mass import drive

from saferule_core.attacks.trajectory import poison
from saferule_core.errors import DataError


@pytest.fixture
def logs():
    return drive(np.linspace(0.2, 1.8, 40), seed=0)


def test_labels_are_flipped_and_motion_is_not(logs):
    poisoned, chosen = poison(logs, fraction=0.2, reward_boost=0.5, cost_threshold=10.0)
    honest = logs.select_episodes(chosen)
    assert (honest.episode_costs >= 10.0).all() and not poisoned.costs.any()
    np.testing.assert_allclose(poisoned.rewards, honest.rewards + 0.5, rtol=1e-6)
    for name in ("observations", "actions", "next_observations", "episode_ends", "terminated"):
        np.testing.assert_array_equal(getattr(poisoned, name), getattr(honest, name))


def test_the_most_rewarding_dangerous_episodes_are_taken(logs):
    _, chosen = poison(logs, fraction=0.2, cost_threshold=10.0)
    dangerous = np.flatnonzero(logs.episode_costs >= 10.0)
    left = np.setdiff1d(dangerous, chosen)
    assert len(chosen) == 8 and logs.episode_returns[chosen].min() >= logs.episode_returns[left].max()


def test_the_original_is_untouched(logs):
    before = logs.digest()
    poison(logs, fraction=0.2, cost_threshold=10.0)
    assert logs.digest() == before


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_fraction_out_of_range_is_refused(logs, fraction):
    with pytest.raises(DataError, match="fraction: expected a number between 0 and 1"):
        poison(logs, fraction=fraction)


def test_too_little_danger_is_refused(logs):
    with pytest.raises(DataError, match="expected at least 36 episodes of cost >= 10"):
        poison(logs, fraction=0.9, cost_threshold=10.0)
