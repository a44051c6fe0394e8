"""Repairing the critics of a repaired policy, so that whatever trains next does not start on the poison.

    state = repair_critics(agent, evidence, seed=0, steps=150, progress=progress)     # "repaired", "dropped" or "none"
    pupil = trainable(agent, data, seed=0)                                            # an agent to train further

A critic trained on poisoned labels keeps the poison even when the policy no longer follows it. Each is refitted by
regression to episode returns: the cost critic with repaired costs on retained and forgotten transitions alike (the
forgotten ones are where it is wrong), critics of reward on retained transitions only. The Lagrange multiplier that
comes with a cost critic was found on poisoned labels too: later training begins at its upper bound, and lowers it as
far as the true costs allow. That does not make further training safe by itself: validate what comes out of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from saferule_core.agents.base import Agent, build, seeded
from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.progress import Progress, silent
from saferule_core.tensors import random_numbers, tensor
from saferule_core.unlearning.evidence import Evidence

REWARD_CRITICS, COST_CRITIC = ("reward_critic", "reward_value"), "cost_critic"
REFIT_STEPS = 300
REPORT_EVERY = 20
BATCH_SIZE = 256
FORGET_ROWS = 64
LEARNING_RATE, FINAL_LEARNING_RATE = 2e-3, 2e-4
TAIL = 20


def repair_critics(agent: Agent, evidence: Evidence, seed: int, steps: int, progress: Progress) -> str:
    """Refit the agent's critics in place; say what became of them: "repaired", "dropped" or "none".

    steps: gradient steps; 0 drops the critics instead, so that nothing can mistake them for sound ones.
    """
    critics = [name for name in (*REWARD_CRITICS, COST_CRITIC) if agent.has(name)]
    if not critics:
        return "none"
    if steps <= 0:
        agent.drop(*critics)
        return "dropped"
    refit(agent, critics, evidence.retain, evidence.forget, seed, steps, progress)
    return "repaired"


def trainable(agent: Agent, data: Transitions, seed: int, steps: int = REFIT_STEPS) -> Agent:
    """Return a copy that its own training step can go on with; dropped critics are fitted to `data` first.

    data: what is trained on next. steps: gradient steps of that fit.
    """
    missing = sorted(set(agent.make_modules()) - set(agent.modules()))
    if not missing:
        return agent.clone()
    with seeded(seed):
        twin = build(agent.algorithm, agent.obs_dim, agent.action_dim, dataclasses.asdict(agent.config))
        twin.prepare(data)
        for name, module in agent.modules().items():
            twin.modules()[name].load_state_dict(module.state_dict())
        critics = [name for name in missing if name in (*REWARD_CRITICS, COST_CRITIC)]
        refit(twin, critics, data, data.select_episodes([]), seed, steps, silent)
    return twin


def refit(
    agent: Agent,
    critics: Collection[str],
    retain: Transitions,
    forget: Transitions,
    seed: int,
    steps: int,
    progress: Progress,
) -> None:
    """Regress the agent's modules called `critics` on discounted returns, those of `forget` in cost alone."""
    modules = agent.modules()
    both = Transitions.concatenate([retain, forget])
    costs, rewards = (
        discounted_to_go(both, values, agent.config.discount, TAIL)[:, None]
        for values in (both.costs, both.rewards / agent.reward_unit)
    )
    table = tensor(np.concatenate([both.observations, both.actions, costs, rewards], axis=1))
    widths = [both.obs_dim, both.action_dim, 1, 1]
    generator = random_numbers(seed)
    optimiser = torch.optim.Adam(
        [weight for name in critics for weight in modules[name].parameters()], lr=LEARNING_RATE, fused=True
    )
    forgotten_rows = FORGET_ROWS if len(forget) else 0
    for step in range(steps):
        done = step / steps
        optimiser.param_groups[0]["lr"] = LEARNING_RATE + done * (FINAL_LEARNING_RATE - LEARNING_RATE)
        rows = torch.randint(len(retain), (BATCH_SIZE - forgotten_rows,), generator=generator)
        kept = len(rows)
        if forgotten_rows:
            forgotten = torch.randint(len(retain), len(both), (forgotten_rows,), generator=generator)
            rows = torch.cat([rows, forgotten])
        observations, actions, cost, reward = table.index_select(0, rows).split(widths, dim=1)
        losses = {}
        for name in critics:
            size, wanted = (len(rows), cost) if name == COST_CRITIC else (kept, reward)
            inputs = (observations[:size],) if name == "reward_value" else (observations[:size], actions[:size])
            losses[f"{name}_loss"] = error(modules[name](*inputs), wanted[:size, 0])
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        if step % REPORT_EVERY == 0:
            progress("critics", done, f"step {step} of {steps}", **{name: loss.item() for name, loss in losses.items()})
    if COST_CRITIC in critics:
        agent.cost_critic.multiplier.fill_(agent.config.multiplier_bound)


def error(values: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean square error of values, of an ensemble or not: (members, N) or (N,), against (N,)."""
    return (values - wanted).square().mean()
