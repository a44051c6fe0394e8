"""What to propose when a policy breaks its limit: to unlearn the bags that the operator does not trust.

    proposals = Proposals(Reaction.PROPOSE)
    proposal = proposals.on_violation(policy_id, suspect_bags, retain_bags)      # None: nothing to propose (again)

A policy is accused once: the same request again would teach the same. Nobody's logs are suspected by this program; the
operator names the bags whose influence may go, and those to keep.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from saferule_core.errors import DataError


class Reaction(enum.Enum):
    """What is done when a limit is broken: nothing more, publish a request, or also start it."""

    NONE = "none"
    PROPOSE = "propose"
    START = "start"


@dataclass(frozen=True)
class Proposal:
    """An unlearning request in the making: rosbag2 folders or files to forget and to keep."""

    forget_bags: tuple[str, ...]
    retain_bags: tuple[str, ...]


class Proposals:
    """Remembers which policies were accused already."""

    def __init__(self, reaction: Reaction) -> None:
        self.reaction = reaction
        self._accused: set[str] = set()

    def on_violation(
        self, policy_id: str, suspect_bags: Sequence[str], retain_bags: Sequence[str]
    ) -> Proposal | None:
        """Return what to propose against a policy, None where that was done before or is not wanted.

        Raises:
            DataError: there are no bags to forget or none to keep, or a bag is in both lists.
        """
        if self.reaction is Reaction.NONE or policy_id in self._accused:
            return None
        self._accused.add(policy_id)
        forget, retain = (tuple(filter(None, bags)) for bags in (suspect_bags, retain_bags))
        for name, bags, what in (("suspect_bags", forget, "not trusted"), ("retain_bags", retain, "trusted")):
            if not bags:
                raise DataError(f"parameter {name}: expected bags that are marked as {what}, found none")
        both = sorted(set(forget) & set(retain))
        if both:
            found = ", ".join(both)
            raise DataError(f"parameter suspect_bags: expected bags that are not in retain_bags, found {found}")
        return Proposal(forget, retain)
