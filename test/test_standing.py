"""What a history says against policies, and what it does not."""

import pytest

from saferule_core.store.standing import marks_of, was_forced

BAD, GOOD = {"name": "day_3", "sha256": "b" * 64}, {"name": "day_1", "sha256": "a" * 64}


class Story:
    """Writes the entries of a history."""

    def __init__(self):
        self.entries, self.active = [], None

    def tell(self, event, **facts):
        self.entries.append({"event": event, "time": "2026-01-01T00:00:00", "active": self.active, **facts})
        return self

    def added(self, policy_id, parent=None, used=(), forgotten=()):
        parents = [parent] if parent else []
        return self.tell("added", policy_id=policy_id, parents=parents, used=list(used), forgotten=list(forgotten))

    def activated(self, policy_id, **facts):
        self.active = policy_id
        return self.tell("activated", **facts)

    def kinds(self, policy_id):
        return sorted(mark.kind for mark in marks_of(self.entries).get(policy_id, ()))


@pytest.fixture
def repaired():
    """A policy that learned from a bad bag, and its repair, which drives."""
    story = Story().added("old", used=[GOOD, BAD]).activated("old")
    return story.added("new", parent="old", used=[GOOD], forgotten=[BAD]).activated("new")


def test_policies_that_were_only_added_and_driven_have_no_marks():
    story = Story().added("one").added("two", parent="one").activated("one").activated("two")
    assert marks_of(story.entries) == {}


def test_what_was_repaired_is_superseded_and_poisoned(repaired):
    assert repaired.kinds("old") == ["poisoned", "superseded"] and repaired.kinds("new") == []


def test_a_repair_says_nothing_before_it_drives():
    story = Story().added("old", used=[BAD]).activated("old").added("new", parent="old", forgotten=[BAD])
    assert story.kinds("old") == []


def test_a_relative_that_learned_from_the_same_bag_is_poisoned(repaired):
    repaired.added("cousin", used=[BAD]).added("honest", used=[GOOD])
    assert repaired.kinds("cousin") == ["poisoned"] and repaired.kinds("honest") == []


def test_a_rejected_repair_no_longer_speaks_against_its_incumbent(repaired):
    repaired.tell("rejected", policy_id="new", reason="broke its limit")
    assert repaired.kinds("old") == [] and repaired.kinds("new") == ["rejected"]
    assert "broke its limit" in str(marks_of(repaired.entries)["new"][0])


def test_all_ancestors_of_a_repair_are_superseded(repaired):
    repaired.added("newer", parent="new", used=[], forgotten=[GOOD]).activated("newer")
    repaired.tell("rejected", policy_id="new")
    assert "superseded" in repaired.kinds("old")
    assert repaired.kinds("new") == ["poisoned", "rejected", "superseded"]


def test_a_policy_that_learned_further_does_not_supersede_its_parent():
    story = Story().added("old", used=[GOOD]).activated("old").added("new", parent="old", used=[GOOD]).activated("new")
    assert story.kinds("old") == []


def test_the_last_verdict_of_the_gate_counts():
    story = Story().added("one").tell("judged", policy_id="one", accepted=False, message="Refused: unsafe")
    assert story.kinds("one") == ["refused"]
    assert Story().tell("judged", policy_id="one", accepted=True, message="").kinds("one") == []
    assert story.tell("judged", policy_id="one", accepted=True, message="Accepted").kinds("one") == []


def test_entries_of_a_store_without_origins_are_understood():
    """As written before cards had an origin: only digests of the data."""
    story = Story().tell("added", policy_id="old", parent=None).activated("old")
    story.tell("added", policy_id="new", parents=["old"], data={"forget": "d" * 64}).activated("new")
    assert story.kinds("old") == ["superseded"]


def test_a_forced_step_counts_until_the_next_one(repaired):
    repaired.activated("old", forced=["poisoned"])
    assert was_forced(repaired.entries, "old") and not was_forced(repaired.entries, "new")
    repaired.activated("new").activated("old")
    assert not was_forced(repaired.entries, "old")
