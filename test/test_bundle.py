"""A bundle gives back what was saved, and refuses whatever does not fit."""

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from saferule_core import agents
from saferule_core.errors import SpecError, StoreError
from saferule_core.spec import parse_spec
from saferule_core.store import Card, bundle, content

GOLDEN = Path(__file__).resolve().parent / "golden"


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


# -- damage, of every kind ---------------------------------------------------------------------------------------------

DAMAGES = {
    "first byte": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "header": lambda data: data[:9] + bytes([data[9] ^ 4]) + data[10:],
    "middle": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "last byte": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut off": lambda data: data[:-1],
    "cut in half": lambda data: data[: len(data) // 2],
    "no text": lambda data: data[: len(data) // 2] + b"\xff" + data[len(data) // 2 :],
    "emptied": lambda data: b"",
    "longer": lambda data: data + b"\0",
}


@pytest.mark.parametrize("named", [True, False], ids=["in a store", "anywhere"])
@pytest.mark.parametrize("name", [*bundle.CONTENT_FILES, content.SUMS])
def test_a_damaged_byte_is_found_wherever_it_is(saved, point_spec, name, named):
    entry = saved.rename(saved.with_name(bundle.content_id(saved))) if named else saved
    whole = (entry / name).read_bytes()
    for damage in DAMAGES.values():
        rewrite(entry / name, damage(whole))
        for load in (lambda: bundle.load_policy(entry, point_spec), lambda: bundle.load_agent(entry)):
            with pytest.raises(StoreError):
                load()
    rewrite(entry / name, whole)
    bundle.load_policy(entry, point_spec)


@given(position=st.floats(0.0, 1.0, exclude_max=True), change=st.integers(1, 255), name=st.sampled_from(
    [*bundle.CONTENT_FILES, content.SUMS]))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_no_byte_can_change(saved, position, change, name):
    whole = (saved / name).read_bytes()
    at = int(position * len(whole))
    rewrite(saved / name, whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
    try:
        with pytest.raises(StoreError):
            bundle.verify(saved)
    finally:
        rewrite(saved / name, whole)


@pytest.mark.parametrize("name", ["weights.pkl", ".hidden", "report.json.bak", "model.pt"])
def test_a_file_that_does_not_belong_to_a_bundle_is_refused(saved, name):
    (saved / name).write_bytes(b"")
    with pytest.raises(StoreError, match=f"{name}: expected nothing in a policy bundle but its own files"):
        bundle.verify(saved)


def test_links_and_folders_in_a_bundle_are_refused(saved, tmp_path):
    (saved / "report.json").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="report.json: expected a regular file, found a link or a folder"):
        bundle.verify(saved)


# -- formats -----------------------------------------------------------------------------------------------------------


def test_a_bundle_of_format_1_stays_readable():
    old = GOLDEN / "bundle_format_1"
    assert bundle.content_id(old) == "39bdec14c94ea608c49d07f90b82030c8dd9c824f5ce4a5d9ff96f6fac7653b6"
    agent = bundle.load_agent(old)
    observations = np.linspace(-1, 1, 15, dtype=np.float32).reshape(3, 5)
    expected = [[0.09741604, -0.33459952], [0.05243346, -0.23204838], [-0.04504249, -0.12576622]]
    np.testing.assert_allclose(agent.act(observations), expected, atol=1e-5)


def test_a_bundle_cannot_say_that_it_is_older_to_get_rid_of_its_probes(saved):
    card = json.loads((saved / content.CARD).read_bytes())
    entry = saved.rename(saved.with_name(bundle.content_id(saved)))
    (entry / content.PROBES).unlink()
    (entry / content.SUMS).unlink()
    rewrite(entry / content.CARD, json.dumps({**card, "format": 1}).encode())
    with pytest.raises(StoreError, match="the bundle was changed"):
        bundle.verify(entry)


# -- probes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", agents.algorithms())
def test_probes_are_answered_alike_after_loading(tmp_path, point_spec, algorithm):
    bundle.save(tmp_path / "policy", make_agent(algorithm), point_spec, Card(seed=0))
    kept = load_file(tmp_path / "policy" / content.PROBES)
    assert kept["observations"].shape == (32, 5) and kept["actions"].shape == (32, 2)
    policy = bundle.load_policy(tmp_path / "policy", point_spec)
    np.testing.assert_allclose(policy.act(kept["observations"].numpy()), kept["actions"].numpy(), atol=1e-6)


def test_code_that_makes_another_policy_of_the_weights_is_refused(saved, point_spec, monkeypatch):
    agent_class = agents.base.agent_class("advantage_weighted")
    answer = agent_class.act
    monkeypatch.setattr(agent_class, "act", lambda self, observations: 1.01 * answer(self, observations))
    with pytest.raises(StoreError, match="probe 0: expected the action that was saved within 0.0001"):
        bundle.load_policy(saved, point_spec)


def test_a_policy_that_answers_nonsense_is_refused(saved, point_spec, monkeypatch):
    agent_class = agents.base.agent_class("advantage_weighted")
    monkeypatch.setattr(agent_class, "act", lambda self, observations: np.full((len(observations), 2), np.nan))
    with pytest.raises(StoreError, match="probe 0"):
        bundle.load_policy(saved, point_spec)


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ({"observations": torch.zeros(3, 4), "actions": torch.zeros(3, 2)}, r"expected observations \(N, 5\)"),
        ({"observations": torch.zeros(0, 5), "actions": torch.zeros(0, 2)}, r"expected observations \(N, 5\)"),
        ({"observations": torch.zeros(3, 5)}, "expected float32 observations and actions"),
        ({"observations": torch.zeros(3, 5), "actions": torch.zeros(3, 2).double()}, "expected float32"),
    ],
)
def test_probes_that_do_not_fit_are_refused(saved, probes, message):
    (saved / content.PROBES).chmod(0o644)
    save_file(probes, saved / content.PROBES)
    reseal(saved)
    with pytest.raises(StoreError, match=message):
        bundle.verify(saved)
