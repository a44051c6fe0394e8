"""A repair that breaks off leaves whole files, and goes on from there to the result that it would have had."""

import json
from dataclasses import dataclass, replace

import pytest
from conftest import POINT_SPEC
from point_logs import SIMULATION, drive

from saferule_core import agents, candidate, repair_data
from saferule_core.checkpoints import SCRATCH, Checkpoints
from saferule_core.data.bags import read_bags, write_bags
from saferule_core.errors import Cancelled, DataError
from saferule_core.repair import repair, resume
from saferule_core.spec import RobotSpec, parse_spec
from saferule_core.store import Card, PolicyStore
from saferule_core.unlearning.request import Detecting, RepairRequest, TimeRange


@dataclass(frozen=True)
class World:
    """A robot with a policy, bags, and a sound request."""

    spec: RobotSpec
    store: PolicyStore
    request: RepairRequest


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    spec = parse_spec(POINT_SPEC + SIMULATION, "point.yaml")
    (retain,) = write_bags(drive(spec, 20, seed=1, reckless=0.2), spec, folder / "retain", episodes_per_bag=20)
    (forget,) = write_bags(drive(spec, 4, seed=2, reckless=1.0), spec, folder / "forget", episodes_per_bag=4)
    data = read_bags([retain, forget], spec).transitions
    store = PolicyStore(folder / "store")
    store.activate(store.add(agents.train("return_conditioned", data, cost_limit=3.0, seed=0, steps=50), spec, Card(0)))
    options = {"method": "finetune", "options": {"steps": 20}, "episodes": 3, "cost_limit": 20.0}
    return World(spec, store, RepairRequest((str(forget),), (str(retain),), min_reward_kept=0.0, **options))


@pytest.fixture(scope="module")
def expected(world):
    """What comes of the request if nothing happens to it."""
    return repair(world.request, world.spec, world.store)


def broken_off(world, folder, phase, enough=0.0, request=None):
    """Let a repair break off in a phase, as if its process had died."""

    def die(at, fraction, message="", **losses):
        if at == phase and fraction >= enough:
            raise Cancelled("died")

    with pytest.raises(Cancelled):
        repair(request or world.request, world.spec, world.store, progress=die, keep=Checkpoints(folder))
    return Checkpoints(folder)


@pytest.mark.parametrize(
    ("phase", "files"),
    [
        ("loading", {"request.json", "phase"}),
        ("unlearning", {"request.json", "phase", "data.json", "retain.safetensors", "forget.safetensors"}),
        (
            "validating",
            {"request.json", "phase", "data.json", "retain.safetensors", "forget.safetensors", "candidate.json"},
        ),
    ],
)
def test_it_goes_on_from_every_phase_to_the_same_result(world, expected, tmp_path, phase, files):
    keep = broken_off(world, tmp_path / "broken", phase)
    assert {path.name for path in keep.folder.iterdir()} == files and keep.phase == phase and keep.broke_off
    found = resume(world.spec, world.store, Checkpoints(keep.folder))
    assert found.validation.verdict == expected.validation.verdict
    assert found.candidate.result.message == expected.candidate.result.message
    weights = [world.store.path(o.candidate.policy_id) / "weights.safetensors" for o in (found, expected)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_what_was_read_is_not_read_again_and_what_was_driven_not_driven_again(world, tmp_path, monkeypatch):
    keep = broken_off(world, tmp_path / "broken", "validating", enough=0.8)
    driven = (keep.folder / "incumbent.jsonl").read_bytes()
    assert len(keep.records("incumbent")) == 3 and len(keep.records("candidate")) < 3

    def fail(*_arguments, **_options):
        raise AssertionError("done before")

    monkeypatch.setattr(candidate, "read_data", fail)
    monkeypatch.setattr(candidate, "unlearn", fail)
    assert resume(world.spec, world.store, keep).accepted
    assert (keep.folder / "incumbent.jsonl").read_bytes() == driven


def test_unlearned_twice_it_is_one_policy(world, tmp_path):
    """A crash between the store and the checkpoint must not leave two candidates."""
    keep = broken_off(world, tmp_path / "broken", "validating", request=replace(world.request, seed=7))
    before = world.store.ids()
    (keep.folder / "candidate.json").unlink()
    assert resume(world.spec, world.store, keep).candidate.policy_id in before
    assert world.store.ids() == before


def test_lines_that_were_cut_off_are_driven_again(world, tmp_path):
    keep = broken_off(world, tmp_path / "broken", "validating", enough=0.8)
    lines = keep.folder / "incumbent.jsonl"
    lines.write_bytes(lines.read_bytes()[:-20])
    assert len(keep.records("incumbent")) == 2
    assert resume(world.spec, world.store, keep).accepted and len(keep.records("incumbent")) == 3


def test_damaged_data_is_read_again(world, tmp_path):
    keep = broken_off(world, tmp_path / "broken", "unlearning")
    data = keep.folder / "retain.safetensors"
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    assert keep.data() is None and resume(world.spec, world.store, keep).accepted


def test_a_request_that_has_ended_does_not_go_on(world, tmp_path):
    keep = broken_off(world, tmp_path / "broken", "unlearning")
    keep.finish({"accepted": False})
    assert not keep.broke_off and not list(keep.folder.glob("*.safetensors"))
    assert repair_data.describe(keep.folder).facts["forget episodes"].startswith("4 (")
    with pytest.raises(DataError, match="found one that has ended"):
        resume(world.spec, world.store, keep)


def test_a_changed_robot_description_is_refused(world, tmp_path):
    keep = broken_off(world, tmp_path / "broken", "loading")
    changed = parse_spec(world.spec.text.replace("limit: 3.0", "limit: 2.0"), "point.yaml")
    with pytest.raises(DataError, match="the robot description was changed"):
        resume(changed, world.store, keep)


def test_a_folder_holds_one_request(world, tmp_path):
    keep = broken_off(world, tmp_path / "broken", "loading")
    with pytest.raises(DataError, match="expected a new folder"):
        repair(world.request, world.spec, world.store, keep=keep)
    with pytest.raises(DataError, match="found none; ask anew"):
        resume(world.spec, world.store, Checkpoints(tmp_path / "nothing"))


def test_the_reason_is_kept_until_it_goes_on(world, tmp_path):
    keep = broken_off(world, tmp_path / "broken", "unlearning")
    assert keep.fail("the worker was killed").phase == "unlearning"
    assert Checkpoints(keep.folder).failure.message == "the worker was killed"
    resume(world.spec, world.store, keep)
    assert keep.failure is None


def test_what_was_half_written_goes(world, tmp_path):
    keep = broken_off(world, tmp_path / "broken", "unlearning")
    whole = {path.name for path in keep.folder.iterdir()}
    (keep.folder / SCRATCH).mkdir()
    (keep.folder / SCRATCH / "column.bin").write_bytes(b"half")
    (keep.folder / ".retain.safetensors-0a1b2c3d").write_bytes(b"half")
    keep.tidy()
    assert {path.name for path in keep.folder.iterdir()} == whole


def test_the_whole_request_survives_the_disk(world, tmp_path):
    bag = world.request.retain[0]
    request = replace(
        world.request, ranges=(TimeRange(bag, 0.0, 0.1, False),), detect=Detecting(0.2, 0.1), options={"steps": 5}
    )
    keep = Checkpoints(tmp_path / "kept")
    begun = keep.begin(request, world.spec, "a" * 64)
    assert Checkpoints(tmp_path / "kept").resume(world.spec) == begun == replace(request, policy="a" * 64)


def test_a_policy_that_kept_part_of_a_bag_is_not_marked_by_forgetting_the_rest(world, tmp_path):
    retain = world.request.retain[0]
    request = replace(world.request, forget=(), ranges=(TimeRange(retain, 0.0, 0.1),), seed=3)
    found = repair(request, world.spec, world.store, out=tmp_path / "run")
    store, policy_id = world.store, found.candidate.policy_id
    before = store.active()
    store.activate(policy_id)
    assert store.marks(policy_id) == () and {mark.kind for mark in store.marks(before)} == {"superseded"}
    other = store.add(agents.build("return_conditioned", 5, 2, {"hidden": (4,)}), world.spec, Card(
        seed=9, origin=replace(store.card(policy_id).origin, forgotten=()), created="2026-01-01T00:00:00+00:00"))
    assert [mark.kind for mark in store.marks(other)] == ["poisoned"], "without a list it learned from the whole bag"
    facts = json.loads((tmp_path / "run" / "report.json").read_text())["facts"]["Data"]
    assert "(1 episodes of it)" in facts["forget bags"] and "(19 episodes of it)" in facts["retain bags"]
