"""One observation in, one action out, by numpy alone: what a control loop asks of a network in every tick.

    act = actor.single_row()                # a copy of the weights as they are now
    action = act(observation)               # (obs_dim,) float32 -> (action_dim,) float32, as actor(...) gives

A small network is a dozen torch operations, and on one row each of them spends far more time on its way to the
arithmetic than in it. numpy's way is shorter. `python -m benchmarks.runtime inference` compares the two.

Bounds and rounding: silu(x) = y + y tanh(y) with y = x / 2, which no input overflows; halving weights is exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

Row = Callable[[np.ndarray], np.ndarray]
"""(inputs,) float32 -> (outputs,) float32"""


def array(values: Tensor) -> np.ndarray:
    """Return a copy of a weight that later training does not touch."""
    return values.detach().numpy().astype(np.float32, order="C", copy=True)


def layer(linear: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (inputs, outputs) and bias (outputs,)."""
    return array(linear.weight.T), array(linear.bias)


def perceptron_row(body: nn.Sequential) -> Row:
    """Return a multi-layer perceptron with SiLU between its layers, as `networks.perceptron` makes it."""
    *hidden, (last_weight, last_bias) = [layer(part) for part in body if isinstance(part, nn.Linear)]
    halved = [(weight * np.float32(0.5), bias * np.float32(0.5)) for weight, bias in hidden]

    def run(values: np.ndarray) -> np.ndarray:
        for weight, bias in halved:
            half = values.dot(weight)
            half += bias
            values = np.tanh(half)
            values *= half
            values += half
        values = values.dot(last_weight)
        values += last_bias
        return values

    return run


def normaliser_row(normaliser: nn.Module) -> Row:
    """Return a `networks.Normaliser`; it is not folded into the weights, where a large mean would cost digits."""
    mean, std = array(normaliser.mean), array(normaliser.std)

    def run(values: np.ndarray) -> np.ndarray:
        values = values - mean
        values /= std
        return values

    return run
