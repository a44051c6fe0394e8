"""The learned model trains only as long as it gains by it, and what is chosen was audited from every start."""

import numpy as np
import pytest
import torch
from point_mass import COST_LIMIT, poisoned_logs, relabel

from saferule_core import agents
from saferule_core.data.transitions import Transitions
from saferule_core.progress import silent
from saferule_core.unlearning import UnlearningProblem
from saferule_core.unlearning.evidence import gather
from saferule_core.unlearning.options import SafeRuleOptions
from saferule_core.unlearning.safe_rule import Repair
from saferule_core.unlearning.world import PROBE_STEPS, fit_world

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
    world = fit_world(data, STEPS, 0, lambda _phase, _share, message="", **_: heard.append(int(message.split()[1])))
    return (heard[-1] if heard else None), world


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


@pytest.mark.parametrize("count", [6, 60, 3000])
def test_a_model_of_little_data_is_finite(count):
    data = logs_of(pushed, count)
    _, world = steps_of(data)
    following, rewards = world(torch.from_numpy(data.observations), torch.from_numpy(data.actions))
    assert torch.isfinite(following).all() and torch.isfinite(rewards).all()


def test_candidates_are_screened_and_the_chosen_one_is_audited_from_every_start():
    retain, forget = poisoned_logs()
    agent = agents.train("return_conditioned", Transitions.concatenate([retain, forget]), COST_LIMIT, 0, steps=300)
    problem = UnlearningProblem(agent, retain, forget, COST_LIMIT, 0, relabel)
    repair = Repair(problem, gather(problem), SafeRuleOptions(), silent)
    judged, judge = [], repair.auditor.judge

    def noted(policies, thin=1):
        judged.append((len(policies), thin))
        return judge(policies, thin)

    repair.auditor.judge = noted
    result = repair.run()
    assert result.succeeded and judged[0][0] == len(SafeRuleOptions().target_quantiles) and judged[0][1] > 1
    assert judged[1] == (1, 1)
    assert repair.best.verdict == judge([repair.best.actor])[0]
