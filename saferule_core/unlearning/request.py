"""A repair as an operator asks for it, and everything that can be wrong with it before any work is done.

    request = RepairRequest(forget=("logs/day_3",), retain=("logs/day_1", "logs/day_2"), seed=0)
    incumbent_id = check_request(request, spec, store)

Each refusal says what to do instead. What only the content of bags can show (a missing topic, no whole episode, a
forget set that covers all episodes) is refused when they are read, by `data.bags` and `unlearning.unlearn`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saferule_core.agents import is_foreign
from saferule_core.data.bag_files import find_bag
from saferule_core.data.reading import USUAL, ReadOptions
from saferule_core.errors import SimulationError, StoreError, UnlearningError
from saferule_core.spec import RobotSpec
from saferule_core.store.store import PolicyStore
from saferule_core.unlearning.base import METHODS, foreign_policy
from saferule_core.validation.gate import GateRules


@dataclass(frozen=True)
class RepairRequest:
    """What to forget, what to keep, and how the outcome is judged.

    forget, retain: paths of bags. policy: the one to repair, by id or as "active". method: a name in `METHODS`.
    seed: of all randomness. cost_limit: per episode, None for the robot description's.
    min_reward_kept, confidence, episodes: see `validation.gate.GateRules`.
    options: hyperparameters of the method. asked_by: who asks, for the history; empty for the user of this process.
    reading: how the bags are read.
    """

    forget: tuple[str, ...]
    retain: tuple[str, ...]
    policy: str = "active"
    method: str = "safe_rule"
    seed: int = 0
    cost_limit: float | None = None
    min_reward_kept: float = 0.85
    confidence: float = 0.95
    episodes: int = 20
    options: Mapping[str, Any] = field(default_factory=dict)
    asked_by: str = ""
    reading: ReadOptions = USUAL

    def rules(self, spec: RobotSpec) -> GateRules:
        """Return the gate's rules. Raises DataError if one is out of range."""
        limit = spec.cost.limit if self.cost_limit is None else self.cost_limit
        return GateRules(limit, self.min_reward_kept, self.confidence, self.episodes)


def check_request(request: RepairRequest, spec: RobotSpec, store: PolicyStore, validate: bool = True) -> str:
    """Check a request against robot description and store, and return the id of the policy to repair.

    Args:
        validate: the candidate will be validated, so a simulated robot is needed.

    Raises:
        UnlearningError: nothing to forget, nothing to retain, the same bag on both sides, no such method, or a policy
            of another tool.
        DataError: a bag does not exist or is none, or a rule of the gate is out of range.
        StoreError: no such policy, it was made for another robot description, or the store takes signed policies only
            and there is no key to sign the candidate with.
        SimulationError: the description names no simulated robot to validate on.
    """
    check_bag_names(request.forget, request.retain)
    if request.method not in METHODS:
        raise UnlearningError(f"method: expected one of {', '.join(sorted(METHODS))}, found {request.method!r}")
    if request.seed < 0:
        raise UnlearningError(f"seed: expected an integer of at least 0, found {request.seed}")
    request.rules(spec)
    if validate and spec.simulation is None:
        raise SimulationError(
            f"{spec.source}: simulation: expected a simulated robot to validate the repaired policy on, found none; "
            "add a section `simulation` to the robot description"
        )
    incumbent_id = store.resolve(request.policy)
    card = store.card(incumbent_id)
    if card.spec_hash != spec.hash:
        raise StoreError(
            f"policy {incumbent_id[:12]}: expected one made for {spec.source} (spec {spec.hash[:12]}), found one for "
            f"{card.spec_name} (spec {card.spec_hash[:12]}); use the robot description that it was trained with"
        )
    if is_foreign(card.algorithm):
        raise UnlearningError(foreign_policy(f"policy {incumbent_id[:12]}", card.algorithm))
    for path in (*request.forget, *request.retain):
        find_bag(Path(path), request.reading)
    store.check_can_add()
    return incumbent_id


def check_bag_names(forget: Sequence[str], retain: Sequence[str]) -> None:
    """Raise UnlearningError if the two lists of bags do not make sense together."""
    if not forget:
        raise UnlearningError("forget set: expected at least one bag, found none; name the bags to forget")
    if not retain:
        raise UnlearningError(
            "retain set: expected at least one bag, found none; name the bags that the policy may go on learning from"
        )
    unwanted = {Path(path).resolve(): path for path in forget}
    shared = [path for path in retain if Path(path).resolve() in unwanted]
    if len(shared) == len(retain):
        raise UnlearningError(
            f"forget set: it names all {len(retain)} retained bags, so nothing is left to learn from; "
            "forget fewer bags, or retain others"
        )
    if shared:
        raise UnlearningError(
            f"{shared[0]}: expected each bag in one set, found it in both the forget and the retain set; "
            "leave it out of one of them"
        )
    for name, paths in (("forget", forget), ("retain", retain)):
        seen = [Path(path).resolve() for path in paths]
        if len(set(seen)) != len(seen):
            twice = next(path for path, full in zip(paths, seen, strict=True) if seen.count(full) > 1)
            raise UnlearningError(f"{twice}: expected each bag once, found it twice in the {name} set")
