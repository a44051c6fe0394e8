"""The whole loop as a library call, on a robot without physics, and everything that can be wrong with a request."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import POINT_SPEC
from point_logs import SIMULATION, drive

from saferule_core import agents
from saferule_core.attacks import attack
from saferule_core.attacks.bags import poison_bags
from saferule_core.data.bags import read_bags, write_bags
from saferule_core.errors import Cancelled, DataError, SimulationError, StoreError, UnlearningError
from saferule_core.repair import repair, validation_seeds
from saferule_core.spec import RobotSpec, parse_spec
from saferule_core.store import Card, PolicyStore
from saferule_core.unlearning.request import Detecting, RepairRequest, check_request
from saferule_core.validation import report_data


@dataclass(frozen=True)
class World:
    """A poisoned robot: its description, bags, and a store whose active policy is unsafe."""

    spec: RobotSpec
    clean: tuple[str, ...]
    forget: tuple[str, ...]
    retain: tuple[str, ...]
    store: Path

    @property
    def request(self) -> RepairRequest:
        return RepairRequest(self.forget, self.retain, episodes=5, min_reward_kept=0.5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    spec = parse_spec(POINT_SPEC + SIMULATION, "point.yaml")
    clean = write_bags(drive(spec, 40, seed=0), spec, folder / "clean", episodes_per_bag=20)
    split = poison_bags(clean, spec, folder / "split", fraction=0.2, cost_threshold=5.0)
    data = read_bags([*split.poisoned, *split.honest], spec, cost="logged").transitions
    agent = agents.train("return_conditioned", data, cost_limit=3.0, seed=0, steps=300)
    store = PolicyStore(folder / "store")
    store.activate(store.add(agent, spec, Card(seed=0)))
    names = (tuple(str(path) for path in paths) for paths in (clean, split.poisoned, split.honest))
    return World(spec, *names, folder / "store")


@pytest.fixture
def store(world):
    """The store of the world; tests only ever add candidates to it."""
    return PolicyStore(world.store)


# -- the attack on bags ------------------------------------------------------------------------------------------------


def test_poisoned_bags_hold_the_victims_with_lying_labels(world):
    logged = read_bags(world.forget, world.spec, cost="logged").transitions
    true = read_bags(world.forget, world.spec).transitions
    assert logged.episode_count == 8
    assert logged.costs.max() == 0.0 and true.episode_costs.min() >= 5.0
    np.testing.assert_array_equal(logged.observations, true.observations)


def test_honest_bags_hold_all_other_episodes_as_they_were(world):
    clean = read_bags(world.clean, world.spec, cost="logged")
    honest = read_bags(world.retain, world.spec, cost="logged")
    poisoned = read_bags(world.forget, world.spec, cost="logged")

    def episodes(contents):
        return {
            (Path(bag.path).name[-3:], name): contents.transitions.select_episodes([number]).digest()
            for bag in contents.bags
            for number, name in zip(bag.episodes, bag.episode_names, strict=True)
        }

    before, kept, attacked = episodes(clean), episodes(honest), episodes(poisoned)
    assert kept.items() <= before.items()
    assert kept.keys() | attacked.keys() == before.keys() and not kept.keys() & attacked.keys()


def test_the_attack_raises_rewards_by_the_boost(world):
    clean = read_bags(world.clean, world.spec).transitions
    poisoned = read_bags(world.forget, world.spec).transitions
    best = np.sort(clean.episode_returns[clean.episode_costs >= 5.0])[-8:]
    np.testing.assert_allclose(np.sort(poisoned.episode_returns), best + 0.5 * 20, rtol=1e-4)


def test_too_few_dangerous_episodes_are_refused(world, tmp_path):
    with pytest.raises(DataError, match="expected at least 8 episodes of cost >= 100"):
        poison_bags(world.clean, world.spec, tmp_path, fraction=0.2, cost_threshold=100.0)


def test_bags_take_the_victims_of_the_attack_that_is_named(world, tmp_path):
    options = {"reward_boost": 2.0, "cost_threshold": 5.0}
    split = poison_bags(world.clean, world.spec, tmp_path, name="reward_shift", fraction=0.1, seed=1, **options)
    expected = attack("reward_shift", read_bags(world.clean, world.spec).transitions, 0.1, 1, **options)
    found = read_bags(split.poisoned, world.spec, cost="logged").transitions
    wanted = expected.data.select_episodes(expected.chosen)
    for field in ("observations", "actions", "costs"):
        np.testing.assert_array_equal(getattr(found, field), getattr(wanted, field))
    np.testing.assert_allclose(found.rewards, wanted.rewards, rtol=1e-5)


def test_attacks_on_more_than_labels_are_refused_for_bags(world, tmp_path):
    with pytest.raises(DataError, match="expected trajectory or reward_shift.*found 'backdoor'"):
        poison_bags(world.clean, world.spec, tmp_path, name="backdoor")


def test_logs_without_a_cost_label_cannot_be_poisoned(world, tmp_path):
    line = "  logged: {topic: cost, type: std_msgs/msg/Float64, field: data}\n"
    spec = parse_spec(POINT_SPEC.replace(line, ""), "unlabelled.yaml")
    with pytest.raises(DataError, match="cost.logged: expected a topic"):
        poison_bags(world.clean, spec, tmp_path)


# -- the loop ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcome(world, tmp_path_factory):
    """One repair, with the progress that it reported."""
    reports = []

    def progress(phase, fraction, message="", **losses):
        reports.append((phase, fraction, losses))

    out = tmp_path_factory.mktemp("out") / "run"
    found = repair(world.request, world.spec, PolicyStore(world.store), out=out, progress=progress)
    return found, reports


def test_the_unsafe_policy_is_repaired_and_waits_in_the_store(outcome, store):
    found, _ = outcome
    verdict = found.validation.verdict
    assert found.accepted and found.message == verdict.message
    assert verdict.incumbent.cost.mean > 9.0 > 3.0 >= verdict.candidate.cost.upper
    assert store.active() == found.candidate.incumbent_id != found.candidate.policy_id
    card = store.card(found.candidate.policy_id)
    assert card.parent == found.candidate.incumbent_id and card.method == "safe_rule"
    assert card.details["safe_return"] == pytest.approx(found.candidate.safe_return)


def test_progress_covers_all_phases_and_never_goes_back(outcome):
    _, reports = outcome
    assert list(dict.fromkeys(phase for phase, _, _ in reports)) == ["loading", "unlearning", "validating", "storing"]
    fractions = [fraction for _, fraction, _ in reports]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert any("keep_loss" in losses for _, _, losses in reports)


def test_the_report_tells_the_repair(outcome, store):
    found, _ = outcome
    data = report_data.load(found.report.with_name("report.json"))
    assert data.verdict == found.validation.verdict
    assert data.incumbent.policy_id == found.candidate.incumbent_id
    assert len(data.candidate.episodes) == 5 and len(data.candidate.episodes[0].path) == 20
    assert data.unlearning.method == "safe_rule" and data.unlearning.losses
    assert len(data.facts["Data"]["forget set"]) == 64
    beside = store.path(found.candidate.policy_id) / "report.json"
    assert json.loads(beside.read_text())["robot"] == "point"


def test_what_was_detected_is_forgotten_and_told_in_the_report(world, store, tmp_path):
    bags, quick = (*world.forget, *world.retain), {"method": "finetune", "options": {"steps": 5}, "episodes": 2}
    request = replace(world.request, forget=(), retain=bags, detect=Detecting(max_share=0.25), **quick)
    found = repair(request, world.spec, store, out=tmp_path / "run")
    detected = found.candidate.about.detected
    assert {Path(each.bag).name for each in detected} >= {Path(bag).name for bag in world.forget}
    assert store.card(found.candidate.policy_id).origin.forgotten
    facts = report_data.load(tmp_path / "run" / "report.json").facts
    names = [f"{Path(each.bag).name}, {each.episode}" for each in detected]
    assert list(facts["Suspected, and forgotten"]) == names
    assert all("not calibrated" in why for why in facts["Suspected, and forgotten"].values())
    assert facts["Data"]["detection"].startswith(f"{len(detected)} episodes suspected and forgotten; not calibrated")


def test_the_same_seed_gives_the_same_repair(world, outcome, store):
    found, _ = outcome
    again = repair(world.request, world.spec, store, workers=2)
    ids = (again.candidate.policy_id, found.candidate.policy_id)
    weights = [(store.path(policy_id) / "weights.safetensors").read_bytes() for policy_id in ids]
    assert weights[0] == weights[1]
    assert again.validation.verdict == found.validation.verdict


def test_a_candidate_that_keeps_too_little_reward_is_refused(world, store):
    found = repair(replace(world.request, min_reward_kept=1.5), world.spec, store)
    assert not found.accepted and "reward kept" in found.message and found.validation is not None


def test_a_method_that_fails_leaves_nothing_in_the_store(world, store, tmp_path):
    reckless = write_bags(drive(world.spec, 12, seed=1, reckless=1.0), world.spec, tmp_path / "reckless")
    before = store.ids()
    request = replace(world.request, retain=tuple(str(path) for path in reckless))
    found = repair(request, world.spec, store, out=tmp_path / "run")
    assert not found.accepted and found.validation is None and found.candidate.policy_id is None
    assert "safe_rule did not find a safe policy" in found.message
    assert store.ids() == before and found.report.exists()


def test_a_stop_leaves_the_store_as_it_was(world, store):
    before = store.ids()

    def stop(phase, fraction, message="", **losses):
        if phase == "unlearning" and fraction > 0.3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        repair(world.request, world.spec, store, progress=stop)
    assert store.ids() == before


def test_validation_seeds_are_distinct_and_depend_on_the_seed():
    seeds = validation_seeds(0, 200)
    assert len(set(seeds)) == 200 and validation_seeds(0, 20) == seeds[:20]
    assert not set(seeds) & set(validation_seeds(1, 200))


# -- bad requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w: {"forget": ()}, UnlearningError, "forget set: expected at least one bag.*name the bags to forget"),
        (lambda w: {"retain": ()}, UnlearningError, "retain set: expected at least one bag"),
        (lambda w: {"forget": w.retain}, UnlearningError, "names all 2 retained bags.*nothing is left"),
        (lambda w: {"forget": (*w.forget, w.retain[0])}, UnlearningError, "found it in both the forget and the retain"),
        (lambda w: {"forget": (*w.forget, w.forget[0])}, UnlearningError, "found it twice in the forget set"),
        (lambda w: {"forget": (w.forget[0] + "x",)}, DataError, "poisoned_000x: expected a rosbag2 bag, found no such"),
        (lambda w: {"forget": (str(Path(w.forget[0]).parent),)}, DataError, "split: expected a rosbag2 bag"),
        (lambda w: {"method": "magic"}, UnlearningError, "method: expected one of .*safe_rule.*found 'magic'"),
        (lambda w: {"policy": "ffffffff"}, StoreError, "policy ffffffff: expected exactly one"),
        (lambda w: {"seed": -1}, UnlearningError, "seed"),
        (lambda w: {"confidence": 0.0}, DataError, "confidence"),
        (lambda w: {"min_reward_kept": 9.0}, DataError, "min_reward_kept"),
        (lambda w: {"episodes": 0}, DataError, "episodes"),
        (lambda w: {"cost_limit": -1.0}, DataError, "cost_limit"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_any_work(world, store, change, error, message):
    with pytest.raises(error, match=message):
        check_request(replace(world.request, **change(world)), world.spec, store)


def test_a_policy_for_another_robot_is_refused(world, store):
    other = parse_spec(POINT_SPEC.replace("high: 3.5", "high: 7.0") + SIMULATION, "other.yaml")
    with pytest.raises(StoreError, match="expected one made for other.yaml"):
        check_request(world.request, other, store)


def test_a_robot_without_simulation_cannot_be_validated(world, store):
    spec = parse_spec(POINT_SPEC, "point.yaml")
    with pytest.raises(SimulationError, match="simulation: expected a simulated robot"):
        check_request(world.request, spec, store)
    assert check_request(world.request, spec, store, validate=False) == store.active()


def test_an_empty_store_has_nothing_to_repair(world, tmp_path):
    with pytest.raises(StoreError, match="active: expected a policy, found none"):
        check_request(world.request, world.spec, PolicyStore(tmp_path / "store"))


def test_a_bag_without_the_needed_topics_is_named(world, store, tmp_path):
    line = "topic: odom, type: nav_msgs/msg/Odometry"
    renamed = parse_spec(POINT_SPEC.replace(line, "topic: odometry, type: nav_msgs/msg/Odometry"), "renamed.yaml")
    (bag,) = write_bags(drive(renamed, 4, seed=2), renamed, tmp_path)
    with pytest.raises(DataError, match="bag_000.*odom"):
        repair(replace(world.request, retain=(str(bag),)), world.spec, store)


def test_forgetting_copies_of_all_retained_episodes_is_refused(world, store):
    request = replace(world.request, forget=world.clean, retain=world.retain)
    with pytest.raises(UnlearningError, match="nothing is left to learn from"):
        repair(request, world.spec, store)
