"""A policy that drives answers by numpy alone what its network answers by torch, to float32 rounding."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from saferule_core import agents
from saferule_core.agents.memory import LONGEST_MEMORY, Memory

OBS_DIM, ACTION_DIM = 7, 3
ROUNDING = 4e-6
"""Of actions in [-1, 1]: a few units in the last place of numbers of size 10, which is what the layers add up."""


def make(algorithm):
    """Return an agent with random weights, statistics and target; some features have a mean far from 0."""
    torch.manual_seed(3)
    agent = agents.build(algorithm, OBS_DIM, ACTION_DIM, {})
    actor = agent.actor
    actor.normaliser.mean.copy_(torch.tensor([0.0, 5.0, -300.0, 1.0, 0.0, 0.0, 2.0]))
    actor.normaliser.std.copy_(torch.tensor([1.0, 0.1, 20.0, 1e-3, 2.0, 1.0, 1.0]))
    if hasattr(actor, "target"):
        actor.target.copy_(torch.tensor([1.5, 0.25]))
        actor.context_normaliser.mean.fill_(0.5)
    with torch.no_grad():
        for value in actor.parameters():
            value.mul_(1.4 if algorithm == "decision_transformer" else 2.5)
    return agent


def observations(rows):
    scale = np.array([1.0, 0.1, 20.0, 1e-3, 2.0, 1.0, 1.0])
    offset = np.array([0.0, 5.0, -300.0, 1.0, 0.0, 0.0, 2.0])
    return (offset + scale * np.random.default_rng(1).normal(size=(rows, OBS_DIM))).astype(np.float32)


def drive(agent, seen):
    """Return the actions of two episodes; what is applied is not what is chosen."""
    memory, chosen = Memory(LONGEST_MEMORY, OBS_DIM, ACTION_DIM), []
    applied = np.random.default_rng(2).uniform(-1.0, 1.0, (len(seen), 1, ACTION_DIM)).astype(np.float32)
    for number, row in enumerate(seen):
        if number == len(seen) // 2:
            memory.clear()
        chosen.append(agent.act(row[None], memory))
        memory.add(row[None], applied[number])
    return np.concatenate(chosen)


@pytest.mark.parametrize("algorithm", agents.algorithms())
def test_a_frozen_policy_gives_the_actions_of_its_network(algorithm):
    agent, seen = make(algorithm), observations(80)
    by_torch = drive(agent, seen)
    agent.freeze()
    by_numpy = drive(agent, seen)
    assert by_numpy.dtype == np.float32 and by_numpy.shape == by_torch.shape
    assert np.abs(by_torch).min() < 0.5 < np.abs(by_torch).max() < 1.0, "actions that say something"
    np.testing.assert_allclose(by_numpy, by_torch, rtol=0.0, atol=ROUNDING)


@pytest.mark.parametrize("algorithm", agents.algorithms())
def test_an_enormous_or_broken_observation_ends_as_with_torch(algorithm):
    agent = make(algorithm)
    odd = [np.full((1, OBS_DIM), value, dtype=np.float32) for value in (1e12, -1e12, np.nan, np.inf, -np.inf)]
    by_torch = [agent.act(row) for row in odd]
    agent.freeze()
    with np.errstate(over="raise"):
        finite = [agent.act(row) for row in odd[:2]]
    with np.errstate(invalid="ignore"):
        broken = [agent.act(row) for row in odd[2:]]
    for one, other in zip([*finite, *broken], by_torch, strict=True):
        np.testing.assert_array_equal(np.isfinite(one), np.isfinite(other))


@pytest.mark.parametrize("algorithm", agents.algorithms())
def test_several_rows_at_once_are_still_answered(algorithm):
    agent, seen = make(algorithm), observations(6)
    before = agent.act(seen)
    agent.freeze()
    np.testing.assert_array_equal(agent.act(seen), before)
    np.testing.assert_allclose([agent.act(row[None])[0] for row in seen], before, rtol=0.0, atol=ROUNDING)


def test_a_frozen_policy_is_a_copy_and_its_clone_follows_its_own_weights():
    agent, seen = make("td3_bc_lagrangian"), observations(1)
    agent.freeze()
    before, twin = agent.act(seen), agent.clone()
    for one in (agent, twin):
        with torch.no_grad():
            for value in one.actor.parameters():
                value.zero_()
    np.testing.assert_array_equal(agent.act(seen), before)
    np.testing.assert_array_equal(twin.act(seen), np.zeros((1, ACTION_DIM)))


BUSY = """
import json, time
import numpy as np, torch
from saferule_core.agents.networks import perceptron
from saferule_core.agents.single_row import perceptron_row
from saferule_core.tensors import use_threads

use_threads(1)
act, seen = perceptron_row(perceptron(8, 2, (256, 256))), np.ones(8, np.float32)
act(seen)
begun = time.process_time(), time.thread_time()
for _ in range(100):
    act(seen)
    time.sleep(0.002)
print(json.dumps([time.process_time() - begun[0], time.thread_time() - begun[1]]))
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has no threads to hand anything to")
def test_no_thread_of_numpy_waits_for_the_next_tick_by_spinning():
    alone = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    told = subprocess.check_output([sys.executable, "-c", BUSY], env=alone, text=True, timeout=120)
    of_process, of_loop = json.loads(told)
    assert of_process < 1.5 * of_loop
