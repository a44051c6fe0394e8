"""How policies differ, and the card that says what one is."""

import pytest
import torch

from saferule_core import agents
from saferule_core.store import BagOrigin, Card, Origin, PolicyStore
from saferule_core.store.comparison import compare
from saferule_core.store.model_card import model_card

BAD = BagOrigin("day|3<b>", "b" * 64, 5, "e" * 64)


@pytest.fixture
def store(tmp_path):
    return PolicyStore(tmp_path / "store")


@pytest.fixture
def add(store, point_spec):
    """Adds a policy whose last layer is scaled, and returns its id."""

    def enter(scale=1.0, algorithm="advantage_weighted", **card):
        torch.manual_seed(0)
        agent = agents.build(algorithm, 5, 2, {"hidden": (8,)})
        with torch.no_grad():
            agent.actor.body[-1].weight.mul_(scale)
        return store.add(agent, point_spec, Card(seed=0, created="2026-01-01T00:00:00", **card))

    return enter


def test_a_policy_does_not_differ_from_itself(store, add):
    path = store.path(add())
    found = compare(path, path)
    assert found.facts == {} and found.largest_action_change == 0.0
    assert all((change.unlike, change.changed, change.relative) == (0, 0, 0.0) for change in found.weights.values())


def test_facts_weights_and_actions_are_compared(store, add):
    first = add()
    second = add(2.0, parent=first, details={"options": {"steps": 7}})
    found = compare(store.path(first), store.path(second))
    assert found.facts == {"parent": (None, first), "details": ({}, None), "details.options.steps": (None, 7)}
    assert (found.weights["actor"].changed, found.weights["cost_critic"].changed) == (1, 0)
    assert 0.0 < found.mean_action_change < found.largest_action_change <= 2.0


def test_policies_of_other_algorithms_can_be_compared(store, add):
    found = compare(store.path(add()), store.path(add(algorithm="return_conditioned")))
    assert found.facts["algorithm"] == ("advantage_weighted", "return_conditioned")
    assert found.weights["actor"].unlike > 0 and found.weights["cost_critic"].unlike > 0


def test_the_model_card_tells_origin_measures_history_and_what_speaks_against(store, add):
    first = add()
    measures = {"forget_action_distance": {"before": 0.125, "after": 0.75}}
    second = add(
        2.0, parent=first, method="safe_rule", details={"measures": measures}, origin=Origin("anna", forgotten=(BAD,))
    )
    store.activate(second, "passed validation")
    store.reject(second, "swerves")
    text = model_card(store, second)
    for expected in (
        f"# Policy {second[:12]} for point", f"`{second}`", f"`{first}`", "asked by | anna",
        "active, rejected: swerves",
        "point at 10 Hz: 5 observation features in, 2 action channels out", "3 per episode, from outside_bounds",
        "| forget action distance | 0.125 | 0.75 |", "**activated** passed validation", "**rejected** swerves",
        "nobody", "Unlearning removes influence approximately",
    ):  # fmt: skip
        assert expected in text, expected
    assert "| day\\|3&lt;b> | 5 |" in text, "text from a card does not break out of its cell"
    assert "trained from scratch" in model_card(store, first) and "Not validated" in model_card(store, first)
