"""Agents learn the same from the same, rebuild from their numbers, and obey cancellation."""

import json

import numpy as np
import pytest
import torch
from point_mass import COST_LIMIT, drive

from saferule_core import agents
from saferule_core.agents.actor_critic import transition_table
from saferule_core.agents.filtered_cloning import FilteredCloningConfig, worth_imitating
from saferule_core.agents.memory import LONGEST_MEMORY, Memory
from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.errors import Cancelled, DataError, SaferuleError
from saferule_core.progress import silent

ALGORITHMS = agents.algorithms()


@pytest.fixture(scope="module")
def logs():
    return drive(np.linspace(0.1, 1.6, 30), seed=1)


def weights(agent):
    return {f"{m}.{k}": v for m, module in agent.modules().items() for k, v in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_same_seed_gives_the_same_weights(algorithm, logs):
    first, second, other = (agents.train(algorithm, logs, COST_LIMIT, seed, steps=30) for seed in (0, 0, 1))
    assert equal(weights(first), weights(second)) and not equal(weights(first), weights(other))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_leaves_the_global_random_state_alone(algorithm, logs):
    before = torch.get_rng_state()
    agents.train(algorithm, logs, COST_LIMIT, seed=0, steps=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hyperparameters_survive_json_and_rebuild_the_agent(algorithm, logs):
    agent = agents.train(algorithm, logs, COST_LIMIT, seed=0, steps=5)
    twin = agents.build(algorithm, 2, 1, json.loads(json.dumps(agent.hyperparameters())))
    for name, module in twin.modules().items():
        module.load_state_dict(agent.modules()[name].state_dict())
    np.testing.assert_array_equal(agent.act(logs.observations), twin.act(logs.observations))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_actions_fit_the_robot(algorithm, logs):
    agent = agents.train(algorithm, logs, COST_LIMIT, seed=0, steps=5)
    actions = agent.act(100.0 * logs.observations)
    assert actions.shape == (len(logs), 1) and actions.dtype == np.float32 and np.abs(actions).max() <= 1.0


def test_dropped_critics_stay_dropped_after_rebuilding(logs):
    agent = agents.train("advantage_weighted", logs, COST_LIMIT, seed=0, steps=2)
    agent.drop("cost_critic", "reward_critic", "reward_value")
    assert set(agents.build(agent.algorithm, 2, 1, agent.hyperparameters()).modules()) == {"actor"}


def test_a_clone_is_independent(logs):
    agent = agents.train("advantage_weighted", logs, COST_LIMIT, seed=0, steps=2)
    before = agent.act(logs.observations)
    twin = agent.clone()
    torch.nn.init.zeros_(twin.actor.body[-1].weight)
    np.testing.assert_array_equal(agent.act(logs.observations), before)


def test_a_conditioned_agent_asks_for_what_safe_episodes_gave(logs):
    agent = agents.train("return_conditioned", logs, COST_LIMIT, seed=0, steps=2)
    safe = np.repeat(logs.episode_costs <= COST_LIMIT, np.diff(logs.episode_bounds))
    target = agent.actor.target.numpy()
    assert target[1] == 0.0
    assert target[0] == pytest.approx(np.quantile(agent.contexts(logs)[safe, 0], agent.config.target_quantile))


def test_cancelling_stops_training(logs):
    def cancel(phase, fraction, message="", **losses):
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        agents.train("advantage_weighted", logs, COST_LIMIT, seed=0, progress=cancel)


def test_bad_requests_say_what_is_expected(logs):
    with pytest.raises(SaferuleError, match="expected one of advantage_weighted, .*, found 'magic'"):
        agents.train("magic", logs, COST_LIMIT, seed=0)
    with pytest.raises(SaferuleError, match=r"expected hyperparameters among .*found \['magic'\]"):
        agents.train("advantage_weighted", logs, COST_LIMIT, seed=0, magic=1)
    with pytest.raises(DataError, match="at least one transition"):
        agents.train("advantage_weighted", logs.select_episodes([]), COST_LIMIT, seed=0)


def test_to_go_restarts_with_every_episode_and_continues_the_tail():
    ends = np.array([False, True, False, False, True])
    state = np.zeros((5, 1))
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    data = Transitions(state, state, values, values, state, np.array([False] * 4 + [True]), ends)
    np.testing.assert_allclose(discounted_to_go(data, values, 0.5), [2.0, 2.0, 6.25, 6.5, 5.0])
    np.testing.assert_allclose(discounted_to_go(data, values, 0.5, tail=1)[:2], [3.0, 4.0])  # goes on at 2
    np.testing.assert_allclose(discounted_to_go(data, values, 0.5, tail=1)[2:], [6.25, 6.5, 5.0])  # terminated


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_action_distance_is_that_of_the_deployed_policy(algorithm, logs):
    agent = agents.train(algorithm, logs, COST_LIMIT, seed=0, steps=5)
    before = Memory.logged(logs, np.arange(len(logs)), LONGEST_MEMORY)
    expected = np.square(agent.act(logs.observations, before) - logs.actions).sum(1)
    np.testing.assert_allclose(agent.action_distance(logs), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_actor_inputs_carry_a_gradient(algorithm, logs):
    agent = agents.train(algorithm, logs, COST_LIMIT, seed=0, steps=5)
    rows = torch.tensor([0, 5, 9])
    agent.actor(*agent.inputs(logs).batch(rows)).square().sum().backward()
    assert len(agent.inputs(logs)) == len(logs) and any(w.grad is not None for w in agent.actor.parameters())


def test_filtered_cloning_imitates_the_most_rewarding_safe_episodes(logs):
    config = FilteredCloningConfig(cost_limit=COST_LIMIT, top_share=0.25, least_episodes=1)
    safe = np.flatnonzero(logs.episode_costs <= COST_LIMIT / 2)
    chosen = worth_imitating(logs, config)
    assert len(chosen) == round(0.25 * len(safe)) and set(chosen) <= set(safe)
    assert logs.episode_returns[chosen].min() >= np.sort(logs.episode_returns[safe])[-len(chosen)]
    assert (logs.episode_returns > logs.episode_returns[chosen].max()).any()  # more reward, but not safe


def test_where_nothing_is_labelled_safe_the_least_costly_tenth_stands_in(logs):
    costs = 1.0 + np.arange(logs.episode_count) * 0.1
    dear = logs.replace(costs=np.repeat(costs, np.diff(logs.episode_bounds)).astype(np.float32))
    assert set(worth_imitating(dear, FilteredCloningConfig(cost_limit=COST_LIMIT, least_episodes=9))) == {0, 1, 2}
    table, columns = transition_table(dear, 1.0, COST_LIMIT)
    within_limit = table.split(columns, dim=1)[3][:, 3].numpy()
    assert np.array_equal(within_limit > 0, dear.episode_index < 3)


@pytest.mark.parametrize("algorithm", ["advantage_weighted", "bcq_lagrangian", "td3_bc_lagrangian"])
def test_the_multiplier_is_remembered(algorithm, logs):
    options = {"multiplier_rate": 0.5, "cost_limit": 0.0, "multiplier_floor": 0.5, "multiplier_bound": 1e6}
    agent = agents.build(algorithm, 2, 1, {"hidden": (16, 16), **options})
    agent.prepare(logs)
    torch.nn.init.constant_(agent.cost_critic.layers[-1].bias, 5.0)
    agent.cost_critic.multiplier.fill_(0.5)
    learner = agent.learner(logs, 0, agent.config)
    learner.run(20, silent)
    assert agent.cost_critic.multiplier == pytest.approx(learner.multiplier) and learner.multiplier > 1.0
    assert agent.learner(logs, 0, agent.config).multiplier == pytest.approx(learner.multiplier)


def test_all_that_drives_bcq_can_be_moved_but_its_own_policy_step_spares_the_decoder(logs):
    agent = agents.train("bcq_lagrangian", logs, COST_LIMIT, seed=0, steps=4, hidden=(16, 16))
    agent.actor(*agent.inputs(logs).columns).sum().backward()
    assert all(weight.grad is not None for weight in agent.actor.parameters())
    learner = agent.learner(logs, 0, agent.config)
    learner.update_model = lambda batch: torch.zeros(())
    before = {name: weight.clone() for name, weight in learner.actor.named_parameters()}
    learner.update_policy(learner.draw())
    changed = {name.split(".")[0] for name, w in learner.actor.named_parameters() if not w.equal(before[name])}
    assert changed == {"choice"}
