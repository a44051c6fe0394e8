"""A policy of another tool runs, is stored, checked and monitored like any other; nothing here can update it."""

import builtins
import zipfile

import numpy as np
import pytest
from onnx_file import linear_policy
from point_logs import drive

from saferule_core import agents
from saferule_core.agents.onnx_policy import from_file
from saferule_core.cli import main
from saferule_core.control import Controller
from saferule_core.data.bags import read_bags, write_bags
from saferule_core.errors import SaferuleError, StoreError, UnlearningError
from saferule_core.store import Card, PolicyStore, bundle
from saferule_core.unlearning import UnlearningProblem, unlearn
from saferule_core.unlearning.request import RepairRequest, check_request

pytest.importorskip("onnxruntime")

WEIGHT = np.arange(10.0).reshape(5, 2) / 10.0 - 0.4


def write(tmp_path, content):
    path = tmp_path / "policy.onnx"
    path.write_bytes(content)
    return path


@pytest.fixture
def foreign(tmp_path):
    return from_file(write(tmp_path, linear_policy(WEIGHT)), 5, 2)


@pytest.mark.parametrize("batch", ["N", 1])
def test_it_acts_as_the_model_says_for_any_number_of_observations(tmp_path, batch):
    agent = from_file(write(tmp_path, linear_policy(WEIGHT, batch)), 5, 2)
    observations = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    np.testing.assert_allclose(agent.act(observations), np.tanh(observations @ WEIGHT), atol=1e-6)


def test_it_comes_back_from_a_store_checked_like_any_other(tmp_path, foreign, point_spec):
    store = PolicyStore(tmp_path / "store")
    policy_id = store.add(foreign, point_spec, Card(seed=0, method="imported"))
    store.activate(policy_id)
    policy = bundle.load_policy(store.path_to_drive("active"), point_spec)
    observations = np.eye(5, dtype=np.float32)
    np.testing.assert_array_equal(policy.act(observations), foreign.act(observations))
    controller = Controller(point_spec, policy, policy_id)
    assert controller.tick(0).command == {"force_x": 0.0, "force_y": 0.0}  # no sensors yet


def test_a_copy_runs_on_its_own(foreign):
    observations = np.ones((1, 5), dtype=np.float32)
    np.testing.assert_array_equal(foreign.clone().act(observations), foreign.act(observations))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 and so on", "torch.onnx.export"),
        (b"\x80\x02}q\x00.", "torch.onnx.export"),
        (b"no model at all", "that onnxruntime can run"),
        (linear_policy(WEIGHT, external=True), "weights inside"),
        (linear_policy(WEIGHT[:4]), r"input observations: expected float32 of shape \[N or 1, 5\]"),
        (linear_policy(WEIGHT[:, :1]), r"output actions: expected float32 of shape \[N or 1, 2\]"),
        (linear_policy(WEIGHT, batch=3), "N or 1"),
    ],
    ids=["TorchScript", "pickle", "noise", "external data", "input size", "output size", "batch"],
)
def test_a_file_that_is_no_such_policy_is_refused(tmp_path, content, words):
    with pytest.raises(StoreError, match=words) as refusal:
        from_file(write(tmp_path, content), 5, 2)
    assert "policy.onnx" in str(refusal.value)


def test_an_archive_as_torch_writes_it_is_refused(tmp_path):
    path = tmp_path / "policy.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy/data.pkl", b"\x80\x02}q\x00.")
    with pytest.raises(StoreError, match="pickled data"):
        from_file(path, 5, 2)


def test_without_the_runtime_it_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_runtime(name, *rest):
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_runtime)
    with pytest.raises(StoreError, match="pip install onnxruntime"):
        from_file(write(tmp_path, linear_policy(WEIGHT)), 5, 2)


def test_it_is_no_algorithm_to_train_with():
    assert "onnx" not in agents.algorithms()
    assert agents.is_foreign("onnx") and not any(map(agents.is_foreign, agents.algorithms()))
    with pytest.raises(SaferuleError, match="train it there"):
        agents.build("onnx", 5, 2, {"size": 3}).prepare(None)


def test_unlearning_says_that_it_cannot_update_it(foreign, tmp_path, point_spec):
    bags = write_bags(drive(point_spec, 2, seed=1), point_spec, tmp_path / "logs", episodes_per_bag=1)
    retain, forget = (read_bags([bag], point_spec).transitions for bag in bags)
    with pytest.raises(UnlearningError, match="weights cannot be updated here"):
        unlearn("finetune", UnlearningProblem(foreign, retain, forget, cost_limit=3.0, seed=0))


def test_adopted_by_the_command_it_drives_and_a_repair_says_that_it_cannot_update_it(tmp_path, point_yaml, point_spec):
    model, spec, store = write(tmp_path, linear_policy(WEIGHT)), tmp_path / "point.yaml", tmp_path / "store"
    spec.write_text(point_yaml, encoding="utf-8")
    assert main(["policies", "adopt", str(model), "--spec", str(spec), "--store", str(store)]) == 0
    (policy_id,) = PolicyStore(store).ids()
    PolicyStore(store).activate(policy_id)
    request = RepairRequest(forget=("logs/a",), retain=("logs/b",))
    with pytest.raises(UnlearningError, match="weights cannot be updated here"):
        check_request(request, point_spec, PolicyStore(store), validate=False)


def test_adopted_with_bags_it_knows_what_observations_to_expect(tmp_path, point_yaml, point_spec):
    model, spec, store = write(tmp_path, linear_policy(WEIGHT)), tmp_path / "point.yaml", tmp_path / "store"
    spec.write_text(point_yaml, encoding="utf-8")
    bags = write_bags(drive(point_spec, 2, seed=1), point_spec, tmp_path / "logs", episodes_per_bag=1)
    command = ["policies", "adopt", str(model), "--spec", str(spec), "--store", str(store), "--bags", *map(str, bags)]
    assert main(command) == 0
    (policy_id,) = PolicyStore(store).ids()
    ranges = PolicyStore(store).card(policy_id).ranges
    assert len(ranges.low) == 5 and all(low <= high for low, high in zip(ranges.low, ranges.high, strict=True))
