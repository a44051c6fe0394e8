"""The causal transformer for one robot, by numpy alone; see `single_row` for why.

    act = causal_row(actor)                       # a copy of the weights as they are now
    action = act(observations, actions, present)  # (steps + 1, obs_dim), (steps, action_dim), (steps + 1,) bool

The same as `transformer.CausalActor.forward` with its buffer `target` as context, for a batch of one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from saferule_core.agents.single_row import Row, array, layer, normaliser_row, perceptron_row

Window = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def causal_row(actor: nn.Module) -> Window:
    """Return the present policy of a CausalActor as a function of one window."""
    normalise = normaliser_row(actor.normaliser)
    context = normaliser_row(actor.context_normaliser)(array(actor.target))
    weight, bias = layer(actor.embedding)
    position, causal = array(actor.position) + bias, actor.causal.numpy().copy()
    blocks = [_block_row(block) for block in actor.blocks]
    norm, (head_weight, head_bias) = _layer_norm(actor.norm), layer(actor.head)
    steps, obs_dim, before_end = actor.memory_steps + 1, len(array(actor.normaliser.mean)), -len(context)
    itself = np.eye(steps, dtype=bool)

    def act(observations: np.ndarray, actions: np.ndarray, present: np.ndarray) -> np.ndarray:
        inputs = np.zeros((steps, len(weight)), dtype=np.float32)
        inputs[:, :obs_dim] = normalise(observations)
        inputs[1:, obs_dim:before_end] = np.where(present[:-1, None], actions, np.float32(0.0))
        inputs[:, before_end:] = context
        tokens = inputs @ weight + position
        hidden = np.where(causal & (present | itself), np.float32(0.0), np.float32(-np.inf))
        for block in blocks[:-1]:
            tokens = block(tokens, tokens, hidden)
        last = blocks[-1](tokens[-1:], tokens, hidden[-1:])
        return np.tanh(norm(last)[0].dot(head_weight) + head_bias)

    return act


def _block_row(block: nn.Module) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Return a `transformer.Block`: tokens (Q, width), all tokens (K, width), 0 or -inf where hidden (Q, K)."""
    norm, feed_norm, feed = _layer_norm(block.norm), _layer_norm(block.feed_norm), perceptron_row(block.feed)
    (ask_weight, ask_bias), (mix_weight, mix_bias) = layer(block.query), layer(block.mix)
    key_weight, key_bias = layer(block.key_value)
    heads, width = block.heads, len(ask_weight)
    scale = np.float32((width // heads) ** -0.5)

    def split(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), heads, -1).transpose(1, 0, 2)

    def run(tokens: np.ndarray, every: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        seen = norm(every)
        keys_values = seen @ key_weight + key_bias
        # `split` of torch's block divides the double width by heads first: each head has its keys, then its values.
        both = split(keys_values)
        keys, values = both[..., : width // heads], both[..., width // heads :]
        asked = split(seen[len(seen) - len(tokens) :] @ ask_weight + ask_bias)
        scores = asked @ keys.transpose(0, 2, 1)
        scores *= scale
        scores += hidden
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        looked = (scores @ values).transpose(1, 0, 2).reshape(len(tokens), width)
        tokens = tokens + (looked @ mix_weight + mix_bias)
        return tokens + feed(feed_norm(tokens))

    return run


def _layer_norm(norm: nn.LayerNorm) -> Row:
    weight, bias, epsilon = array(norm.weight), array(norm.bias), np.float32(norm.eps)
    average = np.full(len(weight), 1.0 / len(weight), dtype=np.float32)

    def run(values: np.ndarray) -> np.ndarray:
        values = values - values.dot(average)[:, None]
        values /= np.sqrt((values * values).dot(average) + epsilon)[:, None]
        values *= weight
        values += bias
        return values

    return run
