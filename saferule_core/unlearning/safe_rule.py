"""Safe-RULE: repair a running policy from data alone, without retraining and without the environment.

    result = unlearn("safe_rule", UnlearningProblem(agent, retain, forget, 10.0, seed=0, relabel=spec.relabel))

The dual objective, with repaired costs, solved by a few stages of warm-started regression:

    min_pi max_{lambda >= 0}  E_{(s,a) ~ p_lambda} |pi(s) - a|^2                          keep reward
                              + nu E_{dangerous forget} |pi(s) - a'(s)|^2                 forget
                              + mu E_habitat |pi(s + sign) - pi(s)|^2                     forget
    p_lambda ~ exp(beta (R - lambda H) / max(1, lambda)) on the retained data             keep cost under the limit
    lambda  <- clip(lambda exp(rate clip((J_c(pi) - margin kappa) / kappa)))              after every stage

R is the return of an action's episode, H how close to harm that episode went (see `preference.py`); a'(s) is what the
nearest state shows in which the policy is meant to live. Signs are what forgotten episodes alone show to the sensors
from their beginning on, see `tampering.py`; mostly there are none.
The habitat is where the policy is meant to live (`policies.py`), J_c its cost in a learned dynamics model (the audit),
kappa the cost limit; the clip within the exponent is to 1 either way. For a policy that is told what return to expect,
lambda acts on that request instead: argmax_R J_r(R) - lambda u J_c(R), u the highest |J_r| per kappa. What is returned
passed the audit with a margin; if nothing did, the result says that the repair failed.

Source: "Safe-RULE: Safe Reinforcement UnLEarning" (arXiv 2606.09559): its aim and its dual form. Its advantage
terms on critics that saw the poison are replaced by returns and costs of whole episodes with repaired labels, and its
choice of a checkpoint by the environment is replaced by the audit.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from saferule_core.agents.base import build
from saferule_core.progress import Progress, within
from saferule_core.tensors import array
from saferule_core.unlearning.audit import Auditor, Verdict
from saferule_core.unlearning.base import UnlearningProblem, UnlearningResult, method
from saferule_core.unlearning.critics import repair_critics
from saferule_core.unlearning.evidence import Evidence, gather
from saferule_core.unlearning.options import SafeRuleOptions, parse_options
from saferule_core.unlearning.policies import repairer_of
from saferule_core.unlearning.scaling import refit_scaling
from saferule_core.unlearning.tampering import find_signs
from saferule_core.unlearning.world import fit_world

REPORT_EVERY = 20


@dataclass(frozen=True)
class Snapshot:
    """A policy that could be deployed, what the audit says of it, and the multiplier it was made with."""

    actor: nn.Module
    verdict: Verdict
    multiplier: float


@method("safe_rule")
def safe_rule(problem: UnlearningProblem, progress: Progress, **options: Any) -> UnlearningResult:
    """Repair the problem's policy; `options` are fields of `SafeRuleOptions`.

    Raises:
        UnlearningError: an unknown option, or costs that can neither be recomputed nor learned.
    """
    chosen = parse_options(options)
    progress("evidence", 0.0, "recomputing costs")
    evidence = gather(problem)
    safe_episodes = int((evidence.retain.episode_costs <= 0.5 * problem.cost_limit).sum())
    if safe_episodes < chosen.least_safe_episodes:
        return unsupported(problem, evidence, safe_episodes, chosen.least_safe_episodes)
    return Repair(problem, evidence, chosen, progress).run()


def unsupported(problem: UnlearningProblem, evidence: Evidence, found: int, needed: int) -> UnlearningResult:
    """Return the failure that retained data without enough safe behaviour deserves; the agent is unchanged."""
    message = (
        f"the retained data cannot support a repair: {found} of {evidence.retain.episode_count} episodes cost at "
        f"most {0.5 * problem.cost_limit:g}, at least {needed} are needed; retain more safe driving"
    )
    diagnostics = {"safe_episodes": found, "cost_source": evidence.source}
    has_critics = any(critic is not None for critic in (problem.agent.reward_critic, problem.agent.cost_critic))
    critics = "poisoned" if has_critics else "none"
    return UnlearningResult(problem.agent.clone(), False, message, 0, critics, [], diagnostics)


class Repair:
    """One repair: its policy steps, the multiplier, and the snapshots with their verdicts."""

    def __init__(
        self, problem: UnlearningProblem, evidence: Evidence, options: SafeRuleOptions, progress: Progress
    ) -> None:
        self.problem, self.evidence, self.options, self.progress = problem, evidence, options, progress
        self.agent = problem.agent.clone() if options.warm_start else fresh(problem, evidence)
        self.agent.config = dataclasses.replace(self.agent.config, cost_limit=problem.cost_limit)
        self.refitted = refit_scaling(self.agent, evidence.retain)
        self.signs = find_signs(evidence.retain, evidence.forget, problem.seed)
        self.repairer = repairer_of(self.agent, evidence, self.signs, options, problem.seed)
        self.auditor = self.make_auditor()
        self.multiplier = options.multiplier
        self.allowed = options.margin * problem.cost_limit
        self.steps = 0
        self.history: list[dict[str, Any]] = []
        self.best: Snapshot | None = None

    def make_auditor(self) -> Auditor:
        """Fit the model, and choose start states where the policy is meant to live."""
        retain, seed = self.evidence.retain, self.problem.seed
        world = fit_world(retain, self.options.model_steps, seed, within(self.progress, 0.1, 0.3))
        habitat = self.repairer.habitat(self.options.audit_starts // 2, np.random.default_rng(seed))
        return Auditor(world, retain, habitat, self.evidence.costs_of, seed, self.signs, array(world.noise))

    def run(self) -> UnlearningResult:
        """Take the stages, more of them while the audit is not content, then repair the critics."""
        stages = self.repairer.stages
        planned = sum(steps for _, steps in stages)
        latest = [self.stage(beta, steps, planned) for beta, steps in stages][-1]
        for _ in range(self.options.extra_stages):
            if latest.verdict.cost <= self.allowed:
                break
            latest = self.stage(*self.repairer.extra_stage, planned)
        chosen = latest if latest.verdict.cost <= self.allowed or self.best is None else self.best
        self.agent.actor.load_state_dict(chosen.actor.state_dict())
        progress = within(self.progress, 0.8, 1.0)
        critics = repair_critics(self.agent, self.evidence, self.problem.seed, self.options.critic_steps, progress)
        return self.result(chosen, critics)

    def stage(self, beta: float, steps: int, planned: int) -> Snapshot:
        """Take `steps` gradient steps, audit what came out, and move the multiplier."""
        self.repairer.start_stage(beta, self.multiplier, steps)
        for _ in range(steps):
            losses = self.repairer.step()
            if self.steps % REPORT_EVERY == 0:
                done = 0.3 + 0.5 * min(self.steps / planned, 1.0)
                self.progress("unlearning", done, f"step {self.steps}", multiplier=self.multiplier, **losses)
            self.steps += 1
        snapshot = self.choose(self.repairer.candidates())
        verdict = snapshot.verdict
        if verdict.cost <= self.allowed and (self.best is None or verdict.reward > self.best.verdict.reward):
            self.best = snapshot
        numbers = {"modelled_cost": verdict.cost, "modelled_reward": verdict.reward}
        self.history.append({"step": self.steps, "beta": beta, "multiplier": snapshot.multiplier, **losses, **numbers})
        self.multiplier = self.raised(self.multiplier, verdict.cost)
        return snapshot

    def choose(self, candidates: list[nn.Module]) -> Snapshot:
        """Return argmax J_r - lambda J_c over the candidates, lambda rising until the choice is allowed."""
        verdicts = self.auditor.judge(candidates)
        unit = max(abs(verdict.reward) for verdict in verdicts) / max(self.problem.cost_limit, 1.0)
        while True:
            merits = [verdict.reward - self.multiplier * unit * verdict.cost for verdict in verdicts]
            index = int(np.argmax(merits))
            raised = self.raised(self.multiplier, verdicts[index].cost)
            if len(candidates) == 1 or raised <= self.multiplier:
                return Snapshot(candidates[index], verdicts[index], self.multiplier)
            self.multiplier = raised

    def raised(self, multiplier: float, cost: float) -> float:
        """Return the multiplier after one step of dual ascent."""
        excess = (cost - self.allowed) / max(self.problem.cost_limit, 1.0)
        moved = multiplier * math.exp(self.options.multiplier_rate * min(max(excess, -1.0), 1.0))
        return min(max(moved, self.options.multiplier), self.options.multiplier_bound)

    def result(self, chosen: Snapshot, critics: str) -> UnlearningResult:
        """Return the outcome with its numbers."""
        cost = chosen.verdict.cost
        succeeded = cost <= self.allowed
        message = f"the audit expects a cost of {cost:.1f} per episode, {self.allowed:g} are allowed"
        if not succeeded:
            message += "; no candidate is safe enough: keep the running policy stopped, or retain more safe driving"
        diagnostics = {
            "cost_source": self.evidence.source,
            "modelled_cost": cost,
            "modelled_reward": chosen.verdict.reward,
            "multiplier": chosen.multiplier,
            "refitted_features": self.refitted,
            "signs": len(self.signs),
        }
        return UnlearningResult(self.agent, succeeded, message, self.steps, critics, self.history, diagnostics)


def fresh(problem: UnlearningProblem, evidence: Evidence) -> Any:
    """Return an untrained agent of the same shape, normalised to the retained data."""
    agent = problem.agent
    new = build(agent.algorithm, agent.obs_dim, agent.action_dim, agent.hyperparameters())
    new.prepare(evidence.retain)
    return new
