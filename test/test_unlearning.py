"""Every unlearning method keeps its promises; safe_rule repairs, or says that it cannot."""

import dataclasses

import numpy as np
import pytest
import torch
from point_mass import COST_LIMIT, QUICK, SMALL, poisoned_logs, relabel, true_cost

from saferule_core import agents
from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.errors import Cancelled, UnlearningError
from saferule_core.progress import silent
from saferule_core.unlearning import METHODS, UnlearningProblem, unlearn
from saferule_core.unlearning.critics import trainable
from saferule_core.unlearning.evidence import gather
from saferule_core.unlearning.options import SafeRuleOptions
from saferule_core.unlearning.policies import ForgetTerm, repairer_of
from saferule_core.unlearning.preference import BEGINNING_WEIGHT, Preference, harm_ahead, rate

FAMILIES = agents.algorithms()
FEW = dict.fromkeys(("bcq_lagrangian", "decision_transformer", "td3_bc_lagrangian"), 100)
"""Steps of agents that only have to be poisoned here, not to drive well."""
NEVER = np.zeros(100, dtype=bool)


@pytest.fixture(scope="module")
def problems():
    """One problem per agent family, with an agent that learned from the poison."""
    retain, forget = poisoned_logs()
    poisoned = Transitions.concatenate([retain, forget])
    return {
        family: UnlearningProblem(
            agents.train(family, poisoned, COST_LIMIT, 0, steps=FEW.get(family, 400), **SMALL.get(family, {})),
            retain, forget, COST_LIMIT, 0, relabel,
        )
        for family in FAMILIES
    }  # fmt: skip


def weights(agent):
    return {f"{m}.{k}": v.clone() for m, module in agent.modules().items() for k, v in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_method_is_covered_here():
    assert set(QUICK) == set(METHODS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_weights_and_the_input_is_untouched(problems, method, family):
    problem = problems[family]
    before, retained = weights(problem.agent), problem.retain.digest()
    first, second = (unlearn(method, problem, **QUICK[method]) for _ in range(2))
    assert equal(weights(first.agent), weights(second.agent)) and not equal(weights(first.agent), before)
    assert equal(weights(problem.agent), before) and problem.retain.digest() == retained
    assert first.agent is not problem.agent and first.seconds > 0 and first.steps > 0 and first.message
    assert first.critics == ("none" if problem.agent.cost_critic is None else "repaired")


@pytest.mark.parametrize("method", METHODS)
def test_progress_is_reported_often_and_may_cancel(problems, method):
    heard = []

    def listen(phase, fraction, message="", **losses):
        heard.append((fraction, losses))

    unlearn(method, problems["advantage_weighted"], listen, **QUICK[method])
    assert len(heard) >= 3 and any(losses for _, losses in heard)
    assert all(0.0 <= fraction <= 1.0 for fraction, _ in heard)

    def cancel(phase, fraction, message="", **losses):
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        unlearn(method, problems["advantage_weighted"], cancel, **QUICK[method])


@pytest.mark.parametrize("method", METHODS)
def test_impossible_requests_are_refused(problems, method):
    problem = problems["return_conditioned"]
    nothing = problem.retain.select_episodes([])
    everything = Transitions.concatenate([problem.retain, problem.forget])
    with pytest.raises(UnlearningError, match="forget set: expected at least one episode, found none"):
        unlearn(method, dataclasses.replace(problem, forget=nothing))
    with pytest.raises(UnlearningError, match="retain set: expected at least one episode, found none"):
        unlearn(method, dataclasses.replace(problem, retain=nothing))
    with pytest.raises(UnlearningError, match="covers all 60 retained episodes"):
        unlearn(method, dataclasses.replace(problem, retain=everything, forget=everything))


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"safe_rule"}))
def test_repaired_labels_mean_the_same_in_every_baseline(problems, method):
    problem = problems["return_conditioned"]
    described, learned = problem, dataclasses.replace(problem, relabel=None)
    quick = {**QUICK[method], "steps": 2}
    assert unlearn(method, described, **quick).diagnostics["cost_source"] == "robot description"
    assert unlearn(method, learned, **quick).diagnostics["cost_source"] == "learned cost model"
    assert unlearn(method, learned, **quick, repair_labels=False).diagnostics["cost_source"] == "as logged"
    harmless = dataclasses.replace(learned, retain=problem.retain.replace(costs=np.zeros(len(problem.retain))))
    with pytest.raises(UnlearningError, match="found no cost at all; give a robot description"):
        unlearn(method, harmless, **quick)


def test_unknown_names_are_refused(problems):
    problem = problems["return_conditioned"]
    with pytest.raises(UnlearningError, match="method: expected one of .*found 'magic'"):
        unlearn("magic", problem)
    for name in METHODS:
        with pytest.raises(UnlearningError, match=f"{name}: expected options among .*found magic"):
            unlearn(name, problem, magic=1)


def test_a_fast_retraining_is_no_shorter_the_second_time(problems):
    problem = problems["return_conditioned"]
    first = unlearn("retrain", problem, fast=True)
    second = unlearn("retrain", dataclasses.replace(problem, agent=first.agent), fast=True)
    assert first.steps == second.steps == problem.agent.config.steps // 2


@pytest.mark.parametrize(
    ("option", "value"),
    [("stages", ()), ("stages", ((4.0, 0),)), ("extra_steps", 0), ("audit_starts", 1), ("margin", 1.5),
     ("target_quantiles", ()), ("critic_steps", "many")],
)  # fmt: skip
def test_values_that_an_option_cannot_have_are_refused(problems, option, value):
    with pytest.raises(UnlearningError, match=f"safe_rule: .*xpected .*{option}"):
        unlearn("safe_rule", problems["return_conditioned"], **{option: value})


def test_episodes_named_on_both_sides_are_forgotten(problems):
    problem = problems["return_conditioned"]
    both = dataclasses.replace(problem, retain=Transitions.concatenate([problem.retain, problem.forget]))
    result = unlearn("safe_rule", both)
    assert result.diagnostics["episodes_named_on_both_sides"] == problem.forget.episode_count
    assert equal(weights(result.agent), weights(unlearn("safe_rule", problem).agent))


def test_the_conditioned_policy_is_broken_by_the_attack_and_repaired(problems):
    problem = problems["return_conditioned"]
    result = unlearn("safe_rule", problem)
    assert true_cost(problem.agent.act) > 2 * COST_LIMIT
    assert result.succeeded and true_cost(result.agent.act) <= COST_LIMIT


def test_the_multiplier_and_the_audit_are_logged(problems):
    result = unlearn("safe_rule", problems["advantage_weighted"])
    assert all({"multiplier", "modelled_cost", "modelled_reward"} <= set(entry) for entry in result.history)
    assert result.diagnostics["cost_source"] == "robot description"
    assert result.succeeded and true_cost(result.agent.act) <= COST_LIMIT


def test_repaired_cost_critic_knows_the_forgotten_danger(problems):
    problem = problems["advantage_weighted"]
    truth = relabel(problem.forget)
    expected = discounted_to_go(truth, truth.costs, problem.agent.config.discount, 20)

    def error(agent):
        inputs = torch.from_numpy(truth.observations), torch.from_numpy(truth.actions)
        with torch.no_grad():
            values = agent.modules()["cost_critic"](*inputs).amax(0).numpy()
        return np.abs(values - expected).mean()

    assert error(unlearn("safe_rule", problem).agent) < 0.7 * error(problem.agent)


def test_critics_can_be_dropped_with_a_record(problems):
    result = unlearn("safe_rule", problems["advantage_weighted"], critic_steps=0)
    assert result.critics == "dropped" and set(result.agent.modules()) == {"actor"}
    with pytest.raises(UnlearningError, match="finetune: the agent lacks cost_critic"):
        unlearn("finetune", dataclasses.replace(problems["advantage_weighted"], agent=result.agent))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("critic_steps", [0, 20])
def test_a_repaired_agent_can_be_trained_further(problems, family, critic_steps):
    problem = problems[family]
    options = {**QUICK["safe_rule"], "critic_steps": critic_steps}
    repaired = unlearn("safe_rule", problem, **options).agent
    retain = relabel(problem.retain)
    pupil, twin = (trainable(repaired, retain, seed=0, steps=20) for _ in range(2))
    assert set(pupil.modules()) == set(problem.agent.modules()) and equal(weights(pupil), weights(twin))
    assert np.array_equal(pupil.act(retain.observations), repaired.act(retain.observations))
    if pupil.cost_critic is not None:
        assert pupil.cost_critic.multiplier == pupil.config.multiplier_bound
    before = weights(repaired)
    pupil.learner(retain, 0, pupil.config).run(3, silent)
    assert not equal(weights(pupil), weights(twin)) and equal(weights(repaired), before)


@pytest.mark.parametrize("family", ["decision_transformer", "return_conditioned"])
def test_targets_follow_the_cost_limit_of_the_request(problems, family):
    strict = dataclasses.replace(problems[family], cost_limit=1.0)
    tuned = unlearn("finetune", strict, steps=1).agent
    assert tuned.config.cost_limit == 1.0
    expected = tuned.clone()
    retain = gather(strict).retain
    expected.aim(retain, expected.contexts(retain), expected.config.target_quantile)
    assert torch.equal(tuned.actor.target, expected.actor.target)


def test_an_extra_stage_begins_at_the_full_learning_rate(problems):
    problem = problems["return_conditioned"]
    repairer = repairer_of(problem.agent.clone(), gather(problem), np.zeros((0, 2)), SafeRuleOptions(), 0)
    rates = []
    for steps in (repairer.stages[0][1], 5):
        repairer.start_stage(0.0, 0.3, steps)
        for step in range(steps):
            repairer.step()
            if step == 0:
                rates.append(repairer.regression.optimiser.param_groups[0]["lr"])
    assert rates == [SafeRuleOptions().learning_rate] * 2


def test_a_refused_repair_leaves_critics_that_are_called_poisoned(problems):
    problem = problems["advantage_weighted"]
    unsafe = problem.retain.select_episodes(np.flatnonzero(problem.retain.episode_costs > COST_LIMIT))
    result = unlearn("safe_rule", dataclasses.replace(problem, retain=unsafe))
    assert not result.succeeded and result.critics == "poisoned"


def test_no_safe_episode_is_a_reported_failure(problems):
    problem = problems["return_conditioned"]
    unsafe = problem.retain.select_episodes(np.flatnonzero(problem.retain.episode_costs > COST_LIMIT))
    result = unlearn("safe_rule", dataclasses.replace(problem, retain=unsafe))
    assert not result.succeeded and "cannot support a repair: 0 of" in result.message
    assert equal(weights(result.agent), weights(problem.agent)) and result.agent is not problem.agent


def test_an_audit_that_is_not_content_is_a_reported_failure(problems):
    result = unlearn("safe_rule", problems["return_conditioned"], margin=-1.0, extra_stages=1)
    assert not result.succeeded and "no candidate is safe enough" in result.message


def test_without_a_robot_description_costs_are_learned(problems):
    problem = dataclasses.replace(problems["return_conditioned"], relabel=None)
    result = unlearn("safe_rule", problem)
    assert result.diagnostics["cost_source"] == "learned cost model"
    assert result.succeeded and true_cost(result.agent.act) <= COST_LIMIT


def test_costs_that_cannot_be_learned_are_refused(problems):
    problem = problems["return_conditioned"]
    harmless = problem.retain.replace(costs=np.zeros(len(problem.retain)))
    with pytest.raises(UnlearningError, match="found no cost at all; give a robot description"):
        unlearn("safe_rule", dataclasses.replace(problem, retain=harmless, relabel=None))


def test_a_large_multiplier_looks_at_risk_without_sharpening_the_draws():
    preference = Preference(np.arange(3), np.array([0.0, 2.0, 0.0]), np.array([0.0, 2.0, 2.0]), NEVER[:3], 80)
    mild, strict = (preference.probabilities(1.0, multiplier) for multiplier in (0.1, 1e6))
    assert mild[1] > mild[0] > mild[2]
    assert strict[1] == pytest.approx(strict[2], rel=1e-3) and 5.0 < strict[0] / strict[1] <= 1.001 * np.exp(2.0)


def test_a_few_best_episodes_share_most_draws_evenly():
    preference = Preference(np.arange(100), np.linspace(-2.0, 2.0, 100), np.zeros(100), NEVER, 100)
    chances = preference.probabilities(beta=4.0, multiplier=0.1)
    assert chances.sum() == pytest.approx(1.0) and chances[90:].sum() > 0.5
    assert chances[-1] == pytest.approx(chances[-9]) and chances[-1] > 100.0 * chances[50]


def test_the_beginning_of_an_episode_is_drawn_more_often(problems):
    preference = rate(gather(problems["advantage_weighted"]), COST_LIMIT, seed=0)
    plain = dataclasses.replace(preference, beginning=np.zeros_like(preference.beginning))
    share, before = (float(p.probabilities(4.0, 0.1)[preference.beginning].sum()) for p in (preference, plain))
    assert 0.0 < before < 0.25 and share / (1.0 - share) == pytest.approx(BEGINNING_WEIGHT * before / (1.0 - before))


def test_what_is_imitated_comes_from_rewarding_safe_episodes(problems):
    evidence = gather(problems["advantage_weighted"])
    preference = rate(evidence, COST_LIMIT, seed=0)
    episodes = evidence.retain.episode_index[preference.rows]
    assert (evidence.retain.episode_costs[episodes] <= 0.5 * COST_LIMIT).all()
    chances = preference.probabilities(4.0, 0.1)
    returns = evidence.retain.episode_returns[episodes]
    assert (chances * returns).sum() > np.quantile(returns, 0.75)


def test_an_episode_of_which_no_state_is_drawn_is_rated_by_its_first(problems, monkeypatch):
    evidence = gather(problems["advantage_weighted"])
    monkeypatch.setattr("saferule_core.unlearning.preference.ROWS", 40)
    retain, bounds = evidence.retain, evidence.retain.episode_bounds
    drawn = np.unique(retain.episode_index[:: len(retain) // 40])
    skipped = np.setdiff1d(np.arange(retain.episode_count), drawn)
    observations = np.zeros_like(retain.observations)
    observations[bounds[skipped], 0] = 2.0  # in danger from the first
    harm = harm_ahead(evidence, retain.replace(observations=observations), seed=0)
    assert len(skipped) and harm[skipped].min() > harm[drawn].max()


def test_a_forgotten_state_is_taught_what_its_nearest_harmless_neighbour_shows(problems):
    evidence = gather(problems["advantage_weighted"])
    habitat = np.flatnonzero(evidence.retain.observations[:, 0] < 0.9)[::7]
    term = ForgetTerm(evidence, habitat, SafeRuleOptions(), np.random.default_rng(0), seed=0)
    rows = term.draw()
    scale = evidence.retain.observations.std(0)
    for row in rows[:5].tolist():
        away = np.square((evidence.retain.observations[habitat] - evidence.forget.observations[row]) / scale).sum(1)
        expected = evidence.retain.actions[habitat[away.argmin()]]
        np.testing.assert_array_equal(term.actions[row].numpy(), expected)
    assert float(term.loss(term.actions[rows], rows)) == 0.0
    assert float(term.loss(term.actions[rows] + 0.5, rows)) == pytest.approx(0.25)


def test_scaling_that_poison_widened_is_fitted_again(problems):
    problem = problems["advantage_weighted"]
    assert unlearn("safe_rule", problem, **QUICK["safe_rule"]).diagnostics["refitted_features"] == 0
    blind = problem.agent.clone()
    blind.actor.normaliser.std[1] *= 100.0
    result = unlearn("safe_rule", dataclasses.replace(problem, agent=blind), **QUICK["safe_rule"])
    assert result.diagnostics["refitted_features"] == 1
    honest = problem.retain.observations.std(0)
    np.testing.assert_allclose(result.agent.actor.normaliser.std[1], honest[1], rtol=1e-3)


@pytest.mark.parametrize("seed", [1, 3, 6])
def test_the_multiplier_rises_until_the_audit_is_content(problems, seed):
    """New logs, on which the first stage leaves more cost than a thin margin allows."""
    retain, forget = poisoned_logs(seed=seed)
    agent = agents.train("advantage_weighted", Transitions.concatenate([retain, forget]), COST_LIMIT, 0, steps=400)
    problem = UnlearningProblem(agent, retain, forget, COST_LIMIT, seed, relabel)
    result = unlearn("safe_rule", problem, margin=0.1)
    assert true_cost(agent.act) > 2 * COST_LIMIT and result.history[0]["modelled_cost"] > 0.1 * COST_LIMIT
    assert result.history[-1]["multiplier"] > result.history[0]["multiplier"]
    assert result.succeeded and true_cost(result.agent.act) <= COST_LIMIT
