"""A bundle gives back what was saved, and refuses whatever does not fit."""

import hashlib
import json
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from saferule_core import agents
from saferule_core.errors import SpecError, StoreError
from saferule_core.spec import parse_spec
from saferule_core.store import Card, bundle, content


def make_agent(algorithm="advantage_weighted", seed=0):
    torch.manual_seed(seed)
    return agents.build(algorithm, 5, 2, {"hidden": (8, 8)})


@pytest.fixture
def saved(tmp_path, point_spec):
    """A bundle directory."""
    card = Card(seed=3, data={"train": "abc"}, created="2026-01-01")
    bundle.save(tmp_path / "policy", make_agent(), point_spec, card)
    return tmp_path / "policy"


def rewrite(path, content: bytes):
    path.chmod(0o644)
    path.write_bytes(content)


def reseal(directory):
    """Make the hashes right again, as somebody would who changed a file on purpose."""
    files = {name: (directory / name).read_bytes() for name in bundle.CONTENT_FILES}
    rewrite(directory / content.SUMS, content.sum_lines(files))


def edit_weights(directory, change):
    tensors = load_file(directory / content.WEIGHTS)
    change(tensors)
    (directory / content.WEIGHTS).chmod(0o644)
    save_file(tensors, directory / content.WEIGHTS)
    reseal(directory)


@pytest.mark.parametrize("algorithm", agents.algorithms())
def test_an_agent_comes_back_with_all_its_modules(tmp_path, point_spec, algorithm):
    agent = make_agent(algorithm)
    bundle.save(tmp_path / "policy", agent, point_spec, Card(seed=0))
    loaded = bundle.load_agent(tmp_path / "policy", point_spec)
    assert loaded.algorithm == algorithm and loaded.modules().keys() == agent.modules().keys()
    for name, module in agent.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(loaded.modules()[name].state_dict()[key], value)


@pytest.mark.parametrize("algorithm", agents.algorithms())
def test_a_policy_is_the_actor_alone_and_acts_alike(tmp_path, point_spec, algorithm):
    agent = make_agent(algorithm)
    policy_id = bundle.save(tmp_path / "policy", agent, point_spec, Card(seed=0))
    policy = bundle.load_policy(tmp_path / "policy", point_spec)
    assert list(policy.agent.modules()) == ["actor"] and policy.policy_id == policy_id
    observations = np.linspace(-1.0, 1.0, 15, dtype=np.float32).reshape(3, 5)
    actions = policy.act(observations)
    assert actions.shape == (3, 2) and actions.dtype == np.float32
    np.testing.assert_array_equal(actions, agent.act(observations))


def test_dropped_critics_stay_dropped(tmp_path, point_spec):
    agent = make_agent()
    agent.drop("reward_critic", "cost_critic")
    bundle.save(tmp_path / "policy", agent, point_spec, Card(seed=0))
    assert bundle.load_agent(tmp_path / "policy").modules().keys() == agent.modules().keys()


def test_the_card_is_filled_in(saved, point_spec):
    card = bundle.read_card(saved)
    assert (card.seed, card.data, card.created, card.parent) == (3, {"train": "abc"}, "2026-01-01", None)
    assert (card.algorithm, card.obs_dim, card.action_dim) == ("advantage_weighted", 5, 2)
    assert card.spec_hash == point_spec.hash and card.code_version
    assert "actor.normaliser.mean" in card.tensors
    assert bundle.read_spec(saved).hash == point_spec.hash


def test_the_content_id_can_be_recomputed_with_coreutils(saved):
    command = "sha256sum --check --quiet SHA256SUMS && sha256sum SHA256SUMS"
    output = subprocess.run(["sh", "-c", command], cwd=saved, capture_output=True, text=True, check=True).stdout
    assert output.split()[0] == bundle.content_id(saved)


def test_equal_content_has_an_equal_id_and_a_report_does_not_change_it(tmp_path, saved, point_spec):
    again = Card(seed=3, data={"train": "abc"}, created="2026-01-01")
    assert bundle.save(tmp_path / "twin", make_agent(), point_spec, again) == bundle.content_id(saved)
    (saved / bundle.REPORT).write_text("{}")
    assert bundle.content_id(tmp_path / "twin") == bundle.content_id(saved)
    assert bundle.save(tmp_path / "other", make_agent(seed=1), point_spec, again) != bundle.content_id(saved)


@pytest.mark.parametrize("name", bundle.CONTENT_FILES)
def test_any_changed_byte_is_found_in_a_directory_named_by_its_content(saved, point_spec, name):
    entry = saved.rename(saved.with_name(bundle.content_id(saved)))
    bundle.load_policy(entry, point_spec)
    rewrite(entry / name, (entry / name).read_bytes() + b" ")
    with pytest.raises(StoreError, match="content: expected the SHA-256"):
        bundle.load_policy(entry, point_spec)


def test_a_link_to_an_entry_is_checked_as_the_entry(saved, point_spec, tmp_path):
    (tmp_path / "active").symlink_to(saved.rename(tmp_path / hashlib.sha256(b"wrong").hexdigest()))
    with pytest.raises(StoreError, match="the bundle was changed"):
        bundle.load_policy(tmp_path / "active", point_spec)


@pytest.mark.parametrize("name", bundle.CONTENT_FILES)
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(StoreError, match=name):
        bundle.load_agent(saved)


def test_a_missing_bundle_is_named(tmp_path):
    with pytest.raises(StoreError, match="nowhere: expected a policy bundle"):
        bundle.load_agent(tmp_path / "nowhere")


def test_a_policy_for_another_robot_is_refused(saved, point_yaml):
    other = parse_spec(point_yaml.replace("high: 3.5", "high: 7.0"), "other.yaml")
    with pytest.raises(StoreError, match="spec_hash: expected .*other.yaml.* found .*point"):
        bundle.load_policy(saved, other)
    bundle.load_agent(saved)


def edit_shape(tensors):
    tensors["actor.normaliser.mean"] = torch.zeros(6)


def edit_type(tensors):
    tensors["actor.normaliser.mean"] = tensors["actor.normaliser.mean"].double()


def edit_name(tensors):
    tensors["actor.normaliser.middle"] = tensors.pop("actor.normaliser.mean")


def edit_value(tensors):
    tensors["actor.normaliser.mean"][2] = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit_shape, r"actor.normaliser.mean: expected float32 of shape \[5\], found float32 of shape \[6\]"),
        (edit_type, r"actor.normaliser.mean: expected float32 of shape \[5\], found float64"),
        (edit_name, r"actor.normaliser.mean: expected the tensors that the card lists"),
        (edit_value, r"actor.normaliser.mean: expected finite numbers, found nan"),
    ],
)
def test_weights_that_are_not_what_the_card_says_are_refused(saved, change, message):
    edit_weights(saved, change)
    with pytest.raises(StoreError, match=message):
        bundle.load_agent(saved)


@pytest.mark.parametrize("damaged", [b"", b"\xff" * 64, b"\x08\x00\x00\x00\x00\x00\x00\x00not json"])
def test_a_damaged_weights_file_is_refused(saved, damaged):
    rewrite(saved / content.WEIGHTS, damaged)
    reseal(saved)
    with pytest.raises(StoreError, match="expected a safetensors file"):
        bundle.load_agent(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(format=99), "format: expected 1 or 2, found 99"),
        (lambda card: card.update(seed="zero"), r"card.json.*seed"),
        (lambda card: card.update(algorithm="magic"), "expected an agent that can be built"),
        (lambda card: card["hyperparameters"].update(hidden=[9, 9]), "expected weights of advantage_weighted"),
        (lambda card: card["hyperparameters"].update(surprise=1), "surprise"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(saved, change, message):
    card = json.loads((saved / content.CARD).read_bytes())
    change(card)
    rewrite(saved / content.CARD, json.dumps(card).encode())
    reseal(saved)
    with pytest.raises(StoreError, match=message):
        bundle.load_agent(saved)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, point_spec):
    agent = make_agent()
    agent.actor.normaliser.mean[0] = float("inf")
    with pytest.raises(StoreError, match="actor.normaliser.mean"):
        bundle.save(tmp_path / "policy", agent, point_spec, Card(seed=0))
    assert list(tmp_path.iterdir()) == []


def test_an_agent_of_other_sizes_than_the_robot_is_never_saved(tmp_path, point_spec):
    agent = agents.build("advantage_weighted", 4, 2, {"hidden": (8, 8)})
    with pytest.raises(StoreError, match="obs_dim, action_dim: expected 5, 2"):
        bundle.save(tmp_path / "policy", agent, point_spec, Card(seed=0))


def test_nothing_is_overwritten(saved, point_spec):
    with pytest.raises(StoreError, match="expected a new directory"):
        bundle.save(saved, make_agent(), point_spec, Card(seed=0))


def test_a_damaged_spec_is_named(saved):
    rewrite(saved / content.SPEC, b"name: [")
    with pytest.raises(SpecError, match="spec.yaml"):
        bundle.read_spec(saved)
