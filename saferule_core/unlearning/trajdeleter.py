"""TrajDeleter: make the forget set's states look worthless, keep the others, then converge.

    result = unlearn("trajdeleter", problem, steps=800)

    forgetting    in turns of equal length: the agent's own training step on the retained data, and, on the forget set,
                  min_Q  E_forget (Q_r(s, a) + nu G_r)^2,   max_pi  E_forget Q_r(s, pi(s))
    convergence   the agent's own training step on the retained data

G_r is the discounted reward-to-go as logged, nu `forget_weight`. With rewards turned round, the critic learns that
what was done in the forget set is the worst to do there, and the policy moves away from it. It knows no cost: the
cost critic and the constraint are left to the agent's own steps.

Source: arXiv 2404.12530 and the code released with it, 2019ChenGong/TrajDeleter (stage 1: negated rewards, 1,000 steps
in turn; 8,000 + 2,000 steps). Two differences: its temporal-difference targets became returns, for with a policy that
maximises Q freely they ran away upwards; and stage 2 there also pulls critics, with weight 0.1, towards targets of the
original agent, which here is the poisoned one.
"""

from __future__ import annotations

from typing import Any

import torch

from saferule_core.agents.returns import discounted_to_go
from saferule_core.progress import Progress, within
from saferule_core.tensors import random_numbers, tensor
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult, method
from saferule_core.unlearning.contrast import BATCH_SIZE
from saferule_core.unlearning.convergence import converge
from saferule_core.unlearning.fitted_critics import critics_of
from saferule_core.unlearning.phases import PhaseOptions, Setting, parse, taken, two_phases

DEFAULTS = PhaseOptions()
TURNS = 4
TAIL = 20


@method("trajdeleter")
def trajdeleter(problem: UnlearningProblem, progress: Progress, **options: Any) -> UnlearningResult:
    """Lower the value of what is to be forgotten, then converge; `options` are fields of `PhaseOptions`."""
    chosen = parse("trajdeleter", DEFAULTS, options)
    return two_phases("trajdeleter", problem, progress, chosen, Devaluation)


class Devaluation:
    """The turns of the forgetting phase."""

    def __init__(self, setting: Setting, progress: Progress) -> None:
        self.setting, options = setting, setting.options
        agent, seed = setting.agent, setting.problem.seed
        self.critics = critics_of(agent, setting.retain, seed, options.critic_steps, progress)
        forget = setting.forget
        rewards = -options.forget_weight * forget.rewards / self.critics.unit
        self.worth = tensor(discounted_to_go(forget, rewards, self.critics.discount, TAIL))
        self.observations, self.actions = tensor(forget.observations), tensor(forget.actions)
        self.inputs = agent.inputs(forget, deployed=True)
        self.generator = random_numbers(seed + 1)
        self.critic_optimiser = torch.optim.Adam(self.critics.reward.parameters(), lr=options.learning_rate, fused=True)
        self.actor_optimiser = torch.optim.Adam(agent.policy_weights(), lr=options.learning_rate, fused=True)

    def run(self, steps: int, progress: Progress) -> list[dict[str, float]]:
        setting, options, history = self.setting, self.setting.options, []
        rates = {"target_rate": options.target_rate, "policy_rate": options.policy_rate}
        turns = min(TURNS, max(steps // 2, 1))
        for turn in range(turns):
            keeping, devaluing = shares(steps, 2 * turns)[2 * turn : 2 * turn + 2]
            part = within(progress, turn / turns, (turn + 1) / turns)
            if keeping:
                problem, kept = setting.problem, within(part, 0.0, 0.5)
                converge(setting.agent, problem, setting.retain, keeping, rates, kept, turn + 1)
            history += taken(self.devalue, devaluing, within(part, 0.5, 1.0))
        return history

    def devalue(self) -> dict[str, float]:
        """Take one step on a batch of the forget set."""
        rows = torch.randint(len(self.worth), (2 * BATCH_SIZE,), generator=self.generator)
        observations, critic = self.observations.index_select(0, rows), self.critics.reward
        errors = critic(observations, self.actions.index_select(0, rows)) - self.worth.index_select(0, rows)
        critic_loss = errors.square().mean()
        self.critic_optimiser.zero_grad()
        critic_loss.backward()
        self.critic_optimiser.step()
        value = critic(observations, self.setting.agent.actor(*self.inputs.batch(rows))).amin(0).mean()
        self.actor_optimiser.zero_grad()
        (-value).backward()
        self.actor_optimiser.step()
        return {"forget_critic_loss": critic_loss.item(), "forget_value": value.item()}


def shares(total: int, parts: int) -> list[int]:
    """Split `total` into `parts` whole numbers that differ by one at most."""
    return [total * (part + 1) // parts - total * part // parts for part in range(parts)]
