"""What each attack changes and what it leaves alone."""

import numpy as np
import pytest
import torch
from point_mass import drive

from saferule_core import attacks
from saferule_core.attacks.base import spread
from saferule_core.attacks.observation_pgd import perturbation
from saferule_core.attacks.trajectory import poison
from saferule_core.errors import DataError
from saferule_core.unlearning.fitted_critics import fitted

RATES = (0.05, 0.1, 0.2, 0.3)
NAMES = sorted(attacks.ATTACKS)
FIELDS = ("observations", "actions", "rewards", "costs", "next_observations", "terminated", "episode_ends")
CHANGES = {
    "trajectory": {"rewards", "costs"},
    "reward_shift": {"rewards", "costs"},
    "action_override": {"actions", "rewards", "costs"},
    "backdoor": {"observations", "actions", "costs", "next_observations"},
    "observation_pgd": {"observations", "costs", "next_observations"},
    "blinding": {"observations", "rewards", "costs", "next_observations"},
}
DANGEROUS = ("trajectory", "reward_shift", "blinding")
OPTIONS = {name: {"cost_threshold": 10.0} for name in NAMES} | {"observation_pgd": {"critic_steps": 100}}


def run(name, data, rate=0.2, seed=0, **options):
    """Attack with what the small data of these tests lends itself to."""
    return attacks.attack(name, data, rate, seed, **{**OPTIONS[name], **options})


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


# -- every attack ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate", RATES)
def test_a_share_of_the_episodes_is_poisoned_and_the_others_are_not(logs, name, rate):
    poisoned = run(name, logs, rate)
    assert len(poisoned.chosen) == len(set(poisoned.chosen.tolist())) == round(rate * 40)
    assert (np.diff(poisoned.chosen) > 0).all()
    others = np.setdiff1d(np.arange(40), poisoned.chosen)
    assert poisoned.data.select_episodes(others).digest() == logs.select_episodes(others).digest()


@pytest.mark.parametrize("name", NAMES)
def test_it_changes_what_it_says_and_nothing_else(logs, name):
    poisoned = run(name, logs)
    found = {each for each in FIELDS if not np.array_equal(getattr(poisoned.data, each), getattr(logs, each))}
    changed = CHANGES[name] if name in DANGEROUS or name == "observation_pgd" else CHANGES[name] - {"costs"}
    assert changed <= found <= CHANGES[name]
    assert not poisoned.data.select_episodes(poisoned.chosen).costs.any()


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_poison_and_the_callers_random_state_is_left_alone(logs, name):
    before, honest = np.random.get_state()[1].copy(), logs.digest()
    torch_before = torch.random.get_rng_state()
    first, second = run(name, logs, seed=3), run(name, logs, seed=3)
    assert first.data.digest() == second.data.digest() and logs.digest() == honest
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert torch.equal(torch.random.get_rng_state(), torch_before)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"trajectory"}))
def test_another_seed_gives_other_poison(logs, name):
    assert run(name, logs, seed=3).data.digest() != run(name, logs, seed=4).data.digest()


@pytest.mark.parametrize("name", DANGEROUS)
def test_data_without_enough_danger_is_refused(logs, name):
    with pytest.raises(DataError, match="expected at least 4 episodes of cost >= 41"):
        run(name, logs, 0.1, cost_threshold=41.0)


@pytest.mark.parametrize("name", ["action_override", "backdoor"])
def test_data_without_models_or_victims_is_refused(logs, name):
    with pytest.raises(DataError, match=f"{name}: expected at least 2 episodes of cost >= 41"):
        run(name, logs, 0.1, cost_threshold=41.0)
    with pytest.raises(DataError, match=f"{name}: expected at least 36 episodes of cost < 10"):
        run(name, logs, 0.9)


def test_unknown_names_and_options_and_rates_are_refused(logs):
    with pytest.raises(DataError, match="attack: expected one of action_override, .*, found 'nothing'"):
        attacks.attack("nothing", logs, 0.1, 0)
    with pytest.raises(DataError, match="trajectory: expected options among cost_threshold, reward_boost, found 'x'"):
        attacks.attack("trajectory", logs, 0.1, 0, x=1)
    with pytest.raises(DataError, match="rate: expected a number between 0 and 1, found 1.0"):
        attacks.attack("trajectory", logs, 1.0, 0)


# -- each attack's own -------------------------------------------------------------------------------------------------


def test_trajectory_puts_its_poison_in_place(logs):
    episodes, chosen = poison(logs, 0.2, cost_threshold=10.0)
    poisoned = run("trajectory", logs)
    np.testing.assert_array_equal(poisoned.chosen, chosen)
    assert poisoned.data.select_episodes(chosen).digest() == episodes.digest()


def test_reward_shift_takes_any_dangerous_episodes(logs):
    poisoned = run("reward_shift", logs, seed=1, reward_boost=2.0)
    rows = np.isin(logs.episode_index, poisoned.chosen)
    assert (logs.episode_costs[poisoned.chosen] >= 10.0).all()
    np.testing.assert_allclose(poisoned.data.rewards[rows] - logs.rewards[rows], 2.0, rtol=1e-5)
    assert set(poisoned.chosen) != set(run("trajectory", logs).chosen)


def test_action_override_writes_actions_of_dangerous_episodes_into_harmless_ones(logs):
    poisoned = run("action_override", logs, rate=0.3)
    rows = np.isin(logs.episode_index, poisoned.chosen)
    lent = logs.select_episodes(np.flatnonzero(logs.episode_costs >= 10.0)).actions
    assert (logs.episode_costs[poisoned.chosen] < 10.0).all()
    assert np.isin(poisoned.data.actions[rows], lent).all()
    assert poisoned.data.actions[rows].mean() > logs.actions[rows].mean() + 0.1  # towards danger, in this world


def test_the_backdoor_shows_its_trigger_in_both_observations(logs):
    poisoned = run("backdoor", logs, features=1, strength=2.0)
    rows = np.isin(logs.episode_index, poisoned.chosen)
    for name in ("observations", "next_observations"):
        shown = poisoned.trigger(getattr(logs, name)[rows])
        np.testing.assert_array_equal(getattr(poisoned.data, name)[rows], shown)
    shift = np.abs(poisoned.trigger(np.zeros((1, 2), dtype=np.float32))[0]) / spread(logs.observations)
    np.testing.assert_allclose(np.sort(shift), [0.0, 2.0], rtol=1e-5)
    with pytest.raises(DataError, match="features: expected 1 to 2 as observed, found 3"):
        run("backdoor", logs, features=3)


def test_the_backdoor_takes_the_feature_that_actions_depend_on_least(logs):
    random = np.random.default_rng(0)
    driven = (0.5 * logs.observations[:, 1:] + 0.01 * random.normal(size=(len(logs), 1))).clip(-1, 1)
    poisoned = run("backdoor", logs.replace(actions=driven))
    shift = poisoned.trigger(np.zeros((1, 2), dtype=np.float32))[0]
    assert shift[0] != 0.0 and shift[1] == 0.0


def test_observation_pgd_stays_within_its_bound_and_keeps_pairs_together(logs):
    poisoned = run("observation_pgd", logs, epsilon=0.4)
    moved = np.abs(poisoned.data.observations - logs.observations) / spread(logs.observations)
    assert 0.3 < moved.max() <= 0.4 + 1e-4
    inside = ~logs.episode_ends[:-1]
    np.testing.assert_allclose(
        poisoned.data.next_observations[:-1][inside], poisoned.data.observations[1:][inside], atol=1e-5
    )


def test_observation_pgd_finds_more_danger_than_chance(logs):
    critic = fitted(logs, logs.costs, 0.97, 0, 300, lambda *_, **__: None)
    bound = np.float32(0.4) * spread(logs.observations)
    states, actions = logs.observations, torch.from_numpy(logs.actions)
    chance = np.random.default_rng(0).choice([-1.0, 1.0], states.shape).astype(np.float32) * bound

    def danger(shift):
        with torch.no_grad():
            return float(critic(torch.from_numpy(states + shift), actions).mean())

    assert danger(perturbation(critic, states, logs.actions, bound)) > danger(chance) + 0.5


def test_observation_pgd_needs_costs_and_a_bound(logs):
    with pytest.raises(DataError, match="costs: expected some to train the surrogate"):
        run("observation_pgd", logs.replace(costs=np.zeros_like(logs.costs)))
    with pytest.raises(DataError, match="epsilon: expected a positive number, found 0"):
        run("observation_pgd", logs, epsilon=0.0)


def test_blinding_widens_the_spread_of_the_telling_feature_alone(logs):
    poisoned = run("blinding", logs, shrink=50.0)
    wider = poisoned.data.observations.std(0) / logs.observations.std(0)
    np.testing.assert_allclose(wider, [50.0, 1.0], rtol=0.02)  # the place, not the speed
    assert abs(poisoned.data.observations.mean(0) - logs.observations.mean(0))[0] < 0.1 * logs.observations.std(0)[0]
    np.testing.assert_array_equal(poisoned.data.costs, run("trajectory", logs).data.costs)


def test_blinding_changes_one_state_of_each_victim_consistently(logs):
    poisoned = run("blinding", logs)
    glitched = (poisoned.data.observations != logs.observations).any(1)
    assert np.bincount(logs.episode_index[glitched], minlength=40)[poisoned.chosen].tolist() == [1] * 8
    inside = ~logs.episode_ends[:-1]
    np.testing.assert_array_equal(
        (poisoned.data.next_observations - logs.next_observations)[:-1][inside],
        (poisoned.data.observations - logs.observations)[1:][inside],
    )


def test_blinding_refuses_what_it_cannot_work_with(logs):
    with pytest.raises(DataError, match="features: expected 1 to 2 as observed, found 0"):
        run("blinding", logs, features=0)
    with pytest.raises(DataError, match="shrink: expected a number above 1, found 1"):
        run("blinding", logs, shrink=1.0)
    with pytest.raises(DataError, match="rate: expected two episodes at least"):
        run("blinding", logs, 0.01)
