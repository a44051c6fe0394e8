"""Every detector finds the attack that it is for, says why, and keeps its promise about false alarms."""

import numpy as np
import pytest
import torch
from point_mass import drive, relabel

from saferule_core import agents
from saferule_core.attacks.trajectory import poison
from saferule_core.detection import DETECTORS, MEMBERS, Case, detect, suspicion
from saferule_core.detection.calibration import combine, conformal_p_values
from saferule_core.detection.last_layer import agent_of, cost_layer, policy_layer
from saferule_core.detection.models import cross_fitted, episode_folds
from saferule_core.detection.suspects import SuspectEpisode, SuspectsFile, choose, load, save
from saferule_core.errors import DataError, DetectionError

EPISODES = 60


def relabelled(reward_boost):
    """Honest logs in which a fifth of the episodes lies about its labels, and which."""
    data = drive(np.random.default_rng(0).uniform(0.1, 1.9, EPISODES), 0)
    lies, chosen = poison(data, fraction=0.2, reward_boost=reward_boost, cost_threshold=10.0)
    rows = np.isin(data.episode_index, chosen)
    arrays = {name: getattr(data, name).copy() for name in ("rewards", "costs")}
    for name, values in arrays.items():
        values[rows] = getattr(lies, name)
    return data.replace(**arrays), chosen


def perturbed(name, change):
    """Honest logs in which `change` was made to some episodes' array `name`, and which."""
    data = drive(np.random.default_rng(1).uniform(0.1, 1.9, EPISODES), 1)
    chosen = np.random.default_rng(2).choice(EPISODES, 10, replace=False)
    rows = np.isin(data.episode_index, chosen)
    values = getattr(data, name).copy()
    values[rows] = change(values[rows])
    return data.replace(**{name: values}), np.sort(chosen)


def case_of(data, chosen, trusted=12, **more):
    honest = np.setdiff1d(np.arange(data.episode_count), chosen)
    return Case(data, np.random.default_rng(3).choice(honest, trusted, replace=False), **more)


def auroc(scores, chosen, case):
    """Chance that a poisoned episode scores above an honest one that is not trusted."""
    honest = np.setdiff1d(np.arange(len(scores)), np.union1d(chosen, case.trusted))
    above = scores[chosen][:, None] - scores[honest][None]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


# -- what each detector is for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least"),
    [("label_disagreement", 1.0), ("cost_model", 0.9), ("reward_model", 0.95), ("gradient_similarity", 0.9),
     ("ensemble", 0.95)],
)  # fmt: skip
def test_relabelled_episodes_are_found(name, least):
    data, chosen = relabelled(reward_boost=0.5)
    case = case_of(data, chosen, recomputed_costs=relabel(data).costs)
    assert auroc(suspicion(name, case).scores, chosen, case) >= least


def test_the_ensemble_finds_relabelled_episodes_without_a_robot_description():
    data, chosen = relabelled(reward_boost=0.0)
    case = case_of(data, chosen)
    found = detect(case)
    assert "label_disagreement" in found.skipped and "label_disagreement" not in found.parts
    assert auroc(found.ensemble.scores, chosen, case) >= 0.95


@pytest.mark.parametrize("name", ["transition_gap", "action_gap"])
@pytest.mark.parametrize("trusted", [0, 12])
def test_changed_actions_break_the_dynamics(name, trusted):
    data, chosen = perturbed("actions", lambda actions: np.clip(actions + 0.5, -1, 1))
    case = case_of(data, chosen, trusted)
    assert auroc(suspicion(name, case).scores, chosen, case) >= 0.95


def test_a_next_observation_that_is_not_the_following_one_is_named():
    data, chosen = perturbed("next_observations", lambda states: states + 0.01)
    found = suspicion("transition_gap", case_of(data, chosen))
    assert "39 next observations are not the following ones" in found.reasons[chosen[0]]
    honest = np.setdiff1d(np.arange(EPISODES), chosen)
    assert not any("following ones" in found.reasons[episode] for episode in honest)


def test_a_glitch_is_an_outlier_and_the_feature_is_named():
    data, chosen = perturbed("observations", lambda states: states)
    observations = data.observations.copy()
    observations[data.episode_bounds[chosen] + 7, 1] += 40.0
    case = case_of(data.replace(observations=observations), chosen, feature_names=("place", "speed"))
    found = suspicion("value_outlier", case)
    assert auroc(found.scores, chosen, case) == 1.0
    assert found.reasons[chosen[0]].startswith("speed is +") and found.reasons[chosen[0]].endswith("at step 7")


def test_activations_see_what_the_policy_was_shown():
    data, chosen = perturbed("observations", lambda states: states + np.float32([0.0, 6.0]))
    case = case_of(data, chosen)
    assert auroc(suspicion("spectral", case).scores, chosen, case) >= 0.85


def test_the_cost_model_counts_the_steps_it_denies():
    data, chosen = relabelled(reward_boost=0.0)
    dangerous = relabel(data).costs[data.episodes()[chosen[0]]].sum()
    words = suspicion("cost_model", case_of(data, chosen)).reasons[chosen[0]].split()
    assert int(words[words.index("in") + 1]) == pytest.approx(dangerous, rel=0.25)


def test_label_disagreement_says_what_differs():
    data, chosen = relabelled(reward_boost=0.5)
    honest = relabel(data)
    case = case_of(data, chosen, recomputed_costs=honest.costs, recomputed_rewards=data.next_observations[:, 0])
    found = suspicion("label_disagreement", case)
    cost = honest.episode_costs[chosen[0]]
    assert f"logged as 0 and recomputed as {cost:g}" in found.reasons[chosen[0]]
    assert "reward is logged +0.5 per step" in found.reasons[chosen[0]]
    others = np.setdiff1d(np.arange(EPISODES), chosen)
    assert not found.scores[others].any() and found.reasons[others[0]] == "labels agree with the sensors"


# -- the agent's own networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["advantage_weighted", "return_conditioned"])
def test_gradients_are_those_of_the_agents_last_layer(algorithm):
    data, _ = relabelled(reward_boost=0.5)
    agent = agents.train(algorithm, data, 5.0, seed=0, steps=10, hidden=(16,))
    layer = policy_layer(agent, data)
    inputs = agent.inputs(data)
    part = data.episodes()[3]
    rows = np.arange(part.start, part.stop)
    proposed = agent.actor(*inputs.batch(torch.from_numpy(rows)))
    loss = (proposed - torch.from_numpy(data.actions[rows])).square().sum(1).mean()
    loss.backward()
    weight = list(agent.actor.body.children())[-1].weight
    np.testing.assert_allclose(layer.episode_gradients(data)[3], weight.grad.T.numpy().ravel(), rtol=1e-4, atol=1e-6)
    assert (cost_layer(agent, data) is None) == (algorithm == "return_conditioned")


def test_an_agent_without_critics_is_judged_by_its_policy():
    data, chosen = relabelled(reward_boost=0.5)
    agent = agents.train("return_conditioned", data, 5.0, seed=0, steps=10, hidden=(16,))
    found = suspicion("gradient_similarity", case_of(data, chosen, agent=agent))
    assert all("on the policy" in reason for reason in found.reasons)


def test_a_given_agent_is_left_as_it_was():
    data, chosen = relabelled(reward_boost=0.5)
    agent = agents.train("advantage_weighted", data, 5.0, seed=0, steps=10, hidden=(16,))
    case = case_of(data, chosen, agent=agent)
    before = [weight.clone() for weight in agent.actor.parameters()]
    detect(case)
    assert agent_of(case) is agent
    assert all((old == new).all() for old, new in zip(before, agent.actor.parameters(), strict=True))


# -- cross-fitting and calibration -----------------------------------------------------------------------------------


def test_a_prediction_does_not_depend_on_the_episode_itself():
    data, chosen = relabelled(reward_boost=0.5)
    case = case_of(data, chosen)
    part = data.episodes()[chosen[0]]
    targets = data.costs[:, None].copy()
    before = cross_fitted(case, data.next_observations, targets)
    targets[part] += 0.2
    after = cross_fitted(case, data.next_observations, targets)
    np.testing.assert_allclose(after[part], before[part], atol=1e-5)
    assert np.abs(after - before).max() > 1e-3


def test_trusted_episodes_are_spread_over_all_folds():
    data, chosen = relabelled(reward_boost=0.5)
    case = case_of(data, chosen)
    folds = episode_folds(case, np.random.default_rng(0))
    assert np.bincount(folds[case.trusted]).tolist() == [4, 4, 4]


def test_conformal_p_values_are_valid_for_any_distribution():
    random = np.random.default_rng(0)
    scores = random.exponential(size=(2000, 21)) ** 2
    found = np.array([conformal_p_values(row, np.arange(20))[20] for row in scores])
    for alpha in (0.05, 0.1, 0.2):
        assert (found <= alpha).mean() <= alpha + 0.02


def test_combined_p_values_stay_valid_although_scale_and_rank_share_the_trusted_episodes():
    random = np.random.default_rng(1)
    found = []
    for _ in range(1000):
        heavy, light = random.standard_t(2, 21), random.normal(size=21)
        found.append(combine([heavy, light], np.arange(20))[1][20])
    for alpha in (0.05, 0.1, 0.2):
        assert (np.array(found) <= alpha).mean() <= alpha + 0.025


def test_what_sticks_out_of_every_trusted_episode_gets_the_smallest_p_value():
    scores = np.array([1.0, 2.0, 3.0, 99.0, 2.5])
    np.testing.assert_allclose(conformal_p_values(scores, np.arange(3))[3:], [1 / 4, 2 / 4])
    combined, p_values, _ = combine([scores, np.ones(5)], np.arange(3))
    assert combined.argmax() == 3 and p_values[3] == 1 / 4


def test_without_trusted_episodes_nothing_is_calibrated():
    data, chosen = relabelled(reward_boost=0.5)
    case = Case(data, np.array([], np.int64), relabel(data).costs)
    found = detect(case)
    assert np.isnan(found.p_values).all() and "gradient_similarity" in found.skipped
    assert set(choose(found, case.trusted, 0.05, 0.5).episodes) >= set(chosen.tolist())


def test_same_seed_gives_the_same_scores():
    data, chosen = relabelled(reward_boost=0.5)
    first, second = (detect(case_of(data, chosen)) for _ in range(2))
    np.testing.assert_array_equal(first.ensemble.scores, second.ensemble.scores)
    assert first.ensemble.reasons == second.ensemble.reasons


def test_the_ensemble_gives_the_reason_of_the_most_alarmed_detector():
    data, chosen = relabelled(reward_boost=0.5)
    found = detect(case_of(data, chosen, recomputed_costs=relabel(data).costs))
    assert found.ensemble.reasons[chosen[0]].startswith("label_disagreement: cost is logged as 0")
    assert set(found.parts) == set(MEMBERS) == set(DETECTORS) - {"ensemble"}


# -- suspects --------------------------------------------------------------------------------------------------------


def test_suspects_are_capped_and_ranked_and_never_trusted():
    data, chosen = relabelled(reward_boost=0.5)
    case = case_of(data, chosen, trusted=20, recomputed_costs=relabel(data).costs)
    found = detect(case)
    every = choose(found, case.trusted, 0.05, 1.0)
    assert set(chosen.tolist()) <= set(every.episodes.tolist()) and not set(every.episodes) & set(case.trusted)
    few = choose(found, case.trusted, 0.05, 0.1)
    assert few.episodes.tolist() == every.episodes[:4].tolist() and few.left_out == len(every.episodes) - 4


def test_too_few_trusted_episodes_are_said_to_be_too_few():
    data, chosen = relabelled(reward_boost=0.5)
    case = case_of(data, chosen, trusted=10)
    choice = choose(detect(case), case.trusted, 0.05, 0.5)
    assert not len(choice.episodes) and "expected at least 19" in choice.note


def test_a_suspects_file_comes_back_as_it_was(tmp_path):
    suspect = SuspectEpisode("logs/a", "episode_3", 40, 7.5, None, "cost_model: why", "ab" * 16)
    written = SuspectsFile(
        "point", "0" * 64, "2026-01-01T00:00:00+00:00", "0.1.0", ("logs/a",), (), None, 0, 0.05, 0.3,
        ("cost_model",), {"spectral": "no"}, "not calibrated", 2, (suspect,),
    )  # fmt: skip
    save(written, tmp_path / "suspects.json")
    assert load(tmp_path / "suspects.json") == written


@pytest.mark.parametrize("content", [None, b"{}", b"no json", b'{"format": 1}'])
def test_what_is_no_suspects_file_is_refused(tmp_path, content):
    path = tmp_path / "suspects.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="expected a file of saferule inspect --suspects"):
        load(path)


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trusted": np.array([60])}, "expected episodes 0 to 59, found 60"),
        ({"trusted": np.array([-1])}, "expected episodes 0 to 59, found -1"),
        ({"trusted": np.array([2, 2])}, "expected each episode once"),
        ({"recomputed_costs": np.zeros(3)}, r"recomputed_costs: expected shape \(2400,\), found \(3,\)"),
    ],
)
def test_a_case_that_makes_no_sense_is_refused(change, message):
    data, _ = relabelled(reward_boost=0.5)
    with pytest.raises(DetectionError, match=message):
        Case(**{"data": data, "trusted": np.array([0]), **change})


def test_one_episode_cannot_be_compared():
    with pytest.raises(DetectionError, match="expected at least two episodes"):
        Case(drive(np.array([0.5]), 0), np.array([], np.int64))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("magic", "detector: expected one of"),
        ("label_disagreement", "expected recomputed costs or rewards"),
        ("gradient_similarity", "expected at least two trusted episodes"),
    ],
)
def test_a_detector_says_what_it_lacks(name, message):
    data, _ = relabelled(reward_boost=0.5)
    with pytest.raises(DetectionError, match=message):
        suspicion(name, Case(data, np.array([], np.int64)))


def test_labels_without_any_cost_teach_no_cost_model():
    data, chosen = relabelled(reward_boost=0.5)
    with pytest.raises(DetectionError, match="found no cost at all"):
        suspicion("cost_model", case_of(data.replace(costs=np.zeros_like(data.costs)), chosen))


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.5), (0.05, 0.0), (1.5, 0.5)])
def test_rates_out_of_range_are_refused(rate, share):
    data, chosen = relabelled(reward_boost=0.5)
    with pytest.raises(DetectionError, match="expected a number above 0, at most 1"):
        choose(detect(case_of(data, chosen), ["reward_model"]), np.arange(3), rate, share)
