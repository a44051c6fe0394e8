"""What a log says about its own costs and rewards is held against its sensors, episode by episode."""

import numpy as np
from test_bags import label, live, record

from saferule_core.data.bags import read_bags
from saferule_core.data.label_check import compare_labels


def test_sums_and_counts_are_per_episode():
    logged = np.array([0.0, 1.0, np.nan, 0.0, 0.0])
    check = compare_labels("cost", logged, np.array([0.0, 1.0, 1.0, 1.0, 0.0005]), np.array([0, 0, 1, 0, 1], bool))
    assert check.labelled.tolist() == [2, 2]
    assert check.differing.tolist() == [0, 1]
    assert check.logged.tolist() == [1.0, 0.0]
    assert check.recomputed.tolist() == [1.0, 1.0005]
    assert check.share.tolist() == [0.0, 0.5]


def test_a_label_that_is_infinite_disagrees():
    check = compare_labels("cost", np.array([np.inf]), np.array([0.0]), np.array([True]))
    assert check.differing.tolist() == [1]


def checks(contents):
    return {check.name: check for check in contents.bags[0].labels}


def lying(messages):
    """Say of the second episode that it costs 1 in each step."""
    begun = 0
    for message in messages:
        begun += message[0] == "/episode"
        yield label("/cost", 1.0, message[3]) if message[0] == "/cost" and begun == 2 else message


def test_a_lie_about_costs_is_found_in_its_episode(point_spec, tmp_path):
    contents = read_bags([record(tmp_path / "bag", list(lying(live(3, 5))))], point_spec)
    assert contents.transitions.costs.sum() == 0.0
    assert checks(contents)["cost"].labelled.tolist() == [5, 5, 5]
    assert checks(contents)["cost"].differing.tolist() == [0, 5, 0]
    assert checks(contents)["cost"].logged.tolist() == [0.0, 5.0, 0.0]
    assert contents.card()[0]["labels"]["cost"] == {"steps": 15, "differing": 5}
    trusting = read_bags([record(tmp_path / "again", list(lying(live(3, 5))))], point_spec, "logged")
    assert trusting.transitions.episode_costs.tolist() == [0.0, 5.0, 0.0]
    assert checks(trusting)["cost"].differing.tolist() == [0, 5, 0]


def test_rewards_can_be_recomputed_where_the_log_has_them(point_spec, tmp_path):
    path = record(tmp_path / "bag", live(1, 5))
    logged, own = read_bags([path], point_spec), read_bags([path], point_spec, reward="recomputed")
    assert logged.transitions.rewards.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    np.testing.assert_allclose(own.transitions.rewards, [0.1 - 0.001 * 0.1 * k for k in range(5)], atol=1e-6)
    for contents in (logged, own):
        assert checks(contents)["reward"].differing.tolist() == [5]


def test_a_missing_label_costs_no_step(point_spec, tmp_path):
    messages = live(1, 5)
    third = [message for message in messages if message[0] == "/cost"][2]
    messages.remove(third)
    contents = read_bags([record(tmp_path / "bag", messages)], point_spec)
    assert len(contents.transitions) == 5
    assert checks(contents)["cost"].labelled.tolist() == [4]
    assert len(read_bags([tmp_path / "bag"], point_spec, "logged").transitions) == 4
