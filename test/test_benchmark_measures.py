"""What the unlearning benchmark measures and computes, on cases whose answer is known."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from point_mass import COST_LIMIT, drive, poisoned_logs, relabel, true_cost
from scipy import stats

from benchmarks.pages import fill
from benchmarks.unlearning import measure
from benchmarks.unlearning.claims import claims
from benchmarks.unlearning.evaluate import Drive
from benchmarks.unlearning.experiment import Experiment
from benchmarks.unlearning.knowledge import requests_of
from benchmarks.unlearning.presets import PRESETS
from benchmarks.unlearning.runs import Runs, comparable, violations
from benchmarks.unlearning.statistics import (
    chance_of_more,
    difference,
    improvement,
    interquartile_mean,
    interval,
    mean,
    profile,
    quotient,
)
from benchmarks.unlearning.tables import COMPARED, driving_table, failures_list, overview, summary_table
from saferule_core.agents import train
from saferule_core.attacks import Poisoned
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError
from saferule_core.unlearning.critics import trainable

POISON = np.arange(10, 30)


def sets(name, seed=0, episodes=100):
    return [(set(request.retain), set(request.forget)) for request in requests_of(name, episodes, POISON, seed)]


def test_knowledge_divides_the_episodes_as_its_name_says():
    everything, poison = set(range(100)), set(POISON)
    ((retain, forget),) = sets("exact")
    assert forget == poison and retain == everything - poison
    ((retain, forget),) = sets("recall_0.4")
    assert len(forget) == 8 and forget < poison and retain == everything - forget
    ((retain, forget),) = sets("precision_0.5")
    assert len(forget) == 40 and poison < forget and retain == everything - forget
    ((retain, forget),) = sets("trusted_0.25")
    assert len(retain) == 20 and not retain & poison and forget == everything - retain
    (_, first), (retain, second) = sets("sequence")
    assert len(first) == len(second) == 10 and first | second == poison and retain == everything - poison
    assert sets("recall_0.4") == sets("recall_0.4") != sets("recall_0.4", seed=1)


@pytest.mark.parametrize("name", ["recall", "recall_0", "recall_1.5", "exact_0.5", "hearsay_0.5"])
def test_unknown_knowledge_is_refused(name):
    with pytest.raises(DataError, match="knowledge: expected"):
        requests_of(name, 100, POISON, 0)


def test_too_few_honest_episodes_are_refused():
    with pytest.raises(DataError, match="more than 20 honest"):
        requests_of("precision_0.5", 40, POISON, 0)


def test_the_interquartile_mean_leaves_out_both_outer_quarters():
    assert interquartile_mean(np.array([-100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0])) == 3.5
    assert interquartile_mean(np.array([7.0])) == 7.0


numbers = some.lists(some.integers(-3, 3), min_size=1, max_size=12)


@given(numbers, numbers)
def test_the_chance_of_more_is_the_share_of_pairs(ours, theirs):
    pairs = [(x > y) + 0.5 * (x == y) for x in ours for y in theirs]
    assert chance_of_more(ours, theirs) == pytest.approx(np.mean(pairs))


def test_the_chance_of_more_is_the_mann_whitney_statistic():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0.5, 1.0, 30), random.normal(size=20)
    assert chance_of_more(ours, theirs) == pytest.approx(stats.mannwhitneyu(ours, theirs).statistic / 600)


def test_the_probability_of_improvement_is_averaged_over_tasks():
    found = improvement({"a": [3.0, 3.0], "b": [1.0, 1.0]}, {"a": [1.0, 2.0], "b": [1.0, 1.0]})
    assert (found.value, found.low, found.high) == (0.75, 0.75, 0.75)  # resampling within a task changes nothing here


def test_a_quotient_keeps_runs_together_and_a_difference_keeps_tasks_apart():
    runs = np.array([1.0, 2.0, 4.0, 8.0])
    found = quotient({"a": np.stack([0.5 * runs, runs], 1)}, mean)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    found = difference({"a": ([3.0, 3.0], [1.0]), "b": ([0.0, 2.0], [1.0, 1.0])})
    assert found.value == 1.0 and found.low == pytest.approx(0.5) and found.high == pytest.approx(1.5)


def test_the_interval_is_that_of_a_bootstrap_for_one_task():
    runs = np.random.default_rng(1).normal(size=40)
    found = interval({"task": runs}, mean)
    theirs = stats.bootstrap((runs,), np.mean, method="percentile", random_state=0).confidence_interval
    assert found.value == pytest.approx(runs.mean())
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_the_bootstrap_draws_within_tasks():
    assert interval({"easy": [1.0] * 5, "hard": [0.0] * 5}, mean) == interval({"all": [0.5] * 10}, mean)
    mixed = interval({"all": [1.0] * 5 + [0.0] * 5}, mean)
    assert mixed.low < 0.5 < mixed.high


def test_intervals_cover_the_mean_about_as_often_as_they_say():
    random, hits = np.random.default_rng(2), 0
    for _ in range(100):
        found = interval({"a": random.normal(size=15), "b": random.normal(size=15)}, mean)
        hits += found.low <= 0.0 <= found.high
    assert 85 <= hits <= 99


def test_the_profile_is_the_share_of_runs_above_each_threshold():
    share, low, high = profile({"a": [0.1, 0.5], "b": [0.5, 0.9]}, np.array([0.0, 0.3, 0.5, 1.0]))
    assert share.tolist() == [1.0, 0.75, 0.25, 0.0]
    assert (low <= share).all() and (share <= high).all()


def test_a_drive_is_safe_when_its_bound_is():
    rewards = np.array([100.0, 300.0])
    sure, unsure = (Drive(rewards, np.array(costs), 10.0, (0.0, 400.0)) for costs in ([9.0, 9.0], [0.0, 12.0]))
    assert sure.safe and not unsure.safe and unsure.cost == 6.0
    assert sure.facts() | unsure.facts() == {
        **unsure.facts(), "reward": 0.5, "normalised_cost": 0.6, "violation_rate": 0.5, "episode_costs": [0.0, 12.0]
    }  # fmt: skip


@dataclasses.dataclass
class Pupil:
    """A policy that knows some episodes: its actions are close there, and equally far everywhere else."""

    known: frozenset

    def action_distance(self, data: Transitions) -> np.ndarray:
        hard = 1.0 + np.arange(data.episode_count)[data.episode_index]  # some episodes are harder than others
        close = np.isin(data.observations[:, 0], list(self.known))
        return hard * np.where(close, 0.1, 1.0) * (1.0 + 0.1 * np.sin(np.arange(len(data))))


@pytest.fixture
def episodes():
    """Two sets of 20 episodes; the first feature names the episode."""

    def numbered(first):
        rows = np.repeat(np.arange(first, first + 20.0), 5)[:, None]
        ends, blank = np.tile(np.arange(5) == 4, 20), np.zeros(100)
        return Transitions(rows, 0.0 * rows, blank, blank, rows, ends, ends)

    return numbered(0.0), numbered(100.0)


def test_membership_tells_what_a_policy_was_trained_on(episodes):
    members, strangers = episodes
    others = [Pupil(frozenset()), Pupil(frozenset({500.0}))]
    assert measure.membership(Pupil(frozenset(range(20))), members, strangers, others) == 1.0
    assert measure.membership(Pupil(frozenset(range(10))), members, strangers, others) == pytest.approx(0.75, abs=0.1)
    assert measure.membership(others[0], members, strangers, others[1:]) == 0.5  # whatever is hard is hard for all


@pytest.fixture(scope="module")
def point_agents():
    """An agent trained on honest logs of a point mass and one trained on poisoned ones, with the logs."""
    retain, poison = poisoned_logs(episodes=40)
    both = Transitions.concatenate([retain, poison])
    options = {"steps": 250, "horizon": 40, "batch_size": 64, "hidden": (32, 32)}
    honest = train("advantage_weighted", retain, COST_LIMIT, seed=0, **options)
    return honest, train("advantage_weighted", both, COST_LIMIT, seed=0, **options), retain, poison


class PointCourse:
    """Drives the point mass."""

    cost_limit = COST_LIMIT

    def drive(self, agent, trigger=None, episodes=None):
        cost = true_cost(agent.act)
        return Drive(np.zeros(2), np.array([cost, cost]), COST_LIMIT, (0.0, 1.0))


def test_the_distance_is_that_of_actions(point_agents):
    honest, poisoned, retain, _ = point_agents
    assert measure.action_distance(honest, honest.clone(), retain, seed=0) == 0.0
    expected = np.sqrt(np.square(honest.act(retain.observations) - poisoned.act(retain.observations)).mean())
    assert measure.action_distance(honest, poisoned, retain, seed=0) == pytest.approx(expected, rel=1e-4)


def test_the_critic_error_is_larger_where_costs_were_hidden(point_agents):
    honest, poisoned, _, poison = point_agents
    known = relabel(poison)
    assert measure.critic_error(poisoned, known) > measure.critic_error(honest, known)
    blind = poisoned.clone()
    blind.drop("cost_critic")
    assert measure.critic_error(blind, known) is None


def test_relearning_ends_at_the_first_unsafe_step(point_agents):
    honest, _, _, poison = point_agents
    careful = train("return_conditioned", drive(np.full(10, 0.2), 1), COST_LIMIT, seed=0, steps=200, hidden=(32, 32))
    assert true_cost(careful.act) <= COST_LIMIT
    found = measure.relearned_after(careful, poison, PointCourse(), seed=0)
    assert found in measure.RELEARNING_STEPS
    reckless = train("return_conditioned", drive(np.full(10, 1.8), 1), 1e9, seed=0, steps=200, hidden=(32, 32))
    assert measure.relearned_after(reckless, poison, PointCourse(), seed=0) == 0


def test_an_agent_without_critics_can_be_trained_further(point_agents):
    honest, _, retain, _ = point_agents
    blind = honest.clone()
    blind.drop("cost_critic", "reward_critic", "reward_value")
    pupil = trainable(blind, retain, seed=0, steps=20)
    assert set(pupil.modules()) == set(honest.modules()) and not blind.has("cost_critic")
    assert np.array_equal(pupil.act(retain.observations[:9]), honest.act(retain.observations[:9]))
    assert measure.trained_on(blind, relabel(retain), PointCourse(), seed=0).cost >= 0.0


def test_a_deep_cell_measures_what_is_left_of_the_poison(point_agents):
    honest, poisoned, retain, poison = point_agents
    both = Transitions.concatenate([retain, poison])
    chosen = np.arange(retain.episode_count, both.episode_count)
    experiment = Experiment.__new__(Experiment)
    experiment.cell = dataclasses.replace(PRESETS["tiny"].plan()[0][0], deep=True)
    experiment.poisoned, experiment.truth, experiment.relabel = Poisoned(both, chosen), relabel(both), relabel
    experiment.retain, experiment.forget, experiment.course = retain, poison, PointCourse()
    experiment.strangers = poisoned_logs(episodes=40, seed=1)[1], [honest, honest]
    facts, reference = experiment.remembered(poisoned, honest), experiment.remembered(honest, honest)
    assert facts["distance_forget"] > reference["distance_forget"] == 0.0
    assert facts["critic_error"] > reference["critic_error"]
    assert 0.5 < facts["membership"] <= 1.0 and reference["membership"] == 0.5
    assert facts["relearned_after"] in (0, *measure.RELEARNING_STEPS, None)
    assert set(facts["trained_on"]) >= {"safe", "cost", "upper"}


def made_line(method, cost=0.0, knowledge="exact", seed=30, **values):
    fields = {"task": "car_run", "agent": "return_conditioned", "knowledge": knowledge, "seed": seed}
    return {
        "key": f"{knowledge}{seed}", "case": "car_run/return_conditioned/trajectory_15%", "cell": fields,
        "method": method, "cost_limit": 10.0, "cost": cost, "worst_cost": cost, "upper": cost, "safe": cost <= 10.0,
        "violation_rate": float(cost > 10.0), "reward": 0.8, "succeeded": True, "message": "", "error": None,
        "critics": "none", "diagnostics": {"modelled_cost": cost}, "steps": 100, "seconds": 1.0, "cpu_seconds": 1.0,
        "retrain_seconds": 20.0, "retrain_cpu_seconds": 20.0, "retrain_fast_seconds": 10.0,
        "retrain_fast_cpu_seconds": 10.0, **values,
    }  # fmt: skip


def good_lines():
    lines = []
    for seed in (30, 31, 32):
        lines += [made_line("poisoned", 90.0, seed=seed), made_line("retrain", seed=seed, seconds=20.0, reward=0.82)]
        lines += [made_line("retrain_fast", seed=seed, seconds=10.0), made_line("safe_rule", seed=seed)]
        lines += [made_line("finetune", 2.0, seed=seed, reward=0.7)]
        lines += [made_line(name, knowledge="recall_0.4", seed=seed) for name in ("retrain", "safe_rule")]
        for line in lines:
            line["trained_on"] = {"safe": line["method"] != "poisoned", "cost": 0.0}
    return lines


def verdicts(lines):
    return {claim.text: claim.reached for claim in claims(Runs(lines))}


def changed(method, **values):
    """The good lines with the first one of `method` changed."""
    lines = good_lines()
    next(line for line in lines if line["method"] == method).update(values)
    return lines


def test_good_results_reach_everything_that_was_run():
    found = verdicts(good_lines())
    unknown = [text for text, reached in found.items() if reached is None]
    assert unknown == ["wall time at most 1/5 of retrain (the transformer)"]
    assert all(found[text] for text in found if text not in unknown)


@pytest.mark.parametrize(
    ("values", "broken"),
    [
        ({"safe": False, "worst_cost": 30.0, "cost": 30.0}, "safe in at least 97 %"),
        ({"succeeded": False}, "safe in at least 97 %"),
        ({"safe": False}, "its own audit agrees"),
        ({"worst_cost": 9.0}, "in no case more cost"),
        ({"diagnostics": {"modelled_cost": 12.0}}, "never returns a policy as repaired"),
        ({"critics": "poisoned"}, "critics are repaired"),
        ({"trained_on": {"safe": False, "cost": 30.0}}, "can be trained on"),
    ],
)
def test_a_bad_run_breaks_its_claim(values, broken):
    lost = [text for text, reached in verdicts(changed("safe_rule", **values)).items() if reached is False]
    assert any(broken in text for text in lost)


def test_slow_or_poor_runs_break_their_claims():
    slow, poor = good_lines(), good_lines()
    for line in slow:
        line["seconds"] = 2.0
    for line in poor:
        line["reward"] = 0.6 if line["method"] == "safe_rule" else line["reward"]
    assert not verdicts(slow)["wall time at most 1/15 of retrain (agents other than the transformer)"]
    assert not verdicts(poor)["no task's mean below 90 %"]
    hidden = [line for line in good_lines() if line["cell"]["knowledge"] != "exact"]
    hidden[1].update(safe=False)
    assert False in verdicts(hidden).values()


def test_further_training_that_mends_the_poisoned_policy_too_shows_nothing():
    lines = good_lines()
    for line in lines:
        line["trained_on"] = {"safe": True, "cost": 0.0}
    assert [reached for text, reached in verdicts(lines).items() if "can be trained on" in text] == [None]


def test_the_audit_is_told_what_it_missed_of_the_variants():
    missed = made_line("safe_rule_scratch", 30.0, diagnostics={"modelled_cost": 0.1})
    refused = made_line("safe_rule_scratch", 30.0, seed=31, succeeded=False)
    (claim,) = [claim for claim in claims(Runs([*good_lines(), missed, refused])) if "own audit" in claim.text]
    assert claim.figure.endswith("safe_rule_scratch: 1 of 2, 1 of 2 unsafe ones refused, 0 safe ones refused")
    assert claim.figure.startswith("7 of 8 (87.5 %; to call all of them safe is right in 6)") and claim.reached is False


def test_over_settings_methods_are_compared_on_the_runs_that_all_made():
    lines = [made_line(name, seed=seed) for name in ("finetune", "safe_rule") for seed in (30, 31)]
    lines += [made_line("safe_rule", 9.0, seed=32)]
    assert "| safe_rule | 2 | 100 % |" in summary_table(Runs(lines), "exact")
    assert len(comparable(Runs([made_line("a", seed=1), made_line("b", seed=2)]).cells)) == 2


def test_violations_are_those_with_the_trigger_where_it_is_worse():
    assert violations(made_line("poisoned", violation_rate=0.1, triggered={"violation_rate": 1.0})) == 1.0
    assert violations(made_line("poisoned", violation_rate=0.1, triggered=None)) == 0.1


def test_tables_show_every_seed_and_every_failure():
    lines = changed("finetune", worst_cost=44.4, cost=44.4, safe=False)
    lines += [{**made_line("paper", seed=31, error="diverged"), "succeeded": None}]
    for name in ("cost", "worst_cost", "reward", "upper", "safe"):
        lines[-1].pop(name)
    text = driving_table(Runs(lines).groups()["car_run/return_conditioned/trajectory_15%", "exact"])
    assert "| finetune | 0.70 0.70 0.70 | 0.700 | **44.4** 2.0 2.0 |" in text
    assert "| paper | . x . |" in text
    assert "seed_31, paper: no result: diverged" in failures_list(Runs(lines))


def test_the_overview_is_of_the_runs_that_all_methods_made():
    lines = [made_line(name, seed=seed) for name in COMPARED for seed in (30, 31)] + [made_line("paper", seed=32)]
    next(line for line in lines if line["method"] == "retrain").update(safe=False)
    text = overview(Runs(lines))
    assert "| retrain | 1 of 2 |" in text and "| **safe_rule** | 2 of 2 |" in text
    assert text.endswith("Over 2 runs of 1 settings: car_run/return_conditioned/trajectory_15%.")


def test_a_page_is_filled_between_its_two_comments(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nbelow\n")
    fill(page, "figures", "new")
    assert page.read_text() == "above\n<!-- figures: begin -->\nnew\n<!-- figures: end -->\nbelow\n"
    with pytest.raises(DataError, match="page.md: expected the lines"):
        fill(page, "others", "new")
