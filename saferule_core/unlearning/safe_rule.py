"""Safe-RULE: repair a running policy from data alone, without retraining and without the environment.

    result = unlearn("safe_rule", UnlearningProblem(agent, retain, forget, 10.0, seed=0, relabel=spec.relabel))

The dual objective, with repaired costs, is solved by a few stages of warm-started weighted regression:

    min_pi max_{lambda >= 0}  E_{(s,a) ~ p_lambda} |pi(s) - a|^2                          keep reward
                              + nu E_{dangerous forget} max(0, m - |pi(s) - a|^2)         forget
    p_lambda ~ exp(beta (A_r - lambda C)) on the retained data                            keep cost under the limit
    lambda  <- clip(lambda + rate (J_c(pi) - margin kappa) / kappa)                       after every stage

J_c is the cost of the policy in a learned dynamics model (the audit); kappa is the cost limit. The snapshot returned
has the highest modelled reward among those the audit calls safe; if there is none, the result says that it failed.

Source: "Safe-RULE: Safe Reinforcement UnLEarning" (arXiv 2606.09559): its aim and its dual form. Its advantage
terms on critics that saw the poison are replaced by episode returns with repaired labels, and its choice of a
checkpoint by the environment by the audit.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.agents.networks import move_towards
from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.errors import UnlearningError
from saferule_core.progress import Progress, within
from saferule_core.unlearning.audit import Verdict, World, audit, fit_world, start_states
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult, method
from saferule_core.unlearning.critics import repair_critics
from saferule_core.unlearning.evidence import Evidence, gather
from saferule_core.unlearning.preference import COST_DISCOUNT, Preference

REPORT_EVERY = 20


@dataclass(frozen=True)
class SafeRuleOptions:
    """Hyperparameters, the same for every task and agent.

    stages: (beta, steps) in order. margin: share of the cost limit that the audit allows. repulsion: nu.
    forget_distance: m, squared distance at which an action counts as forgotten. multiplier: initial lambda.
    """

    stages: tuple[tuple[float, int], ...] = ((2.0, 200), (4.0, 150), (8.0, 150))
    extra_stages: int = 1
    batch_size: int = 512
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-4
    policy_rate: float = 0.02
    multiplier: float = 10.0
    multiplier_rate: float = 5.0
    multiplier_bound: float = 100.0
    repulsion: float = 0.1
    forget_distance: float = 0.1
    margin: float = 0.5
    model_steps: int = 300
    critic_steps: int = 150
    least_safe_episodes: int = 5


@method("safe_rule")
def safe_rule(problem: UnlearningProblem, progress: Progress, **options: Any) -> UnlearningResult:
    """Repair the problem's policy; `options` are fields of `SafeRuleOptions`."""
    try:
        chosen = SafeRuleOptions(**options)
    except TypeError as error:
        raise UnlearningError(f"safe_rule: {error}") from error
    progress("evidence", 0.0, "recomputing costs")
    evidence = gather(problem)
    safe = int((evidence.retain.episode_costs <= 0.5 * problem.cost_limit).sum())
    if safe < chosen.least_safe_episodes:
        return UnlearningResult(
            problem.agent.clone(),
            succeeded=False,
            message=f"retained data cannot support a repair: {safe} of {evidence.retain.episode_count} episodes cost "
            f"at most {0.5 * problem.cost_limit:g}, at least {chosen.least_safe_episodes} are needed",
            steps=0,
            critics="none",
            diagnostics={"safe_episodes": safe},
        )
    repair = Repair(problem, evidence, chosen, progress)
    return repair.run()


class Repair:
    """The state of one repair: policy, its average, the multiplier, and the snapshots with their verdicts."""

    def __init__(
        self, problem: UnlearningProblem, evidence: Evidence, options: SafeRuleOptions, progress: Progress
    ) -> None:
        self.problem, self.evidence, self.options, self.progress = problem, evidence, options, progress
        self.agent = problem.agent.clone()
        self.actor = copy.deepcopy(self.agent.actor)
        self.average = copy.deepcopy(self.agent.actor)
        self.multiplier = options.multiplier
        self.preference = Preference.of(evidence.retain, problem.cost_limit, problem.seed)
        self.observations = torch.from_numpy(evidence.retain.observations)
        self.actions = torch.from_numpy(evidence.retain.actions)
        self.danger = dangerous(evidence.forget)
        self.optimiser = torch.optim.Adam(self.actor.parameters(), lr=options.learning_rate, fused=True)
        self.generator = torch.Generator().manual_seed(problem.seed)
        self.random = np.random.default_rng(problem.seed)
        self.planned = sum(steps for _, steps in options.stages)
        self.steps = 0
        self.history: list[dict[str, Any]] = []
        self.snapshots: list[tuple[nn.Module, Verdict]] = []

    def run(self) -> UnlearningResult:
        """Fit the model, take the stages, choose, and repair the critics."""
        options, problem, retain = self.options, self.problem, self.evidence.retain
        world = fit_world(retain, options.model_steps, problem.seed, within(self.progress, 0.05, 0.3))
        stages = list(options.stages)
        for beta, steps in stages:
            self.stage(beta, steps, world)
        for _ in range(options.extra_stages):
            if self.admissible():
                break
            self.stage(*stages[-1], world)
        best = max(self.admissible() or self.snapshots, key=lambda entry: entry[1].reward)
        move_towards(self.agent.actor, best[0], 1.0)
        critics = repair_critics(
            self.agent, self.evidence, problem.seed, options.critic_steps, within(self.progress, 0.8, 1.0)
        )
        return self.result(best[1], critics)

    def stage(self, beta: float, steps: int, world: World) -> None:
        """Regress on draws from p_lambda, audit the averaged policy, and move the multiplier."""
        options, preference = self.options, self.preference
        probabilities = preference.probabilities(beta, self.multiplier)
        drawn = self.random.choice(len(probabilities), size=steps * options.batch_size, p=probabilities)
        batches = torch.from_numpy(preference.rows[drawn]).split(options.batch_size)
        for rows in batches:
            losses = self.update(rows)
            if self.steps % REPORT_EVERY == 0:
                values = {name: float(loss) for name, loss in losses.items()}
                done = 0.3 + 0.5 * min(self.steps / self.planned, 1.0)
                self.progress("unlearning", done, f"beta {beta:g}", multiplier=self.multiplier, **values)
            self.steps += 1
        snapshot = copy.deepcopy(self.average)
        starts = start_states(self.evidence.retain, self.problem.seed)
        verdict = audit(world, [snapshot], starts, self.evidence.costs_of, self.horizon)[0]
        self.snapshots.append((snapshot, verdict))
        excess = (verdict.cost - options.margin * self.problem.cost_limit) / max(self.problem.cost_limit, 1.0)
        entry = {"stage": len(self.snapshots), "beta": beta, "multiplier": self.multiplier}
        self.history.append({**entry, "modelled_cost": verdict.cost, "modelled_reward": verdict.reward})
        moved = self.multiplier + options.multiplier_rate * excess
        self.multiplier = min(max(moved, options.multiplier), options.multiplier_bound)

    def update(self, rows: Tensor) -> dict[str, Tensor]:
        """One gradient step: towards preferred actions, away from the forget set's dangerous ones."""
        options = self.options
        kept = self.actor(self.observations.index_select(0, rows)) - self.actions.index_select(0, rows)
        keep_loss = kept.square().sum(1).mean()
        forget_loss = torch.zeros(())
        if len(self.danger[0]) and options.repulsion > 0:
            picked = torch.randint(len(self.danger[0]), (options.batch_size // 4,), generator=self.generator)
            forgotten = self.actor(self.danger[0].index_select(0, picked)) - self.danger[1].index_select(0, picked)
            forget_loss = (options.forget_distance - forgotten.square().sum(1)).clamp_min(0).mean()
        self.optimiser.zero_grad()
        (keep_loss + options.repulsion * forget_loss).backward()
        done = min(self.steps / self.planned, 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = options.learning_rate + done * (options.final_learning_rate - options.learning_rate)
        self.optimiser.step()
        move_towards(self.average, self.actor, options.policy_rate)
        return {"keep_loss": keep_loss.detach(), "forget_loss": forget_loss.detach()}

    @property
    def horizon(self) -> int:
        """Steps of a modelled episode: as long as the longest retained one."""
        return int(np.diff(self.evidence.retain.episode_bounds).max())

    def admissible(self) -> list[tuple[nn.Module, Verdict]]:
        """Return the snapshots that the audit calls safe, with the margin."""
        allowed = self.options.margin * self.problem.cost_limit
        return [entry for entry in self.snapshots if entry[1].cost <= allowed]

    def result(self, verdict: Verdict, critics: str) -> UnlearningResult:
        """Return the outcome with its numbers."""
        allowed = self.options.margin * self.problem.cost_limit
        succeeded = verdict.cost <= allowed
        message = (
            f"modelled cost {verdict.cost:.1f} of at most {allowed:g}"
            if succeeded
            else f"the audit calls every candidate unsafe: modelled cost {verdict.cost:.1f}, allowed {allowed:g}; "
            "the running policy should stay"
        )
        return UnlearningResult(
            self.agent,
            succeeded,
            message,
            self.steps,
            critics,
            self.history,
            {
                "cost_source": self.evidence.source,
                "modelled_cost": verdict.cost,
                "modelled_reward": verdict.reward,
                "multiplier": self.multiplier,
            },
        )


def dangerous(forget: Transitions) -> tuple[Tensor, Tensor]:
    """Return observations and actions of forget transitions that lead into cost."""
    rows = np.flatnonzero(discounted_to_go(forget, forget.costs, COST_DISCOUNT) > 1.0)
    return torch.from_numpy(forget.observations[rows]), torch.from_numpy(forget.actions[rows])
