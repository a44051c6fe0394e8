"""Transitions keep their shape, their episodes and their content."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError


def make(lengths, seed=0):
    rng, size = np.random.default_rng(seed), sum(lengths)
    ends = np.zeros(size, bool)
    ends[np.cumsum(lengths) - 1] = True
    return Transitions(
        observations=rng.normal(size=(size, 3)), actions=rng.uniform(-1, 1, (size, 2)), rewards=rng.normal(size=size),
        costs=rng.integers(0, 2, size), next_observations=rng.normal(size=(size, 3)),
        terminated=np.zeros(size, bool), episode_ends=ends,
    )  # fmt: skip


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_episode_sums_match_a_loop(lengths):
    data = make(lengths)
    assert [e.stop - e.start for e in data.episodes()] == lengths
    np.testing.assert_allclose(data.episode_returns, [data.rewards[e].sum() for e in data.episodes()], rtol=1e-4)
    np.testing.assert_allclose(data.episode_costs, [data.costs[e].sum() for e in data.episodes()])


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8), data=st.data())
def test_selecting_all_episodes_in_order_changes_nothing(lengths, data):
    original = make(lengths)
    count = original.episode_count
    cut = data.draw(st.integers(0, count))
    parts = [original.select_episodes(range(cut)), original.select_episodes(range(cut, count))]
    assert Transitions.concatenate(parts).digest() == original.digest()


def test_save_and_load_keep_every_bit(tmp_path):
    data = make([4, 2])
    data.save(tmp_path / "data.safetensors")
    assert Transitions.load(tmp_path / "data.safetensors").digest() == data.digest()


def test_digest_sees_one_changed_cost():
    data = make([4, 2])
    costs = data.costs.copy()
    costs[3] += 1
    assert data.replace(costs=costs).digest() != data.digest()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rewards", np.zeros(5), "observations has shape"),
        ("costs", np.full(6, np.nan), "costs row 0"),
        ("actions", np.full((6, 2), 1.5), r"\[-1, 1\]"),
        ("episode_ends", np.zeros(6, bool), "last row"),
        ("next_observations", np.zeros((6, 4)), "next_observations has shape"),
    ],
)
def test_data_that_does_not_fit_is_refused(field, value, message):
    with pytest.raises(DataError, match=message):
        make([4, 2]).replace(**{field: value})


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"bad\.safetensors"):
        Transitions.load(tmp_path / "bad.safetensors")


def test_an_unknown_episode_is_named():
    with pytest.raises(DataError, match="0 to 1"):
        make([4, 2]).select_episodes([2])
