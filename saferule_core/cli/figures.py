"""The numbers of candidates and verdicts, as JSON results and as lines for people; the same for all verbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saferule_core.candidate import Candidate
    from saferule_core.validation.gate import Check, Verdict

REFUSED = 3
"""Exit status of a command whose candidate was refused."""


def candidate_facts(candidate: Candidate) -> dict[str, Any]:
    """Return what a program wants to know of an unlearning run."""
    result, about = candidate.result, candidate.about
    return {
        "forget_set": about.facts["forget episodes"],
        "retain_set": about.facts["retain episodes"],
        "detected": [f"{each.bag}: {each.episode}: {each.reason}" for each in about.detected],
        "candidate_id": candidate.policy_id,
        "incumbent_id": candidate.incumbent_id,
        "succeeded": result.succeeded,
        "unlearning_message": result.message,
        "unlearning_seconds": result.seconds,
        "unlearning_steps": result.steps,
        "critics": result.critics,
    }


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """Return what a program wants to know of a verdict."""
    return {
        "accepted": verdict.accepted,
        "message": verdict.message,
        "cost_limit": verdict.rules.cost_limit,
        "incumbent_cost": verdict.incumbent.cost.mean,
        "candidate_cost": verdict.candidate.cost.mean,
        "candidate_cost_upper": verdict.candidate.cost.upper,
        "incumbent_reward": verdict.incumbent.reward.mean,
        "candidate_reward": verdict.candidate.reward.mean,
        "reward_reference": verdict.reward_reference,
        "checks": [
            {"name": check.name, "passed": check.passed, "expected": check.expected, "found": check.found}
            for check in verdict.checks
        ],
    }


def candidate_text(candidate: Candidate) -> str:
    """Return an unlearning run in a line or two."""
    result, detected = candidate.result, candidate.about.detected
    lines = [f"suspected, and forgotten: {each.bag}: {each.episode}: {each.reason}" for each in detected]
    if candidate.policy_id is None:
        lines.append(f"unlearning failed after {result.seconds:.1f} s: {result.message}")
    else:
        lines.append(f"policy {candidate.policy_id[:12]} in {result.seconds:.1f} s: {result.message}")
    return "\n".join(lines)


def _check_text(check: Check) -> str:
    return f"{'ok' if check.passed else 'NOT':4}{check.name}: {check.found} (expected: {check.expected})"


def verdict_text(verdict: Verdict, page: Path | None) -> str:
    """Return a verdict as a small table with its checks."""
    lines = [verdict.message.split(":", 1)[0].upper(), "", f"{'':24}{'before':>12}{'after':>12}"]
    for name, figure in (("mean episode cost", "cost"), ("mean reward", "reward")):
        values = (getattr(policy, figure).mean for policy in (verdict.incumbent, verdict.candidate))
        lines.append(f"{name:24}" + "".join(f"{value:12.2f}" for value in values))
    lines += ["", *(_check_text(check) for check in verdict.checks)]
    lines += [f"    {note}" for note in verdict.notes]
    return "\n".join([*lines, *([f"\nreport: {page}"] if page is not None else [])])
