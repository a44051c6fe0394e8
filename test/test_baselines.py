"""What each baseline does to the agent, and what the two-phase methods share."""

import dataclasses

import numpy as np
import pytest
import torch
from point_mass import COST_LIMIT, poisoned_logs, relabel

from saferule_core import agents
from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.errors import UnlearningError
from saferule_core.progress import silent
from saferule_core.unlearning import UnlearningProblem, random_reward, unlearn
from saferule_core.unlearning.contrast import one_later
from saferule_core.unlearning.fitted_critics import critics_of
from saferule_core.unlearning.phases import PhaseOptions, Setting
from saferule_core.unlearning.trajdeleter import Devaluation, shares

TWO_PHASES = ["gradient_ascent", "trajdeleter", "paper", "paper_fixed"]


@pytest.fixture(scope="module")
def problems():
    """A poisoned agent with critics, and one without."""
    retain, forget = poisoned_logs(episodes=30)
    poisoned = Transitions.concatenate([retain, forget])
    return {
        family: UnlearningProblem(
            agents.train(family, poisoned, COST_LIMIT, 0, steps=200, hidden=(32, 32)),
            retain, forget, COST_LIMIT, 0, relabel,
        )
        for family in ("advantage_weighted", "return_conditioned")
    }  # fmt: skip


def values(critic, data):
    with torch.no_grad():
        return critic(torch.from_numpy(data.observations), torch.from_numpy(data.actions)).mean(0).numpy()


@pytest.mark.parametrize("family", ["advantage_weighted", "return_conditioned"])
def test_gradient_ascent_moves_away_from_forgotten_actions_only(problems, family):
    problem = problems[family]
    options = {"steps": 100, "convergence_share": 0.0, "learning_rate": 1e-3}
    history = unlearn("gradient_ascent", problem, **options).history
    assert history[-1]["forget_loss"] > 3.0 * history[0]["forget_loss"]
    assert history[-1]["keep_loss"] < 0.5 * history[-1]["forget_loss"]


@pytest.mark.parametrize("family", ["advantage_weighted", "return_conditioned"])
def test_trajdeleter_lowers_the_value_of_what_it_forgets(problems, family):
    problem = problems[family]
    setting = Setting(
        problem.agent.clone(), relabel(problem.retain), problem.forget, problem, PhaseOptions(learning_rate=1e-3)
    )
    phase = Devaluation(setting, silent)
    before = [values(phase.critics.reward, data).mean() for data in (problem.retain, problem.forget)]
    for _ in range(60):
        phase.devalue()
    after = [values(phase.critics.reward, data).mean() for data in (problem.retain, problem.forget)]
    lost = [old - new for old, new in zip(before, after, strict=True)]
    assert lost[1] > 1.0 and lost[1] > 1.2 * lost[0]


def test_random_reward_trains_on_both_sets_with_rewards_drawn_and_costs_repaired(problems, monkeypatch):
    problem, seen = problems["advantage_weighted"], []
    monkeypatch.setattr(random_reward, "converge", lambda agent, problem, data, *rest: seen.append(data))
    unlearn("random_reward", problem)
    data, size = seen[0], len(problem.retain)
    low, high = problem.retain.rewards.min(), problem.retain.rewards.max()
    assert np.array_equal(data.rewards[:size], problem.retain.rewards)
    assert data.rewards[size:].min() >= low and data.rewards[size:].max() <= high
    assert data.rewards[size:].std() == pytest.approx((high - low) / np.sqrt(12.0), rel=0.1)
    assert np.array_equal(data.costs[size:], relabel(problem.forget).costs) and data.costs[size:].any()


@pytest.mark.parametrize("method", TWO_PHASES)
def test_the_steps_of_both_phases_add_up(problems, method):
    problem = problems["advantage_weighted"]
    phases = {"forgetting": 0, "training": 0}

    def listen(phase, fraction, message="", **losses):
        if message.startswith("step "):
            phases[phase] += 1

    result = unlearn(method, problem, listen, steps=20, convergence_share=0.25)
    assert result.steps == 20 and phases["forgetting"] > 0 and phases["training"] > 0
    assert result.message.startswith("15 steps to forget and 5 to converge")
    assert unlearn(method, problem, steps=20, convergence_share=0.0).critics == "poisoned"


@pytest.mark.parametrize("method", TWO_PHASES)
def test_options_that_make_no_sense_are_refused(problems, method):
    problem = problems["return_conditioned"]
    with pytest.raises(UnlearningError, match=f"{method}: expected options among .*found magic"):
        unlearn(method, problem, magic=1)
    with pytest.raises(UnlearningError, match="convergence_share: expected a number from 0 to 1, found 2"):
        unlearn(method, problem, convergence_share=2)


@pytest.mark.parametrize("method", [*TWO_PHASES, "random_reward"])
def test_an_agent_without_the_critics_that_it_trains_is_refused(problems, method):
    problem = problems["advantage_weighted"]
    agent = problem.agent.clone()
    agent.drop("cost_critic")
    with pytest.raises(UnlearningError, match=f"{method}: the agent lacks cost_critic; use safe_rule, or retrain"):
        unlearn(method, dataclasses.replace(problem, agent=agent))


def test_critics_are_the_agents_own_or_fitted_to_retained_returns(problems):
    retain = relabel(problems["advantage_weighted"].retain)
    agent = problems["advantage_weighted"].agent
    own = critics_of(agent, retain, 0, 10, silent)
    assert own.reward is agent.reward_critic and own.cost is agent.cost_critic
    fitted = critics_of(problems["return_conditioned"].agent, retain, 0, 200, silent)
    expected = discounted_to_go(retain, retain.costs, fitted.discount, 20)
    assert np.square(values(fitted.cost, retain) - expected).mean() < 0.5 * expected.var()
    expected = discounted_to_go(retain, retain.rewards / fitted.unit, fitted.discount, 20)
    assert np.square(values(fitted.reward, retain) - expected).mean() < 0.5 * expected.var()


def test_one_step_later_the_log_still_fits_together(problems):
    data = problems["advantage_weighted"].retain
    later = one_later(data)
    rows = np.flatnonzero(~data.episode_ends)
    assert np.array_equal(later.observations[rows], data.observations[rows + 1])
    assert np.array_equal(later.actions[rows], data.actions[rows + 1])
    ends = np.flatnonzero(data.episode_ends)
    assert np.array_equal(later.observations[ends], data.next_observations[ends])


def test_shares_add_up_and_differ_by_one_at_most():
    assert shares(10, 4) == [2, 3, 2, 3] and shares(2, 4) == [0, 1, 0, 1]
