"""The learned model trains only as long as it gains by it, what jumps stands still, and the audit has its way."""

import numpy as np
import pytest
import torch
from point_mass import COST_LIMIT, poisoned_logs, relabel

from saferule_core import agents
from saferule_core.data.transitions import Transitions
from saferule_core.errors import UnlearningError
from saferule_core.progress import silent
from saferule_core.unlearning import UnlearningProblem, world
from saferule_core.unlearning.audit import Auditor, Verdict
from saferule_core.unlearning.evidence import gather
from saferule_core.unlearning.options import SafeRuleOptions
from saferule_core.unlearning.safe_rule import Repair
from saferule_core.unlearning.world import PROBE_STEPS, fit_world, jumping

STEPS = 120


def logs_of(change, count=3000, noise=0.0):
    """Return logs of a robot with two features and one action, each episode 100 steps; `change` moves it."""
    random = np.random.default_rng(0)
    observations = random.uniform(-1, 1, (count, 2)).astype(np.float32)
    actions = random.uniform(-1, 1, (count, 1)).astype(np.float32)
    moved = change(observations, actions) + noise * random.normal(size=observations.shape)
    ends = (np.arange(1, count + 1) % 100 == 0) | (np.arange(count) == count - 1)
    blank = np.zeros(count, dtype=np.float32)
    return Transitions(
        observations, actions, blank, blank, (observations + moved).astype(np.float32), np.zeros_like(ends), ends
    )


def steps_of(data):
    """Return the last step that a fit reported, None if there was none, and the model."""
    heard = []
    torch.manual_seed(0)
    fitted = fit_world(data, STEPS, 0, lambda _phase, _share, message="", **_: heard.append(int(message.split()[1])))
    return (heard[-1] if heard else None), fitted


def pushed(observations, actions):
    return 0.1 * observations + 0.1 * actions


def bent(observations, actions):
    return 0.2 * np.abs(observations + actions)


@pytest.mark.parametrize(
    ("change", "noise", "least", "most"),
    [(pushed, 0.0, None, None), (pushed, 0.3, 0, PROBE_STEPS), (bent, 0.0, STEPS - 20, STEPS)],
    ids=["linear", "noise", "bent"],
)
def test_a_fit_ends_when_it_has_no_more_to_gain(change, noise, least, most):
    last, _ = steps_of(logs_of(change, noise=noise))
    assert last is None if least is None else least <= last < most


def test_a_model_knows_how_steps_are_pushed_about_where_noise_is_left():
    assert not len(steps_of(logs_of(pushed))[1].noise)
    noise = steps_of(logs_of(pushed, noise=0.3))[1].noise
    assert noise.shape == (600, 2)
    np.testing.assert_allclose(noise.std(0), 0.3 * world.NOISE_SHARE, rtol=0.1)


def test_where_noise_is_left_a_stronger_penalty_keeps_the_model_nearer_to_what_is_behind_it(monkeypatch):
    random, data = np.random.default_rng(1), logs_of(pushed, 600, noise=0.3)
    observations = random.uniform(-1.5, 1.5, (500, 2)).astype(np.float32)
    actions = random.uniform(-1, 1, (500, 1)).astype(np.float32)

    def error():
        following, _ = steps_of(data)[1](torch.from_numpy(observations), torch.from_numpy(actions))
        return float(np.square(following.detach().numpy() - observations - pushed(observations, actions)).mean())

    chosen = error()
    monkeypatch.setattr(world, "NOISE_PENALTY", world.PENALTY)
    assert chosen < 0.7 * error()


def test_steps_that_a_fit_is_judged_on_are_none_that_it_learns_from(monkeypatch):
    learned, judged = [], []
    monkeypatch.setattr(world, "solve_last_layer", lambda _, table, *rest: learned.append(table))
    monkeypatch.setattr(world, "held_out_error", lambda _, table, *rest: judged.append(table) or 1.0)
    steps_of(logs_of(bent))
    rows = [{tuple(row) for table in tables for row in table.tolist()} for tables in (learned, judged)]
    assert len(rows[0]) > 2000 and len(rows[1]) == 600
    assert not rows[0] & rows[1]


def test_logs_in_which_something_jumps_at_every_step_are_refused():
    flags = ((np.arange(401)[:, None] + np.arange(20)) // 20 % 2).astype(np.float32)
    blank, ends = np.zeros(400, dtype=np.float32), np.arange(1, 401) % 100 == 0
    logs = Transitions(flags[:-1], blank[:, None], blank, blank, flags[1:], np.zeros_like(ends), ends)
    with pytest.raises(UnlearningError, match="expected at least 5 steps in which nothing jumps, .* found 0 of 400"):
        steps_of(logs)


@pytest.mark.parametrize("count", [6, 60, 3000])
def test_a_model_of_little_data_is_finite(count):
    data = logs_of(pushed, count)
    _, model = steps_of(data)
    following, rewards = model(torch.from_numpy(data.observations), torch.from_numpy(data.actions))
    assert torch.isfinite(following).all() and torch.isfinite(rewards).all()


def test_of_several_candidates_one_is_chosen_that_the_audit_allows():
    retain, forget = poisoned_logs()
    agent = agents.train("return_conditioned", Transitions.concatenate([retain, forget]), COST_LIMIT, 0, steps=300)
    problem = UnlearningProblem(agent, retain, forget, COST_LIMIT, 0, relabel)
    repair = Repair(problem, gather(problem), SafeRuleOptions(), silent)
    least = repair.multiplier

    def chosen(costs, rewards):
        repair.multiplier = least
        limits = COST_LIMIT / 10.0
        verdicts = [Verdict(limits * cost, reward) for cost, reward in zip(costs, rewards, strict=True)]
        repair.auditor.judge = lambda policies: verdicts
        found = repair.choose([agent.clone().actor for _ in costs])
        return found.verdict.reward, found.multiplier > least

    assert chosen((0.0, 0.0, 0.0), (9.0, 8.0, 5.0)) == (9.0, False)
    assert chosen((30.0, 2.0, 0.0), (9.0, 8.0, 5.0)) == (8.0, False)
    assert chosen((5.0, 2.0, 0.0), (9.0, 8.0, 5.0)) == (8.0, True)
    assert chosen((30.0, 20.0, 15.0), (9.0, 8.0, 5.0)) == (5.0, True)


def leg_logs(legs=150, steps=20):
    """Return logs of a robot that goes to a goal on either side of zero; after `steps` the goal jumps to the other."""
    random = np.random.default_rng(0)
    goals = np.repeat(np.where(np.arange(legs) % 2, 1.0, -1.0) * random.uniform(0.5, 1.0, legs), steps)
    places = np.zeros(len(goals) + 1)
    for step, goal in enumerate(goals):
        places[step + 1] = places[step] + 0.2 * (goal - places[step]) + 0.01 * random.normal()
    following = np.append(goals[1:], goals[-1])
    observations = np.stack([places[:-1], goals], 1).astype(np.float32)
    next_observations = np.stack([places[1:], following], 1).astype(np.float32)
    ends = np.arange(1, len(goals) + 1) % 300 == 0
    blank = np.zeros(len(goals), dtype=np.float32)
    actions = np.diff(places)[:, None].astype(np.float32)
    return Transitions(observations, actions, blank, blank, next_observations, np.zeros_like(ends), ends)


def test_what_jumps_stands_still_in_the_model_and_nothing_is_counted_after_its_jump():
    logs = leg_logs()
    _, world = steps_of(logs)
    assert world.moves.tolist() == [1.0, 0.0]
    states, actions = torch.from_numpy(logs.observations[:500]), torch.from_numpy(logs.actions[:500])
    following = world(states, actions)[0].detach()
    assert (following[:, 1] == states[:, 1]).all()
    np.testing.assert_allclose(following[:, 0], logs.next_observations[:500, 0], atol=1e-3)
    rows = np.array([0, 13, 19, 20, 45, 119])
    auditor = Auditor(world, logs, rows, lambda before, _actions, _after: np.zeros(len(before)), seed=0)
    counted = auditor.counted[:, len(rows) :]
    last = np.array([np.flatnonzero(column)[-1] for column in counted.T])
    assert (auditor.rows[len(rows) :] + last < auditor.jumps_after(auditor.rows[len(rows) :])).all()
    assert auditor.jumps_after(rows).tolist() == [20, 20, 20, 40, 60, 120]


def test_what_changes_step_by_step_is_not_taken_to_stand_still():
    changed = torch.zeros(1000, 4, dtype=torch.bool)
    changed[::50, 0] = True
    changed[400:450, 1] = True
    changed[::2, 2] = True
    assert jumping(changed).tolist() == [True, False, False, False]
