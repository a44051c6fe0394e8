"""How long a policy takes to answer one observation, beside plain numpy products of the same size.

    rows = measure()          # one dictionary per policy family

Plain: one row through the same weight matrices, as in `o @ W1 @ W2 @ W3`, without bias and nonlinearity; where a policy
looks at several steps, still one row. Times are processor time of this thread, the median of many short runs that
alternate between what is compared, so that a busy machine touches all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from saferule_core import agents
from saferule_core.agents.memory import LONGEST_MEMORY, Memory

OBS_DIM, ACTION_DIM = 8, 2
HIDDEN = (256, 256)
CALLS, RUNS = 100, 61


def alternate(functions: Mapping[str, Callable[[], object]], calls: int = CALLS, runs: int = RUNS) -> dict[str, float]:
    """Return the median processor time of a call of each function [s]."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            begun = time.thread_time()
            for _ in range(calls):
                function()
            seconds[name].append((time.thread_time() - begun) / calls)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def plain_product(actor: nn.Module, observation: np.ndarray) -> Callable[[], np.ndarray]:
    """Return the products of one row with every weight matrix of `actor`, in their order, each with its own size."""
    matrices = [part.weight.detach().numpy().T.copy() for part in actor.modules() if isinstance(part, nn.Linear)]
    rows = [np.ascontiguousarray(np.resize(observation, (1, len(matrix)))) for matrix in matrices]

    def multiply() -> None:
        for row, matrix in zip(rows, matrices, strict=True):
            row @ matrix

    return multiply


def measure() -> list[dict[str, object]]:
    """Return per family: time of the plain products, of the network in torch, and of the policy as it drives [s]."""
    torch.set_num_threads(1)
    observation = np.random.default_rng(0).normal(size=(1, OBS_DIM)).astype(np.float32)
    rows = []
    for family in agents.algorithms():
        options = {} if family == "decision_transformer" else {"hidden": HIDDEN}
        torch.manual_seed(0)
        network = agents.build(family, OBS_DIM, ACTION_DIM, options)
        driving = network.clone()
        driving.freeze()
        memory = Memory(LONGEST_MEMORY, OBS_DIM, ACTION_DIM)
        found = alternate({
            "plain": plain_product(network.actor, observation),
            "network": lambda agent=network, memory=memory: agent.act(observation, memory),
            "driving": lambda agent=driving, memory=memory: agent.act(observation, memory),
        })  # fmt: skip
        rows.append({
            "policy": family, **{f"{name}_us": round(1e6 * value, 1) for name, value in found.items()},
            "network_to_plain": round(found["network"] / found["plain"], 2),
            "driving_to_plain": round(found["driving"] / found["plain"], 2),
        })  # fmt: skip
    return rows
