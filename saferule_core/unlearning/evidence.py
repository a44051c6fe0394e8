"""Label repair: costs that can be believed, for logged data and for modelled states alike.

    evidence = gather(problem)
    evidence.retain.costs, evidence.forget.costs          # recomputed
    evidence.costs_of(observations, actions, following)   # (N,) for states that a model imagined

With a robot description the costs are recomputed exactly. Without one a small classifier is fitted to the retained
labels; it is balanced, so that "more likely than the base rate" counts as danger even where some labels were
flipped to zero, and it only ever adds cost. The retained data is relabelled too: it may hide poison nobody named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from saferule_core.agents.networks import Normaliser, perceptron
from saferule_core.data.transitions import Transitions
from saferule_core.errors import UnlearningError
from saferule_core.tensors import array, tensor
from saferule_core.unlearning.base import UnlearningProblem

COST_STEPS = 400
Costs = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """Both sets with repaired costs, the cost function behind them, and where it comes from."""

    retain: Transitions
    forget: Transitions
    costs_of: Costs
    source: str


def gather(problem: UnlearningProblem) -> Evidence:
    """Return the problem's data with costs that no label in it can lower.

    Raises:
        UnlearningError: no robot description, and no cost at all in the retained labels to learn from.
    """
    if problem.relabel is not None:
        return Evidence(
            problem.relabel(problem.retain),
            problem.relabel(problem.forget),
            recomputed_costs(problem.relabel),
            "robot description",
        )
    costs_of = learned_costs(problem.retain)
    return Evidence(
        raise_costs(problem.retain, costs_of), raise_costs(problem.forget, costs_of), costs_of, "learned cost model"
    )


def recomputed_costs(relabel: Callable[[Transitions], Transitions]) -> Costs:
    """Return a cost function over (observations, actions, following) that asks the robot description."""

    def costs_of(observations: np.ndarray, actions: np.ndarray, following: np.ndarray) -> np.ndarray:
        size = len(observations)
        ends = np.zeros(size, dtype=bool)
        ends[-1:] = True
        blank = np.zeros(size, dtype=np.float32)
        steps = Transitions(observations, np.clip(actions, -1, 1), blank, blank, following, np.zeros_like(ends), ends)
        return relabel(steps).costs

    return costs_of


def learned_costs(retain: Transitions) -> Costs:
    """Fit g(next observation) to "a cost was logged" and return 1[g > 1/2] as a cost function.

    Raises:
        UnlearningError: the retained labels hold no cost, or nothing but cost.
    """
    labels = retain.costs > 0
    share = float(labels.mean())
    if not 0.0 < share < 1.0:
        found = "no cost at all" if share == 0.0 else "a cost at every step"
        raise UnlearningError(
            f"retain set: cost: expected both harmless and costly steps to learn what is dangerous, found {found}; "
            "give a robot description that recomputes cost, or retain data that shows the danger"
        )
    inputs = tensor(retain.next_observations)
    targets = tensor(labels.astype(np.float32))
    normaliser = Normaliser(retain.obs_dim)
    normaliser.fit(inputs)
    classifier = nn.Sequential(normaliser, perceptron(retain.obs_dim, 1, (64, 64)))
    optimiser = torch.optim.Adam(classifier.parameters(), lr=5e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, COST_STEPS)
    weight = torch.tensor((1.0 - share) / share)
    for _ in range(COST_STEPS):
        rows = torch.randint(len(inputs), (512,))
        logits = classifier(inputs[rows]).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets[rows], pos_weight=weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    @torch.no_grad()
    def costs_of(observations: np.ndarray, actions: np.ndarray, following: np.ndarray) -> np.ndarray:
        states = tensor(np.ascontiguousarray(following, dtype=np.float32))
        return array((classifier(states).squeeze(1) > 0).float())

    return costs_of


def raise_costs(data: Transitions, costs_of: Costs) -> Transitions:
    """Return `data` with each cost at least what `costs_of` says."""
    return data.replace(
        costs=np.maximum(data.costs, costs_of(data.observations, data.actions, data.next_observations))
    )


def labelled(problem: UnlearningProblem, repair_labels: bool) -> tuple[Transitions, Transitions, str]:
    """Return the retain set, the forget set and where their costs come from, as every baseline's option asks.

    repair_labels: costs as `gather` repairs them; otherwise as they were logged.

    Raises:
        UnlearningError: labels are to be repaired, but costs can neither be recomputed nor learned.
    """
    if not repair_labels:
        return problem.retain, problem.forget, "as logged"
    evidence = gather(problem)
    return evidence.retain, evidence.forget, evidence.source
