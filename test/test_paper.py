"""What the published step does to values, multiplier and critics, in numbers, and that `paper_fixed` does not."""

import dataclasses

import pytest
import torch
from point_mass import COST_LIMIT, poisoned_logs, relabel

from saferule_core import agents
from saferule_core.data.transitions import Transitions
from saferule_core.progress import silent
from saferule_core.unlearning import UnlearningProblem, unlearn
from saferule_core.unlearning.paper import FixedStep, PaperStep
from saferule_core.unlearning.phases import PhaseOptions, Setting

REWARD_ONLY, COST_MOSTLY = 1e3, -1e3


@pytest.fixture(scope="module")
def problem():
    """A poisoned agent with critics, and its logs."""
    retain, forget = poisoned_logs(episodes=30)
    agent = agents.train(
        "advantage_weighted", Transitions.concatenate([retain, forget]), COST_LIMIT, 0, steps=200, hidden=(32, 32)
    )
    return UnlearningProblem(agent, retain, forget, COST_LIMIT, 0, relabel)


def made(kind, problem, **options):
    """Return a forgetting phase bound to a copy of the problem's agent."""
    options = PhaseOptions(**{"learning_rate": 1e-3, **options})
    setting = Setting(problem.agent.clone(), relabel(problem.retain), problem.forget, problem, options)
    return kind(setting, silent)


def value(step, name, data):
    """Return the mean of Q(s, pi(s)) over all states of a data set."""
    observations = torch.from_numpy(data.observations)
    with torch.no_grad():
        return float(step.critics[name](observations, step.actor(observations)).amin(0).mean())


def moved(kind, problem, name, allowed_gap):
    """Return how 20 policy steps alone change Q(s, pi(s)) on retained and on forgotten states."""
    step = made(kind, problem)
    step.allowed_gap = allowed_gap
    before = [value(step, name, data) for data in (problem.retain, problem.forget)]
    for _ in range(20):
        step.update_policy(step.pairs.draw())
    after = [value(step, name, data) for data in (problem.retain, problem.forget)]
    return [new - old for new, old in zip(after, before, strict=True)]


def test_the_published_step_lowers_reward_on_retained_states_and_the_fixed_one_raises_it(problem):
    published = moved(PaperStep, problem, "reward", REWARD_ONLY)
    fixed = moved(FixedStep, problem, "reward", REWARD_ONLY)
    assert published[0] - published[1] < -0.05
    assert fixed[0] - fixed[1] > 0.05
    assert published[0] < 0.0 < fixed[0]


def test_the_published_step_raises_cost_on_retained_states_and_the_fixed_one_lowers_it(problem):
    published = moved(PaperStep, problem, "cost", COST_MOSTLY)
    fixed = moved(FixedStep, problem, "cost", COST_MOSTLY)
    assert published[0] - published[1] > 0.05
    assert fixed[0] - fixed[1] < -0.05


def test_the_published_multiplier_falls_to_zero_at_once(problem):
    step = made(PaperStep, problem)
    assert [step.step()["multiplier"] for _ in range(10)][1:] == [0.0] * 9


@pytest.mark.parametrize(("logged", "direction"), [(-1.0, 1.0), (1.0, -1.0)])
def test_the_fixed_multiplier_rises_where_retained_states_cost_more_above_the_log_than_forgotten_ones(
    problem, logged, direction
):
    step = made(FixedStep, problem)
    step.critics["cost"] = lambda observations, actions: actions.sum(1)[None]
    step.actor_optimiser.param_groups[0]["lr"] = 0.0
    batch = step.pairs.draw()
    actions = torch.full_like(batch.actions, logged)
    actions[len(actions) // 2 :] *= -1.0
    batch = dataclasses.replace(batch, actions=actions)
    before = step.multiplier
    for _ in range(5):
        step.update_policy(batch)
    assert direction * (step.multiplier - before) > 0.1


def test_the_published_ascent_on_critics_has_no_bound_and_the_fixed_one_has(problem):
    worst = {}
    for kind in (PaperStep, FixedStep):
        step = made(kind, problem, learning_rate=1e-2)
        history = [step.step() for _ in range(150)]
        worst[kind] = [entry["keep_critic_loss"] for entry in history]
    assert worst[PaperStep][-1] > 100.0 * worst[PaperStep][0]
    assert worst[FixedStep][-1] < 2.0 * worst[FixedStep][0]


def test_targets_follow_while_forgetting_only_as_published(problem):
    changed = {}
    for kind in (PaperStep, FixedStep):
        step = made(kind, problem)
        before = [weight.clone() for weight in step.targets["cost"].parameters()]
        for _ in range(5):
            step.step()
        changed[kind] = not all(map(torch.equal, before, step.targets["cost"].parameters()))
    assert changed == {PaperStep: True, FixedStep: False}


@pytest.mark.parametrize("method", ["paper", "paper_fixed"])
def test_the_step_leaves_the_behaviour_model_of_bcq_alone(problem, method):
    logs = Transitions.concatenate([problem.retain, problem.forget])
    agent = agents.train("bcq_lagrangian", logs, COST_LIMIT, 0, steps=20, hidden=(16, 16))
    bcq = dataclasses.replace(problem, agent=agent)
    repaired = unlearn(method, bcq, steps=4, critic_steps=0, convergence_share=0.0).agent.actor.state_dict()
    changed = {name.split(".")[0] for name, old in agent.actor.state_dict().items() if not old.equal(repaired[name])}
    assert changed == {"choice"}


def test_critics_that_forgot_and_did_not_converge_are_reported_as_poisoned(problem):
    result = unlearn("paper", problem, steps=10, convergence_share=0.0)
    assert result.critics == "poisoned" and result.history[-1]["multiplier"] == 0.0
    assert result.succeeded and "not audited" in result.message


def test_critics_that_ran_away_are_not_reported_as_repaired(problem):
    result = unlearn("paper", problem, steps=202, convergence_share=0.01, learning_rate=1e-2)
    assert result.critics == "poisoned"


def test_weights_that_are_no_longer_finite_are_a_reported_failure(problem):
    result = unlearn("paper", problem, steps=20, learning_rate=1e30)
    assert not result.succeeded and result.message.startswith("paper ran away")
