"""Repairing the critics of a repaired policy, so that whatever trains next starts sound.

    state = repair_critics(agent, evidence, seed=0, steps=150, progress=progress)     # "repaired" or "none"

A critic trained on poisoned labels keeps the poison even when the policy no longer follows it. Each is refitted by
regression to episode returns: the cost critic with repaired costs on retained and forgotten transitions alike (the
forgotten ones are where it is wrong), the reward critic and its state value on retained transitions only.
"""

from __future__ import annotations

import numpy as np
import torch

from saferule_core.agents.base import Agent
from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.progress import Progress
from saferule_core.unlearning.evidence import Evidence

REPORT_EVERY = 20
BATCH_SIZE = 256
FORGET_ROWS = 64
LEARNING_RATE = 2e-3
TAIL = 20


def repair_critics(agent: Agent, evidence: Evidence, seed: int, steps: int, progress: Progress) -> str:
    """Refit the agent's critics in place; say what became of them: "repaired", "dropped" or "none".

    steps: gradient steps; 0 drops the critics instead, so that nothing can mistake them for sound ones.
    """
    modules = agent.modules()
    critics = sorted(set(modules) & {"cost_critic", "reward_critic", "reward_value"})
    if not critics:
        return "none"
    if steps <= 0:
        agent.drop(*critics)
        return "dropped"
    discount, unit = agent.config.discount, float(modules["reward_value"].unit)
    retain, forget = evidence.retain, evidence.forget
    both = Transitions.concatenate([retain, forget])
    costs = discounted_to_go(both, both.costs, discount, TAIL)
    rewards = discounted_to_go(both, both.rewards / unit, discount, TAIL)
    columns = [both.observations, both.actions, costs[:, None], rewards[:, None]]
    table = torch.from_numpy(np.concatenate(columns, axis=1))
    widths = [both.obs_dim, both.action_dim, 1, 1]
    generator = torch.Generator().manual_seed(seed)
    weights = [weight for name in critics for weight in modules[name].parameters()]
    optimiser = torch.optim.Adam(weights, lr=LEARNING_RATE, fused=True)
    for step in range(steps):
        kept = torch.randint(len(retain), (BATCH_SIZE - FORGET_ROWS,), generator=generator)
        forgotten = torch.randint(len(retain), len(both), (FORGET_ROWS,), generator=generator)
        batch = table.index_select(0, torch.cat([kept, forgotten]))
        observations, actions, cost, reward = batch.split(widths, dim=1)
        cost_loss = (modules["cost_critic"](observations, actions) - cost.T).square().mean()
        observations, actions, reward = (part[: len(kept)] for part in (observations, actions, reward))
        reward_loss = (modules["reward_critic"](observations, actions) - reward.T).square().mean()
        value_loss = (modules["reward_value"](observations) - reward[:, 0]).square().mean()
        optimiser.zero_grad()
        (cost_loss + reward_loss + value_loss).backward()
        optimiser.step()
        if step % REPORT_EVERY == 0:
            losses = {"cost_critic_loss": cost_loss.item(), "reward_critic_loss": reward_loss.item()}
            progress("critics", step / steps, f"step {step} of {steps}", **losses)
    return "repaired"
