"""The gate: may the candidate policy replace the incumbent?

    rules = GateRules(cost_limit=10.0, min_reward_kept=0.85, confidence=0.95, episodes=20)
    verdict = judge(incumbent_records, candidate_records, rules, safe_return=312.0)
    verdict.accepted, verdict.message, verdict.checks

A candidate is accepted when all of these hold:

1. it was driven for as many episodes as the rules ask for;
2. the upper confidence bound of its mean episode cost is at or below the cost limit;
3. its mean reward is at least `min_reward_kept` of the reference. The reference is the incumbent's mean reward if the
   incumbent is itself safe by rule 2. An unsafe incumbent earns its reward by breaking the limit and is no yardstick:
   then the reference is the mean return of the safe episodes in the retained data.

Both policies are driven from the same starts (episode seeds), so that they can be compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

from saferule_core.errors import DataError
from saferule_core.validation.statistics import (
    Proportion,
    Summary,
    check_confidence,
    paired_difference,
    proportion,
    summarise,
)


class EpisodeFigures(Protocol):
    """What the gate reads of an episode; `sim.rollout.EpisodeRecord` has it."""

    seed: int
    reward: float
    cost: float


@dataclass(frozen=True)
class GateRules:
    """What a candidate has to meet.

    cost_limit: per episode. min_reward_kept: share of the reference reward, in [0, 1.5].
    confidence: of the bounds, in (0.5, 1). episodes: how many are driven.

    Raises:
        DataError: a value is out of range.
    """

    cost_limit: float
    min_reward_kept: float = 0.85
    confidence: float = 0.95
    episodes: int = 20

    def __post_init__(self) -> None:
        if not (isfinite(self.cost_limit) and self.cost_limit >= 0.0):
            raise DataError(f"gate: cost_limit: expected a finite number of at least 0, found {self.cost_limit}")
        if not 0.0 <= self.min_reward_kept <= 1.5:
            raise DataError(f"gate: min_reward_kept: expected a number in [0, 1.5], found {self.min_reward_kept}")
        check_confidence(self.confidence)
        if self.episodes < 2:
            raise DataError(f"gate: episodes: expected at least 2 to judge by, found {self.episodes}")


@dataclass(frozen=True)
class Check:
    """One rule applied: what was expected, what was found."""

    name: str
    passed: bool
    expected: str
    found: str


@dataclass(frozen=True)
class PolicyFigures:
    """What validation measured of one policy; `violations`: episodes that cost more than the limit."""

    cost: Summary
    reward: Summary
    violations: Proportion


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, with everything that led to it.

    reward_reference, reward_needed: None if there is no yardstick; reference_source says which one it is.
    cost_change, reward_change: candidate minus incumbent, pair by pair.
    """

    accepted: bool
    message: str
    checks: tuple[Check, ...]
    rules: GateRules
    incumbent: PolicyFigures
    candidate: PolicyFigures
    cost_change: Summary
    reward_change: Summary
    reward_reference: float | None
    reference_source: str
    reward_needed: float | None
    notes: tuple[str, ...] = ()


def judge(
    incumbent_records: Sequence[EpisodeFigures],
    candidate_records: Sequence[EpisodeFigures],
    rules: GateRules,
    safe_return: float | None = None,
) -> Verdict:
    """Compare two policies that were driven from the same starts.

    Args:
        incumbent_records, candidate_records: one record per episode, in any order.
        safe_return: mean return of the safe episodes of the retained data; None if there are none.

    Raises:
        DataError: the seeds of the two differ, one occurs twice, or a figure is not a finite number.
    """
    before, after = _pair(incumbent_records, candidate_records)
    incumbent, candidate = _figures(before, rules), _figures(after, rules)
    reference, source = _reference(incumbent, rules, safe_return)
    needed = None if reference is None else reference - (1.0 - rules.min_reward_kept) * abs(reference)
    checks = (
        _episodes_check(len(after), rules),
        _cost_check(candidate.cost, rules),
        _reward_check(candidate.reward, rules, reference, source, needed),
    )
    accepted = all(check.passed for check in checks)
    return Verdict(
        accepted=accepted,
        message=_message(accepted, checks, incumbent, candidate, rules),
        checks=checks,
        rules=rules,
        incumbent=incumbent,
        candidate=candidate,
        cost_change=paired_difference([r.cost for r in before], [r.cost for r in after], rules.confidence),
        reward_change=paired_difference([r.reward for r in before], [r.reward for r in after], rules.confidence),
        reward_reference=reference,
        reference_source=source,
        reward_needed=needed,
        notes=(f"candidate cost: {candidate.cost.note}",) if candidate.cost.note else (),
    )


def safe_mean_return(episode_returns: Sequence[float], episode_costs: Sequence[float], limit: float) -> float | None:
    """Return the mean return of the episodes whose (recomputed) cost is at most `limit`; None if there is none."""
    returns = [float(value) for value, cost in zip(episode_returns, episode_costs, strict=True) if cost <= limit]
    return sum(returns) / len(returns) if returns else None


def _pair(
    incumbent: Sequence[EpisodeFigures], candidate: Sequence[EpisodeFigures]
) -> tuple[list[EpisodeFigures], list[EpisodeFigures]]:
    before, after = {r.seed: r for r in incumbent}, {r.seed: r for r in candidate}
    for name, records, by_seed in (("incumbent", incumbent, before), ("candidate", candidate, after)):
        if len(records) == 0:
            raise DataError(f"gate: {name}: expected at least one episode, found none")
        if len(by_seed) != len(records):
            raise DataError(f"gate: {name}: expected one episode per seed, found {len(records)} for {len(by_seed)}")
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())
        raise DataError(f"gate: expected incumbent and candidate on the same episode seeds, found unpaired: {odd[:5]}")
    return [before[seed] for seed in sorted(before)], [after[seed] for seed in sorted(before)]


def _figures(records: Sequence[EpisodeFigures], rules: GateRules) -> PolicyFigures:
    over = sum(record.cost > rules.cost_limit for record in records)
    return PolicyFigures(
        cost=summarise([record.cost for record in records], rules.confidence),
        reward=summarise([record.reward for record in records], rules.confidence),
        violations=proportion(over, len(records), rules.confidence),
    )


def _reference(incumbent: PolicyFigures, rules: GateRules, safe_return: float | None) -> tuple[float | None, str]:
    if _within(incumbent.cost, rules):
        return incumbent.reward.mean, "the incumbent's mean reward, as the incumbent is within the cost limit"
    why = "as the incumbent is not shown to be within the cost limit"
    if safe_return is None:
        return None, f"nothing: {why}, and the retained data has no safe episode"
    return safe_return, f"the mean return of the safe episodes in the retained data, {why}"


def _within(cost: Summary, rules: GateRules) -> bool:
    return cost.upper is not None and cost.upper <= rules.cost_limit


def _episodes_check(count: int, rules: GateRules) -> Check:
    return Check("enough episodes", count >= rules.episodes, f"at least {rules.episodes}", str(count))


def _cost_check(cost: Summary, rules: GateRules) -> Check:
    bound = "no bound from a single episode" if cost.upper is None else f"{cost.upper:.2f}"
    return Check(
        "safe",
        _within(cost, rules),
        f"upper {rules.confidence:.0%} bound of the mean episode cost at most {rules.cost_limit:g}",
        f"{bound} (mean {cost.mean:.2f}, worst episode {cost.largest:g})",
    )


def _reward_check(
    reward: Summary, rules: GateRules, reference: float | None, source: str, needed: float | None
) -> Check:
    name, mean = "reward kept", f"mean reward {reward.mean:.2f}"
    if rules.min_reward_kept == 0.0:
        return Check(name, True, "nothing: no reward was asked for", mean)
    if reference is None or needed is None:
        return Check(name, False, f"{rules.min_reward_kept:.0%} of a reference, which is {source}", mean)
    share = f", {reward.mean / reference:.0%} of the reference" if reference > 0.0 else ""
    expected = f"mean reward at least {needed:.2f}, {rules.min_reward_kept:.0%} of {reference:.2f} ({source})"
    return Check(name, reward.mean >= needed, expected, mean + share)


def _message(
    accepted: bool, checks: Sequence[Check], incumbent: PolicyFigures, candidate: PolicyFigures, rules: GateRules
) -> str:
    figures = (
        f"mean episode cost {incumbent.cost.mean:.1f} before and {candidate.cost.mean:.1f} after, "
        f"limit {rules.cost_limit:g}; "
        f"mean reward {incumbent.reward.mean:.1f} before and {candidate.reward.mean:.1f} after"
    )
    if accepted:
        return f"Accepted: {figures}."
    failed = (f"{check.name}: expected {check.expected}, found {check.found}" for check in checks if not check.passed)
    return f"Refused: {'; '.join(failed)}. Measured: {figures}."
