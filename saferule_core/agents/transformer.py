"""A causal transformer as a policy: one token per step, from the oldest remembered one to the present.

    actor = CausalActor(obs_dim=8, action_dim=2, steps=9, width=64, heads=4, hidden=(128, 128))
    actions = actor(observations, actions, present, contexts)       # (B, action_dim), of the present step
    actions = actor.trace(observations, actions, present, contexts) # (B, steps + 1, action_dim), of every step

A token holds what is known when its action is chosen: observation, the action before, and the return and cost to
expect. Without contexts the buffer `target` (2,) stands for those of every step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saferule_core.agents.causal_row import Window, causal_row
from saferule_core.agents.networks import Normaliser


class CausalActor(nn.Module):
    """Deterministic policy over a window, as `saferule_core.agents.memory` describes it; actions in [-1, 1]."""

    def __init__(
        self, obs_dim: int, action_dim: int, steps: int, width: int, heads: int, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        self.memory_steps, self.action_dim = steps, action_dim
        self.normaliser = Normaliser(obs_dim)
        self.context_normaliser = Normaliser(2)
        self.embedding = nn.Linear(obs_dim + action_dim + 2, width)
        self.position = nn.Parameter(0.02 * torch.randn(steps + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, size) for size in hidden)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, action_dim)
        self.register_buffer("target", torch.zeros(2))
        self.register_buffer("causal", torch.ones(steps + 1, steps + 1, dtype=torch.bool).tril(), persistent=False)

    def forward(self, observations: Tensor, actions: Tensor, present: Tensor, contexts: Tensor | None = None) -> Tensor:
        """Return the actions of the present step (B, action_dim); the last block looks at nothing else."""
        tokens, visible = self.tokens(observations, actions, present, contexts)
        for block in self.blocks[:-1]:
            tokens = block(tokens, tokens, visible)
        tokens = self.blocks[-1](tokens[:, -1:], tokens, visible[:, :, -1:])
        return self.actions(tokens[:, 0])

    def trace(self, observations: Tensor, actions: Tensor, present: Tensor, contexts: Tensor) -> Tensor:
        """Return the actions of all steps of the windows (B, steps + 1, action_dim), each from what came before it."""
        tokens, visible = self.tokens(observations, actions, present, contexts)
        for block in self.blocks:
            tokens = block(tokens, tokens, visible)
        return self.actions(tokens)

    def tokens(
        self, observations: Tensor, actions: Tensor, present: Tensor, contexts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens (B, steps + 1, width) and which of them each may look at (B, 1, steps + 1, steps + 1)."""
        if contexts is None:
            contexts = self.target[..., None, :].expand(*observations.shape[:2], 2)
        before = nn.functional.pad(actions * present[:, :-1, None], (0, 0, 1, 0))
        parts = [self.normaliser(observations), before, self.context_normaliser(contexts)]
        itself = torch.eye(present.shape[1], dtype=torch.bool)  # a step of another episode has to look at something
        visible = self.causal & (present[:, None, :] | itself)
        return self.embedding(torch.cat(parts, dim=2)) + self.position, visible[:, None]

    def actions(self, tokens: Tensor) -> Tensor:
        """Return the actions that tokens (..., width) stand for."""
        return torch.tanh(self.head(self.norm(tokens)))

    def single_row(self) -> Window:
        """Return the present policy, with its target, as a function of one robot's window; see `causal_row`."""
        return causal_row(self)


class Block(nn.Module):
    """Attention and a feed-forward network, both residual, with normalisation before each."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.mix = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor, context: Tensor, visible: Tensor) -> Tensor:
        """Return `tokens` (B, Q, width) after a look at `context` (B, K, width), as far as `visible` (B, 1, Q, K)."""
        context = self.norm(context)
        asking = context if context.shape[1] == tokens.shape[1] else context[:, -tokens.shape[1] :]
        keys, values = self.split(self.key_value(context)).chunk(2, dim=3)
        looked = nn.functional.scaled_dot_product_attention(self.split(self.query(asking)), keys, values, visible)
        tokens = tokens + self.mix(looked.transpose(1, 2).flatten(2))
        return tokens + self.feed(self.feed_norm(tokens))

    def split(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, K, heads * size) as (B, heads, K, size)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)
