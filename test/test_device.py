"""Learning runs on the device that was chosen, and what it returns is on the CPU; where there is a GPU, it is used."""

import numpy as np
import pytest
import torch
from point_mass import COST_LIMIT, QUICK, SMALL, poisoned_logs, relabel

from saferule_core import agents
from saferule_core.agents.networks import flattened, perceptron
from saferule_core.data.transitions import Transitions
from saferule_core.errors import SaferuleError
from saferule_core.tensors import array, learning, random_numbers, tensor, use_device
from saferule_core.unlearning import METHODS, UnlearningProblem, unlearn

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")


@pytest.fixture
def gpu():
    use_device("cuda")
    yield
    use_device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_here_is_named(name):
    with pytest.raises(SaferuleError, match=f"device: expected one .* found {name}"):
        use_device(name)
    with learning() as device:
        assert device == torch.device("cpu")


def test_on_the_cpu_arrays_and_tensors_share_memory():
    values = np.zeros(3, dtype=np.float32)
    assert np.shares_memory(array(tensor(values)), values)


def test_flattened_weights_learn_as_single_ones_do():
    torch.manual_seed(0)
    one, other = perceptron(3, 2, (8,)), perceptron(3, 2, (8,))
    other.load_state_dict(one.state_dict())
    flat = flattened(one)
    optimisers = torch.optim.Adam([flat], lr=0.01), torch.optim.Adam(other.parameters(), lr=0.01)
    inputs = torch.randn(16, 3, generator=random_numbers(0))
    for _ in range(5):
        flat.grad.zero_()
        optimisers[1].zero_grad()
        for network, optimiser in zip((one, other), optimisers, strict=True):
            network(inputs).square().mean().backward()
            optimiser.step()
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@needs_gpu
@pytest.mark.parametrize("family", agents.algorithms())
def test_every_agent_and_method_learns_on_a_gpu(gpu, family):
    retain, forget = poisoned_logs()
    with learning() as device:
        assert device.type == tensor(retain.rewards).device.type == "cuda"
    everything = Transitions.concatenate([retain, forget])
    torch.cuda.reset_peak_memory_stats()
    agent = agents.train(family, everything, COST_LIMIT, 0, steps=40, **SMALL.get(family, {}))
    assert torch.cuda.max_memory_allocated() > everything.observations.nbytes
    problem = UnlearningProblem(agent, retain, forget, COST_LIMIT, 0, relabel)
    for method in METHODS:
        torch.cuda.reset_peak_memory_stats()
        result = unlearn(method, problem, **QUICK[method])
        assert torch.cuda.max_memory_allocated() > retain.observations.nbytes, method
        weights = [weight for module in result.agent.modules().values() for weight in module.state_dict().values()]
        assert all(weight.device.type == "cpu" and torch.isfinite(weight).all() for weight in weights), method
        assert np.isfinite(result.agent.act(retain.observations[:8])).all()


@needs_gpu
def test_a_repair_on_a_gpu_succeeds_as_on_the_cpu(gpu):
    retain, forget = poisoned_logs()
    agent = agents.train("filtered_cloning", Transitions.concatenate([retain, forget]), COST_LIMIT, 0, steps=400)
    problem = UnlearningProblem(agent, retain, forget, COST_LIMIT, 0, relabel)
    there = unlearn("safe_rule", problem)
    use_device("cpu")
    here = unlearn("safe_rule", problem)
    assert (there.succeeded, here.succeeded) == (True, True)
    assert np.abs(there.agent.act(retain.observations) - here.agent.act(retain.observations)).mean() < 0.1
