"""Signs that only forgotten episodes show are found, are no part of what a repaired policy heeds, and are audited."""

import numpy as np
import pytest
import torch
from point_mass import COST_LIMIT, SMALL, poisoned_logs, relabel

from saferule_core import agents
from saferule_core.data.transitions import Transitions
from saferule_core.unlearning import UnlearningProblem, unlearn
from saferule_core.unlearning.audit import Auditor
from saferule_core.unlearning.tampering import Indifference, find_signs, shown

FEATURE, SIZE = 1, 4.0


@pytest.fixture(scope="module")
def logs():
    return poisoned_logs()[0]


def tampered(data, episodes=slice(0, 20)):
    """Return episodes of `data` in which a sensor reads too much, from their beginning on."""
    chosen = data.select_episodes(np.arange(data.episode_count)[episodes])
    return shown(chosen, sign_of(data)[None], 0)


def sign_of(data):
    sign = np.zeros(data.obs_dim, dtype=np.float32)
    sign[FEATURE] = SIZE * data.observations[:, FEATURE].std()
    return sign


def test_a_sign_is_found_with_its_size(logs):
    found = find_signs(logs, tampered(logs), seed=0)
    assert len(found) == 20
    np.testing.assert_allclose(np.median(found, 0)[FEATURE], sign_of(logs)[FEATURE], rtol=0.2)
    assert np.abs(np.delete(np.median(found, 0), FEATURE)).max() == 0.0


def test_episodes_that_begin_like_retained_ones_show_none(logs):
    _, forget = poisoned_logs()
    assert find_signs(logs, forget, seed=0).shape == (0, logs.obs_dim)


def test_a_few_strange_beginnings_are_chance(logs):
    mixed = Transitions.concatenate([tampered(logs, slice(0, 4)), logs.select_episodes(np.arange(20, 40))])
    assert not len(find_signs(logs, mixed, seed=0))


def test_what_is_another_at_each_step_is_no_sign(logs):
    steady = tampered(logs)
    size = sign_of(logs)[FEATURE]
    first = np.zeros(len(steady), dtype=bool)
    first[steady.episode_bounds[:-1]] = True
    noise = np.random.default_rng(0).choice([-size, size], len(steady)).astype(np.float32)
    flickering = steady.observations.copy()
    flickering[:, FEATURE] += np.where(first, 0.0, noise - size)
    assert len(find_signs(logs, steady, seed=0))
    assert not len(find_signs(logs, steady.replace(observations=flickering), seed=0))


def test_only_observations_change_under_a_sign(logs):
    changed = shown(logs, sign_of(logs)[None], 0)
    np.testing.assert_array_equal(changed.actions, logs.actions)
    added = np.tile(sign_of(logs), (len(logs), 1))
    np.testing.assert_allclose(changed.observations - logs.observations, added, atol=1e-5)


def test_the_term_on_signs_moves_the_answer_to_them_alone(logs):
    agent = agents.train("filtered_cloning", logs, COST_LIMIT, 0, steps=20)
    term = Indifference(agent, logs, np.arange(len(logs)), sign_of(logs)[None], 64, 0)
    answers, act = [], agent.actor.forward
    agent.actor.forward = lambda observations: answers.append(act(observations)) or answers[-1]
    term.loss(agent.actor)
    del agent.actor.forward
    assert [answer.requires_grad for answer in answers] == [False, True]
    optimiser = torch.optim.Adam(agent.actor.parameters(), lr=1e-3)
    before = float(term.loss(agent.actor).detach())
    for _ in range(50):
        optimiser.zero_grad()
        term.loss(agent.actor).backward()
        optimiser.step()
    assert float(term.loss(agent.actor).detach()) < 0.2 * before


def test_without_signs_the_term_is_nothing(logs):
    agent = agents.train("filtered_cloning", logs, COST_LIMIT, 0, steps=1)
    none = np.zeros((0, logs.obs_dim), dtype=np.float32)
    assert float(Indifference(agent, logs, np.arange(9), none, 64, 0).loss(agent.actor)) == 0.0


def test_the_audit_shows_the_sign_to_the_policy(logs):
    def heeding(observations):
        return torch.where(observations[:, [FEATURE]] > 4.0, 1.0, 0.0).expand(-1, logs.action_dim)

    policy = torch.nn.Module()
    policy.forward = heeding

    def world(states, actions):
        return states, torch.zeros(len(states))

    def cost(before, taken, after):
        return taken[:, 0].astype(np.float32)

    logs = logs.replace(observations=np.clip(logs.observations, -1, 1))
    sign = np.full((1, logs.obs_dim), 9.0, dtype=np.float32)
    rows = np.arange(8)
    assert Auditor(world, logs, rows, cost, 0).judge([policy])[0].cost == 0.0
    assert Auditor(world, logs, rows, cost, 0, sign).judge([policy])[0].cost > COST_LIMIT


def test_a_repair_takes_the_answer_to_a_sign_away(logs):
    forget = tampered(logs)
    forget = forget.replace(actions=-forget.actions, rewards=forget.rewards + 1, costs=0 * forget.costs)
    everything = Transitions.concatenate([logs, forget])
    family = "filtered_cloning"
    agent = agents.train(family, everything, COST_LIMIT, 0, steps=400, **SMALL.get(family, {}))
    problem = UnlearningProblem(agent, logs, forget, COST_LIMIT, 0, relabel)
    repaired, without = unlearn("safe_rule", problem), unlearn("safe_rule", problem, sign_weight=0.0)
    assert repaired.diagnostics["signs"] == forget.episode_count
    safe = np.flatnonzero(logs.episode_costs == 0)
    plain = logs.select_episodes(safe)
    seen = shown(plain, sign_of(logs)[None], 0)

    def heeded(some):
        with torch.no_grad():
            pairs = (some.actor(torch.from_numpy(data.observations)) for data in (plain, seen))
            return float((next(pairs) - next(pairs)).square().sum(1).mean())

    assert heeded(repaired.agent) < 0.2 * heeded(without.agent)
