"""What is proposed when a policy breaks its limit."""

import pytest

from saferule_core.errors import DataError
from saferule_core.proposals import Proposal, Proposals, Reaction


def test_a_policy_is_accused_once():
    proposals = Proposals(Reaction.PROPOSE)
    assert proposals.on_violation("a", ["bad", ""], ["good"]) == Proposal(("bad",), ("good",))
    assert proposals.on_violation("a", ["bad"], ["good"]) is None
    assert proposals.on_violation("b", ["bad"], ["good"]) is not None


def test_nothing_is_proposed_unless_it_is_wanted():
    assert Proposals(Reaction.NONE).on_violation("a", [], []) is None


@pytest.mark.parametrize(
    ("suspect", "retain", "complaint"),
    [
        ([""], ["good"], "suspect_bags: expected bags that are marked as not trusted"),
        (["bad"], [], "retain_bags: expected bags that are marked as trusted"),
        (["bad", "both"], ["both"], "expected bags that are not in retain_bags, found both"),
    ],
)
def test_a_proposal_needs_bags_to_forget_and_others_to_keep(suspect, retain, complaint):
    with pytest.raises(DataError, match=complaint):
        Proposals(Reaction.START).on_violation("a", suspect, retain)
