"""Safe-RULE as published: `paper`, the step that its reference takes, and `paper_fixed`, what its text means.

    result = unlearn("paper", problem)
    result = unlearn("paper_fixed", problem, forget_weight=0.3)

With  A_x(s, a) = Q_x(s, a) - Q_x(s, pi(s)),  x = r, c,  and  D_x = E_retain A_x - E_forget A_x,  each step takes

    critics       min  E_retain (Q_x - T Q_x)^2 - nu E_forget (Q_x - T Q_x)^2
    policy        max  D_r - lambda (D_c - tau)
    multiplier    lambda <- clip(lambda + 0.1 (D_c - tau), 0, 10),   tau = 10

and then the agent's own training step on the retained data converges; nu is `forget_weight`. `paper` keeps what this
does in the reference: only Q_x(s, pi(s)) carries a gradient to the policy, so the step lowers Q_r and raises Q_c on
retained states and does the opposite on forgotten ones; the gap D_c stays far below 10, so lambda falls to 0 at once;
the critics' ascent has no bound; and their targets follow at every step. `paper_fixed` differs in four places:

    policy        A_x := Q_x(s, pi(s)) - Q_x(s, a), the policy's own advantage over what was logged;  nu weighs here too
    bounds        no state counts for more than an advantage of `BOUND`, nor a forgotten step for more than BOUND^2
    multiplier    tau = 0: lambda rises while the policy's lead in cost over what was logged is higher on retained
                  states than nu times that on forgotten ones
    targets       stay as they are while forgetting

The reference chooses its best checkpoint by driving in the environment. There is none here, so both methods return
the last weights, and nothing is audited. Its policy is BCQ's, which cannot leave the data far; another agent's can.
Source: arXiv 2606.09559 and ShixiongJiang/unlearning-defense, `trajdeleter_unlearn_one_step` (5,000 + 5,000 steps at
a learning rate of 1e-4, target rate 0.005, next values 3/4 min + 1/4 max of the ensemble, the multiplier starts at 1).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from saferule_core.agents.networks import move_towards
from saferule_core.progress import Progress
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult, method
from saferule_core.unlearning.contrast import Batch, Pairs, halves
from saferule_core.unlearning.fitted_critics import critics_of
from saferule_core.unlearning.phases import PhaseOptions, Setting, parse, taken, two_phases

DEFAULTS = PhaseOptions()
BLEND = 0.75
TARGET_RATE = 0.005
MULTIPLIER, MULTIPLIER_RATE, MULTIPLIER_BOUND = 1.0, 0.1, 10.0
BOUND = 1.0


@method("paper")
def paper(problem: UnlearningProblem, progress: Progress, **options: Any) -> UnlearningResult:
    """Take the reference's steps, then converge; `options` are fields of `PhaseOptions`."""
    return two_phases("paper", problem, progress, parse("paper", DEFAULTS, options), PaperStep)


@method("paper_fixed")
def paper_fixed(problem: UnlearningProblem, progress: Progress, **options: Any) -> UnlearningResult:
    """Take the steps that the text means, then converge; `options` are fields of `PhaseOptions`."""
    return two_phases("paper_fixed", problem, progress, parse("paper_fixed", DEFAULTS, options), FixedStep)


class PaperStep:
    """The forgetting phase of the reference."""

    target_rate = TARGET_RATE
    allowed_gap = 10.0

    def __init__(self, setting: Setting, progress: Progress) -> None:
        agent, options, seed = setting.agent, setting.options, setting.problem.seed
        self.actor, self.weight = agent.actor, options.forget_weight
        critics = critics_of(agent, setting.retain, seed, options.critic_steps, progress)
        self.discount = critics.discount
        self.critics = {"reward": critics.reward, "cost": critics.cost}
        self.targets = copy.deepcopy(self.critics)
        self.pairs = Pairs(agent, setting.retain, setting.forget, critics.unit, seed)
        weights = [weight for critic in self.critics.values() for weight in critic.parameters()]
        self.critic_optimiser = torch.optim.Adam(weights, lr=options.learning_rate, fused=True)
        self.actor_weights = agent.policy_weights()
        self.actor_optimiser = torch.optim.Adam(self.actor_weights, lr=options.learning_rate, fused=True)
        self.multiplier = MULTIPLIER

    def run(self, steps: int, progress: Progress) -> list[dict[str, float]]:
        return taken(self.step, steps, progress)

    def step(self) -> dict[str, float]:
        """Take one step on a batch of each set."""
        batch = self.pairs.draw()
        errors = self.update_critics(batch)
        gaps = self.update_policy(batch)
        for name, critic in self.critics.items():
            move_towards(self.targets[name], critic, self.target_rate)
        return {**errors, **gaps, "multiplier": self.multiplier}

    def update_critics(self, batch: Batch) -> dict[str, float]:
        """Fit both critics to the retained steps, and unfit them to the forgotten ones."""
        with torch.no_grad():
            following_actions = self.actor(*batch.following_inputs)
        kept, unfit = 0.0, 0.0
        for name in self.critics:
            keep_errors, forget_errors = halves(self.errors(name, batch, following_actions))
            kept, unfit = kept + keep_errors.mean(), unfit + self.bounded(forget_errors).mean()
        self.critic_optimiser.zero_grad()
        (kept - self.weight * unfit).backward()
        self.critic_optimiser.step()
        return {"keep_critic_loss": kept.item(), "forget_critic_loss": unfit.item()}

    def errors(self, name: str, batch: Batch, following_actions: Tensor) -> Tensor:
        """Return the squared temporal-difference errors (members, N) of the critic `name`."""
        with torch.no_grad():
            ahead = self.targets[name](batch.following, following_actions)
            blended = BLEND * ahead.amin(0) + (1.0 - BLEND) * ahead.amax(0)
            now = batch.rewards if name == "reward" else batch.costs
            wanted = now + self.discount * batch.alive * blended
        return (self.critics[name](batch.observations, batch.actions) - wanted).square()

    def update_policy(self, batch: Batch) -> dict[str, float]:
        """Move the multiplier, then the policy."""
        proposed = self.actor(*batch.inputs)
        gaps = {name: self.gap(name, *halves(self.lead(name, batch, proposed))) for name in self.critics}
        excess = gaps["cost"] - self.allowed_gap
        raised = self.multiplier + MULTIPLIER_RATE * excess.item()
        self.multiplier = min(max(raised, 0.0), MULTIPLIER_BOUND)
        loss = self.multiplier * excess - gaps["reward"]
        gradients = torch.autograd.grad(loss, self.actor_weights, allow_unused=True)
        for weight, gradient in zip(self.actor_weights, gradients, strict=True):
            weight.grad = gradient
        self.actor_optimiser.step()
        return {f"{name}_gap": gap.item() for name, gap in gaps.items()}

    def lead(self, name: str, batch: Batch, proposed: Tensor) -> Tensor:
        """Return by how much the proposed actions are valued above the logged ones: (N,)."""
        critic = self.critics[name]
        with torch.no_grad():
            logged = critic(batch.observations, batch.actions).amin(0)
        return critic(batch.observations, proposed).amin(0) - logged

    def gap(self, name: str, kept: Tensor, forgotten: Tensor) -> Tensor:
        """Return D_x from the policy's lead on retained and on forgotten steps."""
        return forgotten.mean() - kept.mean()

    def bounded(self, errors: Tensor) -> Tensor:
        """Return the errors as they count in the ascent: the reference does not bound them."""
        return errors


class FixedStep(PaperStep):
    """The same objective with the policy's own advantages, bounds, a multiplier that works, and still targets."""

    target_rate = 0.0
    allowed_gap = 0.0

    def gap(self, name: str, kept: Tensor, forgotten: Tensor) -> Tensor:
        if name == "reward":
            return kept.clamp_max(BOUND).mean() - self.weight * forgotten.clamp_min(-BOUND).mean()
        return kept.clamp_min(-BOUND).mean() - self.weight * forgotten.clamp_max(BOUND).mean()

    def bounded(self, errors: Tensor) -> Tensor:
        return errors.clamp_max(BOUND**2)
