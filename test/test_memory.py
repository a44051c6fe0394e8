"""What a policy with a memory looks back at is what really happened, in its own episode, however it is asked."""

import numpy as np
import pytest
import torch
from point_mass import COST_LIMIT, SMALL, drive

from saferule_core import agents
from saferule_core.agents.memory import LONGEST_MEMORY, Memory, elapsed, propose
from saferule_core.data.transitions import Transitions
from saferule_core.errors import SaferuleError
from saferule_core.unlearning.audit import DRAWS, MOST_OFF, SHORTEST, Auditor
from saferule_core.unlearning.contrast import joined, one_later


@pytest.fixture(scope="module")
def logs():
    return drive(np.linspace(0.1, 1.6, 12), seed=1)


@pytest.fixture(scope="module")
def agent(logs):
    return agents.train("decision_transformer", logs, COST_LIMIT, seed=0, steps=40, **SMALL["decision_transformer"])


def proposed(agent, inputs, rows=None):
    with torch.no_grad():
        return agent.actor(*inputs.batch(torch.arange(len(inputs)) if rows is None else torch.tensor(rows))).numpy()


def stepped(agent, data, kept):
    """Return what the policy chooses step by step where the logged actions are applied, with a memory of `kept`."""
    memory, chosen = Memory(kept, data.obs_dim, data.action_dim), []
    for row, before in enumerate(elapsed(data)):
        if before == 0:
            memory.clear()
        chosen.append(agent.act(data.observations[row][None], memory)[0])
        memory.add(data.observations[row][None], data.actions[row][None])
    return np.array(chosen)


@pytest.mark.parametrize("kept", [3, LONGEST_MEMORY])
def test_windows_of_a_log_and_steps_along_it_give_the_same_actions(agent, logs, kept):
    few = logs.select_episodes(range(3))
    np.testing.assert_allclose(
        proposed(agent, agent.inputs(few, deployed=True)), stepped(agent, few, kept), rtol=0.0, atol=1e-6
    )


def test_a_driver_remembers_its_own_actions(agent, logs):
    driver, actions = agent.driver(), []
    driver.reset()
    rows = logs.episodes()[0]
    for observation in logs.observations[rows]:
        actions.append(driver.act(observation[None])[0])
    driven = logs.select_episodes([0]).replace(actions=np.array(actions))
    np.testing.assert_allclose(proposed(agent, agent.inputs(driven, deployed=True)), actions, rtol=0.0, atol=1e-6)


def test_a_driver_of_several_robots_is_as_many_drivers(agent, logs):
    fleet, single = agent.driver(), agent.driver()
    starts = np.stack([logs.observations[:6], logs.observations[40:46]])
    fleet.reset(2)
    single.reset()
    together = [fleet.act(starts[:, step])[1] for step in range(6)]
    alone = [single.act(starts[1:, step])[0] for step in range(6)]
    np.testing.assert_allclose(together, alone, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("algorithm", agents.algorithms())
def test_every_agent_drives_and_a_reset_begins_the_episode_anew(algorithm, logs):
    agent = agents.train(algorithm, logs, COST_LIMIT, seed=0, steps=5, **SMALL.get(algorithm, {}))
    driver = agent.driver()
    driver.reset()
    first = [driver.act(observation[None]) for observation in logs.observations[:5]]
    driver.reset()
    np.testing.assert_array_equal(first, [driver.act(observation[None]) for observation in logs.observations[:5]])
    np.testing.assert_array_equal(first[0], agent.act(logs.observations[:1]))


def test_a_policy_looks_back_in_its_own_episode_only(agent, logs):
    changed = logs.observations.copy()
    changed[39] += 1.0
    before, after = (
        proposed(agent, agent.inputs(data, deployed=True)) for data in (logs, logs.replace(observations=changed))
    )
    np.testing.assert_array_equal(before[40:], after[40:])
    changed = logs.observations.copy()
    changed[40] += 1.0
    after = proposed(agent, agent.inputs(logs.replace(observations=changed), deployed=True))
    differs = np.flatnonzero((before != after).any(1))
    assert differs.tolist() == list(range(40, 40 + agent.config.context))


def test_what_is_chosen_at_a_step_does_not_depend_on_later_ones(agent, logs):
    rows = torch.tensor([0, 2, 30, 85])
    observations, actions, present, contexts = agent.inputs(logs).batch(rows)
    with torch.no_grad():
        traced = agent.actor.trace(observations, actions, present, contexts)
        ends = agent.actor(observations, actions, present, contexts)
        observations[:, -1], actions[:, -1] = 5.0, -1.0
        changed = agent.actor.trace(observations, actions, present, contexts)
    torch.testing.assert_close(traced[:, -1], ends)
    torch.testing.assert_close(traced[:, :-1], changed[:, :-1])
    assert not torch.allclose(traced[:, -1], changed[:, -1])


def test_one_step_later_a_window_holds_what_really_came_before(agent, logs):
    inputs, later = (agent.inputs(data, deployed=True) for data in (logs, one_later(logs)))
    rows = np.flatnonzero(elapsed(logs) >= agent.config.context)
    for now, after in zip(inputs.batch(torch.from_numpy(rows)), later.batch(torch.from_numpy(rows - 1)), strict=True):
        assert torch.equal(now, after)


def test_inputs_of_two_sets_stay_apart_when_they_are_joined(agent, logs):
    parts = [logs.select_episodes(range(4)), logs.select_episodes(range(4, 8))]
    both = joined(agent.inputs(part) for part in parts)
    np.testing.assert_allclose(
        proposed(agent, both), np.concatenate([proposed(agent, agent.inputs(part)) for part in parts]), atol=1e-6
    )


def test_a_memory_of_logged_steps_is_the_one_of_driving_there(logs):
    driven = Memory(4, logs.obs_dim, logs.action_dim)
    for row in range(40, 46):
        driven.add(logs.observations[row][None], logs.actions[row][None])
    logged = Memory.logged(logs, np.array([46, 41]), 4)
    np.testing.assert_array_equal(logged.observations[0], driven.observations[0])
    np.testing.assert_array_equal(logged.actions[0], driven.actions[0])
    assert logged.known.tolist() == [4, 1] and driven.known.tolist() == [4]


class Recorder(torch.nn.Module):
    """An actor with a memory of two steps that writes down what it is told."""

    memory_steps, action_dim = 2, 1

    def __init__(self):
        super().__init__()
        self.told = []

    def forward(self, observations, actions, present):
        self.told.append((observations.numpy().copy(), actions.numpy().copy(), present.numpy().copy()))
        return 0.1 * observations[:, -1, :1]


def test_the_audit_begins_with_the_logged_history_and_goes_on_with_the_modelled_one():
    logs = drive(np.array([0.5, 0.7]), 0, steps=90)
    rows, actor = np.array([0, 1, 57]), Recorder()
    world = lambda observations, actions: (observations + 1.0, torch.zeros(len(observations)))  # noqa: E731
    auditor = Auditor(world, logs, rows, lambda before, taken, after: np.zeros(len(before)), seed=0)
    auditor.judge([actor])
    observations, actions, present = actor.told[0]
    np.testing.assert_array_equal(observations[5], logs.observations[55:58])
    np.testing.assert_array_equal(actions[5], logs.actions[55:57])
    alone = [False, False, True]  # the beginnings, and the first of the rows
    assert present.tolist() == [alone, alone, alone, alone, [False, True, True], [True, True, True]]
    observations, actions, present = actor.told[2]
    np.testing.assert_array_equal(observations[5, 0], logs.observations[57])
    np.testing.assert_allclose(actions[5], 0.1 * observations[5, :2, :1])
    assert present.all() and len(actor.told) == auditor.horizon


@pytest.mark.parametrize("algorithm", ["decision_transformer", "return_conditioned"])
def test_candidates_that_differ_in_what_they_ask_for_are_judged_together_as_one_by_one(logs, algorithm):
    agent = agents.train(algorithm, logs, COST_LIMIT, seed=0, steps=40, **SMALL.get(algorithm, {}))
    candidates = [agent.clone().actor for _ in range(3)]
    for factor, candidate in zip((0.2, 1.0, 3.0), candidates, strict=True):
        candidate.target *= factor
    cost = lambda before, taken, after: np.abs(taken[:, 0])  # noqa: E731
    world = lambda states, actions: (0.9 * states + 0.1 * actions, actions[:, 0])  # noqa: E731
    signs = np.array([[0.3, 0.0], [0.0, -0.5]], dtype=np.float32)
    auditor = Auditor(world, logs, np.array([0, 1, 57]), cost, seed=0, signs=signs)
    found = [(v.cost, v.reward) for v in auditor.judge(candidates)]
    assert len(set(found)) == 3
    alone = [(v.cost, v.reward) for candidate in candidates for v in auditor.judge([candidate])]
    np.testing.assert_allclose(found, alone, rtol=1e-4)
    with torch.no_grad():
        next(candidates[1].parameters()).mul_(2.0)
    changed = auditor.judge(candidates)
    assert (changed[0].cost, changed[2].cost) == pytest.approx((found[0][0], found[2][0]), rel=1e-4)
    assert changed[1].cost != pytest.approx(found[1][0], rel=1e-3)


def exact(states, actions):
    """The point mass of `drive`."""
    speed = states[:, 1:] + 0.2 * actions
    return torch.cat([states[:, :1] + 0.2 * speed, speed], dim=1), states[:, 0]


def test_the_audit_looks_as_far_ahead_as_replayed_logs_stay_true(logs):
    rows, free = np.array([0, 1, 57]), lambda before, taken, after: np.zeros(len(before))

    def wrong(states, actions):
        return states + 1.0, states[:, 0]

    assert Auditor(exact, logs, rows, free, seed=0).horizon == 40  # a whole episode
    long = drive(np.array([0.5, 0.7]), 0, steps=90)
    assert Auditor(wrong, long, rows, free, seed=0).horizon == SHORTEST
    noise = np.zeros((5, logs.obs_dim), dtype=np.float32)
    assert Auditor(wrong, long, rows, free, seed=0, noise=noise).horizon == 90  # no replay stays true there


@pytest.mark.parametrize(("noise", "horizon"), [(0.0, 90), (0.09, 90), (0.5, SHORTEST)])
def test_noise_in_the_log_is_no_fault_of_the_model_up_to_a_point(noise, horizon):
    logs = drive(np.array([0.5, 0.7]), 0, steps=90)
    pushes = [logs.actions[episode, 0] for episode in logs.episodes()]
    places = np.concatenate([np.cumsum(push) - push for push in pushes])
    places = places + noise * places.std() * np.random.default_rng(0).normal(size=places.shape)
    logs = logs.replace(observations=np.stack([places] * logs.obs_dim, axis=1).astype(np.float32))
    auditor = Auditor(
        lambda states, actions: (states + actions, states[:, 0]), logs, np.array([0, 1, 57]),
        lambda before, taken, after: np.zeros(len(before)), seed=0,
    )  # fmt: skip
    assert auditor.horizon == horizon


def test_an_episode_that_is_over_is_not_compared_with(logs):
    mixed = Transitions.concatenate([drive(np.full(6, 0.5), 0, steps=15), drive(np.full(4, 0.5), 1, steps=90)])
    auditor = Auditor(exact, mixed, np.arange(9), lambda before, taken, after: np.zeros(len(before)), seed=0)
    assert auditor.horizon > 80 and auditor.errors.max() < 1e-4


def test_noise_pushes_all_policies_about_alike(logs):
    def costs(noise):
        still = lambda states, actions: (states, states[:, 0])  # noqa: E731
        moved = lambda before, taken, after: np.abs(after - before).sum(1)  # noqa: E731
        auditor = Auditor(still, logs, np.arange(9), moved, seed=0, noise=noise)
        return [verdict.cost for verdict in auditor.judge([Recorder(), Recorder()])]

    quiet, pushed = costs(None), costs(np.array([[0.3, 0.0], [-0.3, 0.0]], dtype=np.float32))
    assert pushed[0] == pytest.approx(pushed[1]) and pushed[0] > quiet[0] + 5.0


def test_a_model_that_runs_away_finds_no_policy_safe(logs):
    def running(states, actions):
        return states * np.nan, states[:, 0]

    auditor = Auditor(running, logs, np.arange(9), lambda before, taken, after: (after[:, 0] > 9.0), seed=0)
    assert auditor.judge([Recorder()])[0].cost == np.inf


def test_costs_are_counted_where_the_robot_may_be_if_the_model_is_off(logs):
    def displaced(world):
        asked = []

        def cost(before, taken, after):
            asked.append(before)
            return np.zeros(len(before))

        auditor = Auditor(world, logs, np.array([0, 1, 57]), cost, seed=0)
        auditor.judge([Recorder()])
        shape = auditor.horizon, len(auditor.rows), logs.obs_dim
        return auditor.errors, np.array(asked).reshape(DRAWS, *shape) - logs.observations[auditor.rows]

    errors, moved = displaced(lambda states, actions: (states, states[:, 0]))  # stands still, the logs go on
    assert (errors[0] == 0.0).all() and 0.0 < errors[1, 0] < errors[-1, 0]
    np.testing.assert_allclose(errors.max(0), MOST_OFF * logs.observations.std(0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(moved[:, 0], 0.0, atol=1e-6)
    luck = moved[:, -1] / errors[-1]
    np.testing.assert_allclose(moved[:, 5], luck * errors[5], rtol=1e-3, atol=1e-5)
    assert 0.5 < np.std(luck) < 1.5


def test_an_actor_without_a_memory_is_told_the_observation_alone(logs):
    agent = agents.train("return_conditioned", logs, COST_LIMIT, seed=0, steps=2)
    seen, memory = logs.observations[57:58], Memory.logged(logs, np.array([57]), 5)
    np.testing.assert_array_equal(propose(agent.actor, seen, memory), agent.act(seen))


@pytest.mark.parametrize(("options", "message"), [
    ({"context": LONGEST_MEMORY + 2}, f"context: expected 1 to {LONGEST_MEMORY + 1} steps, found {LONGEST_MEMORY + 2}"),
    ({"width": 30, "heads": 4}, "width: expected a multiple of 4 heads, found 30"),
])  # fmt: skip
def test_a_shape_that_cannot_be_built_is_refused(options, message):
    with pytest.raises(SaferuleError, match=message):
        agents.build("decision_transformer", 2, 1, options)
