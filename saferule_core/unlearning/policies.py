"""How each family of policies takes a repair step: one protocol, two implementations.

    repairer = repairer_of(agent, evidence, signs, options, seed)
    rows = repairer.habitat(48, random)                   # logged states where the repaired policy is meant to live
    repairer.start_stage(beta, multiplier, steps); losses = repairer.step(); candidates = repairer.candidates()

`PlainRepairer` serves policies that see the observation alone: preferred retained actions are imitated.
`ConditionedRepairer` serves policies that are told return and cost to expect: every retained action, and the forget
set's dangerous ones, are filed under what they truly cost; what the deployed policy asks for is chosen afterwards.
Both teach the deployed policy to do at the forget set's dangerous states what it does where it is meant to live.
"""

from __future__ import annotations

import copy
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.agents.base import Agent
from saferule_core.agents.memory import logged_inputs, memory_of
from saferule_core.agents.networks import flattened
from saferule_core.agents.returns import discounted_to_go
from saferule_core.tensors import array, random_numbers, tensor
from saferule_core.unlearning.contrast import joined
from saferule_core.unlearning.evidence import Evidence
from saferule_core.unlearning.options import SafeRuleOptions
from saferule_core.unlearning.preference import COST_DISCOUNT, rate
from saferule_core.unlearning.tampering import Indifference

DANGEROUS = 1.0
WINDOW_SHARE = 0.5
"""Share of a batch that a policy with a memory gets, in as many more steps: a window costs more than an observation."""


class Repairer(Protocol):
    """What the stages of a repair need from a policy."""

    stages: tuple[tuple[float, int], ...]
    extra_stage: tuple[float, int]

    def habitat(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Return (count,) rows of the retained data whose states the repaired policy is meant to live in."""

    def start_stage(self, beta: float, multiplier: float, steps: int) -> None:
        """Prepare `steps` gradient steps at a temperature and a Lagrange multiplier."""

    def step(self) -> dict[str, float]:
        """Take one gradient step; return its losses."""

    def candidates(self) -> list[nn.Module]:
        """Return snapshots of what could be deployed now."""


class PlainRepairer:
    """Regression of a policy pi(s) on retained actions drawn from p_lambda."""

    def __init__(
        self, agent: Agent, evidence: Evidence, signs: np.ndarray, options: SafeRuleOptions, seed: int
    ) -> None:
        self.options, self.preference = options, rate(evidence, agent.config.cost_limit, seed)
        self.stages, self.extra_stage = options.stages, (options.stages[-1][0], options.extra_steps)
        self.regression = Regression(agent, options, sum(steps for _, steps in self.stages))
        self.observations = tensor(evidence.retain.observations)
        self.actions = tensor(evidence.retain.actions)
        self.random = np.random.default_rng(seed)
        habitat = self.habitat(options.habitat_rows, self.random)
        self.forget = ForgetTerm(evidence, habitat, options, self.random, seed)
        self.indifference = Indifference(agent, evidence.retain, habitat, signs, options.sign_batch_size, seed)
        self.batches: list[Tensor] = []

    def habitat(self, count: int, random: np.random.Generator) -> np.ndarray:
        chances = self.preference.probabilities(self.stages[-1][0], self.options.multiplier)
        return random.choice(self.preference.rows, count, p=chances)

    def start_stage(self, beta: float, multiplier: float, steps: int) -> None:
        self.regression.go_on(steps)
        size = self.options.batch_size
        probabilities = self.preference.probabilities(beta, multiplier)
        drawn = self.random.choice(len(probabilities), size=steps * size, p=probabilities)
        self.batches = list(tensor(self.preference.rows[drawn]).split(size))

    def step(self) -> dict[str, float]:
        rows = self.batches.pop()
        forget = self.forget.draw()
        observations = self.forget.observations.index_select(0, forget)
        proposed = self.regression.actor(torch.cat([self.observations.index_select(0, rows), observations]))
        kept = (proposed[: len(rows)] - self.actions.index_select(0, rows)).square().sum(1).mean()
        forgotten = self.forget.loss(proposed[len(rows) :], forget)
        return self.regression.descend(kept, forgotten, self.indifference.loss(self.regression.actor))

    def candidates(self) -> list[nn.Module]:
        return [copy.deepcopy(self.regression.average)]


class ConditionedRepairer:
    """Regression of pi(s, context) with repaired contexts; candidates differ in the return that they ask for."""

    def __init__(
        self, agent: Agent, evidence: Evidence, signs: np.ndarray, options: SafeRuleOptions, seed: int
    ) -> None:
        self.agent, self.options, self.retain = agent, options, evidence.retain
        share = WINDOW_SHARE if memory_of(agent.actor) else 1.0
        patience = round((options.sign_patience if len(signs) else 1) / share)
        self.stages = tuple((beta, steps * patience) for beta, steps in options.conditioned_stages)
        self.extra_stage = self.stages[-1]
        self.contexts = agent.contexts(evidence.retain)
        agent.aim(self.retain, self.contexts, agent.config.target_quantile)
        self.regression = Regression(agent, options, sum(steps for _, steps in self.stages))
        random = np.random.default_rng(seed)
        habitat = self.habitat(options.habitat_rows, random)
        self.forget = ForgetTerm(evidence, habitat, options, random, seed)
        self.indifference = Indifference(agent, evidence.retain, habitat, signs, options.sign_batch_size, seed)
        told = (evidence.retain, self.contexts), (evidence.forget, agent.contexts(evidence.forget))
        self.inputs = joined(logged_inputs(data, contexts, memory_of(agent.actor)) for data, contexts in told)
        self.actions = tensor(np.concatenate([evidence.retain.actions, evidence.forget.actions]))
        self.retained = len(evidence.retain)
        self.rows = torch.cat([torch.arange(self.retained), self.retained + self.forget.rows])
        self.size = round(share * options.batch_size)
        self.generator = random_numbers(seed)

    def habitat(self, count: int, random: np.random.Generator) -> np.ndarray:
        safe = self.retain.episode_costs <= 0.5 * self.agent.config.cost_limit
        return random.choice(np.flatnonzero(safe[self.retain.episode_index]), count)

    def start_stage(self, beta: float, multiplier: float, steps: int) -> None:
        """Every action counts here; the multiplier acts on what is asked for."""
        self.regression.go_on(steps)

    def step(self) -> dict[str, float]:
        actor, size = self.regression.actor, self.size
        kept_rows = self.rows[torch.randint(len(self.rows), (size,), generator=self.generator)]
        forget = self.forget.draw()
        *seen, contexts = self.inputs.batch(torch.cat([kept_rows, self.retained + forget]))
        contexts[size:] = actor.target
        proposed = actor(*seen, contexts)
        kept = (proposed[:size] - self.actions.index_select(0, kept_rows)).square().sum(1).mean()
        forgotten = self.forget.loss(proposed[size:], forget)
        return self.regression.descend(kept, forgotten, self.indifference.loss(actor))

    def candidates(self) -> list[nn.Module]:
        aimed = []
        for quantile in self.options.target_quantiles:
            self.agent.aim(self.retain, self.contexts, quantile)
            candidate = copy.deepcopy(self.regression.average)
            candidate.target.copy_(self.agent.actor.target)
            aimed.append(candidate)
        return aimed


class Regression:
    """The warm-started policy, its optimiser with a falling learning rate, and its moving average."""

    def __init__(self, agent: Agent, options: SafeRuleOptions, planned: int) -> None:
        self.options, self.planned, self.taken = options, planned, 0
        self.actor, self.average = copy.deepcopy(agent.actor), copy.deepcopy(agent.actor)
        self.weights, self.averaged = flattened(self.actor), flattened(self.average)
        self.optimiser = torch.optim.Adam([self.weights], lr=options.learning_rate, fused=True)

    def go_on(self, steps: int) -> None:
        """Let the learning rate fall anew, over `steps`, once the planned steps are taken."""
        if self.taken >= self.planned:
            self.taken, self.planned = 0, steps

    def descend(self, keep_loss: Tensor, forget_loss: Tensor, sign_loss: Tensor) -> dict[str, float]:
        """Minimise keep_loss + forget_weight * forget_loss + sign_weight * sign_loss by one step."""
        options = self.options
        done = min(self.taken / max(self.planned, 1), 1.0)
        rate = options.learning_rate + done * (options.final_learning_rate - options.learning_rate)
        self.optimiser.param_groups[0]["lr"] = rate
        self.weights.grad.zero_()
        (keep_loss + options.forget_weight * forget_loss + options.sign_weight * sign_loss).backward()
        self.optimiser.step()
        self.taken += 1
        self.averaged.data.lerp_(self.weights.data, options.policy_rate)
        return {"keep_loss": keep_loss.item(), "forget_loss": forget_loss.item(), "sign_loss": sign_loss.item()}


class ForgetTerm:
    """The forget set's dangerous states, and what the policy is to do there instead.

    That is what the nearest state of the policy's habitat shows. Pushing a policy away from forgotten actions would
    leave open where to, and where an attack shows a trigger, nothing retained says that the trigger means nothing.
    """

    def __init__(
        self, evidence: Evidence, habitat: np.ndarray, options: SafeRuleOptions, random: np.random.Generator, seed: int
    ) -> None:
        forget, retain = evidence.forget, evidence.retain
        danger = np.flatnonzero(discounted_to_go(forget, forget.costs, COST_DISCOUNT) > DANGEROUS)
        if options.forget_weight <= 0.0:
            danger = danger[:0]
        if len(danger) > options.forget_rows:
            danger = np.sort(random.choice(danger, options.forget_rows, replace=False))
        self.rows, self.observations = tensor(danger), tensor(forget.observations)
        scale = retain.observation_scale
        lost, known = (tensor(s / scale) for s in (forget.observations[danger], retain.observations[habitat]))
        nearest = array(torch.cdist(lost, known).argmin(1)) if len(danger) else danger
        self.actions = torch.zeros(len(forget), retain.action_dim)
        self.actions[self.rows] = tensor(retain.actions[habitat[nearest]])
        self.size = options.forget_batch_size if len(danger) else 0
        self.generator = random_numbers(seed + 1)

    def draw(self) -> Tensor:
        """Return a batch of dangerous rows of the forget set; empty if there is no danger."""
        if not self.size:
            return self.rows[:0]
        return self.rows[torch.randint(len(self.rows), (self.size,), generator=self.generator)]

    def loss(self, proposed: Tensor, rows: Tensor) -> Tensor:
        """Return the mean of |pi(s) - a'|^2, a' the action of the nearest state of the habitat."""
        if not self.size:
            return torch.zeros(())
        return (proposed - self.actions[rows]).square().sum(1).mean()


def repairer_of(
    agent: Agent, evidence: Evidence, signs: np.ndarray, options: SafeRuleOptions, seed: int
) -> Repairer:
    """Return the repairer that fits the agent's actor."""
    conditioned = agent.contexts(evidence.forget.select_episodes([0])) is not None
    family = ConditionedRepairer if conditioned else PlainRepairer
    return family(agent, evidence, signs, options, seed)
