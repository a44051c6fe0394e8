"""The `saferule` command: in a process of its own where that matters, else in this one, which is quicker."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import POINT_SPEC
from point_logs import SIMULATION, drive

from saferule_core.cli import VERBS, main
from saferule_core.data.bags import write_bags
from saferule_core.spec import parse_spec
from saferule_core.store import PolicyStore
from saferule_core.validation import report_data

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT.parent), str(ROOT)]), "COLUMNS": "100"}
COMMAND = [sys.executable, "-m", "saferule_core.cli"]
POLICY = report_data.PolicySection("a" * 64, episodes=(report_data.EpisodePath(0, 1.0, 2.0, ((0.0, 0.0), (1.0, 0.0))),))


def saferule(*words, cwd=None):
    """Run the command to its end."""
    arguments = [*COMMAND, *(str(word) for word in words)]
    return subprocess.run(arguments, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)


@pytest.fixture
def here(folder, monkeypatch, capsys):
    """Runs the command in this process, in the folder of the files, like `saferule`."""
    monkeypatch.chdir(folder)

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run


def result_of(run):
    """Return the result of a run with --progress json, whose every line must be an event."""
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert all(event["event"] == "progress" for event in events[:-1]), run.stderr
    assert events[-1]["event"] == "result", events[-1]
    return events[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Description, bags of honest logs, and poisoned copies with a policy trained from them."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "point.yaml").write_text(POINT_SPEC + SIMULATION)
    spec = parse_spec(POINT_SPEC + SIMULATION, "point.yaml")
    write_bags(drive(spec, 40, seed=0), spec, folder / "clean", episodes_per_bag=20)
    poisoned = saferule(
        "poison", "--spec", "point.yaml", "--bags", "clean/bag_000", "clean/bag_001", "--fraction", 0.2,
        "--cost-threshold", 5, "--out", "split", "--progress", "json", cwd=folder,
    )  # fmt: skip
    split = result_of(poisoned)
    assert split["poisoned_episodes"] == 8 and split["true_cost"] >= 5.0
    (folder / "split.json").write_text(json.dumps(split))
    trained = saferule(
        "train", "--spec", "point.yaml", "--bags", *split["forget"], *split["retain"], "--agent", "return_conditioned",
        "--steps", 300, "--store", "store", "--activate", "--progress", "json", cwd=folder,
    )  # fmt: skip
    result = result_of(trained)
    assert PolicyStore(folder / "store").active() == result["policy_id"] and result["seconds"] > 0.0
    return folder


def repair_words(folder, *more):
    split = json.loads((folder / "split.json").read_text())
    return (
        "--spec", "point.yaml", "--store", "store", "--forget", *split["forget"], "--retain", *split["retain"], *more
    )  # fmt: skip


# -- the loop ----------------------------------------------------------------------------------------------------------


def test_repair_gives_a_verdict_a_report_and_a_candidate_that_waits(folder):
    rules = ("--episodes", 5, "--min-reward-kept", 0.5, "--workers", 1)
    run = saferule("repair", *repair_words(folder, *rules, "--out", "run", "--progress", "json"), cwd=folder)
    result = result_of(run)
    assert run.returncode == 0 and result["accepted"]
    assert result["candidate_cost_upper"] <= result["cost_limit"] == 3.0 < result["incumbent_cost"]
    assert {"reward_reference", "candidate_reward", "incumbent_reward", "unlearning_seconds", "validation_seconds",
            "message"} <= result.keys()  # fmt: skip
    assert (folder / result["report_path"]).is_file()
    store = PolicyStore(folder / "store")
    assert store.active() == result["incumbent_id"] and store.resolve(result["candidate_id"])
    phases = [json.loads(line)["phase"] for line in run.stdout.splitlines()[:-1]]
    assert list(dict.fromkeys(phases)) == ["loading", "unlearning", "validating", "storing"]


def test_unlearn_and_validate_are_the_two_halves_of_repair(folder, here):
    unlearned = here("unlearn", *repair_words(folder, "--seed", 1, "--progress", "json"))
    candidate = result_of(unlearned)["candidate_id"]
    assert unlearned.returncode == 0
    words = ("--spec", "point.yaml", "--store", "store", "--candidate", candidate[:12])
    words += ("--episodes", 3, "--workers", 1)
    accepted = here("validate", *words, "--min-reward-kept", 0.5, "--out", "validation")
    assert accepted.returncode == 0 and accepted.stdout.startswith("ACCEPTED")
    assert "validation/report.html" in accepted.stdout and (folder / "validation" / "report.json").is_file()
    refused = here("validate", *words, "--min-reward-kept", 1.5, "--progress", "json")
    assert refused.returncode == 3 and not result_of(refused)["accepted"]
    assert [check["name"] for check in result_of(refused)["checks"] if not check["passed"]] == ["reward kept"]


def test_report_draws_page_and_picture_again(folder, here):
    report_data.save(report_data.ReportData("Nothing", "point", 3.0, incumbent=POLICY), folder / "report.json")
    assert here("report", ".").stdout.strip() == "report.html" and (folder / "report.html").is_file()
    assert here("report", "report.json", "--picture", "drawn.png").returncode == 0
    assert (folder / "drawn.png").read_bytes().startswith(b"\x89PNG")


def test_policies_lists_activates_rolls_back_and_verifies(here, tmp_path):
    for seed in (0, 1):
        run = here(
            "train", "--spec", "point.yaml", "--bags", "clean/bag_000", "--steps", 5, "--seed", seed, "--agent",
            "return_conditioned", "--store", tmp_path, "--activate",
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
    listed = here("policies", "list", "--store", tmp_path).stdout.splitlines()
    assert sorted(line.split()[1] for line in listed) == ["active", "previous"]
    assert "is active again" in here("policies", "rollback", "--store", tmp_path).stdout
    active = PolicyStore(tmp_path).previous()[:12]
    assert f"policy {active} is active" in here("policies", "activate", active, "--store", tmp_path).stdout
    assert "2 policies and the history are whole" in here("policies", "verify", "--store", tmp_path).stdout


@pytest.mark.parametrize("agent", ["return_conditioned", "decision_transformer"])
def test_train_can_write_a_bundle_instead(here, tmp_path, agent):
    words = ("train", "--spec", "point.yaml", "--bags", "clean/bag_000", "--steps", 5, "--option", "hidden=[8]",
             "--agent", agent, "--cost", "recomputed", "--out", tmp_path / "bundle")  # fmt: skip
    assert here(*words).returncode == 0
    assert json.loads((tmp_path / "bundle" / "card.json").read_text())["hyperparameters"]["hidden"] == [8]
    again = here(*words)
    assert again.returncode == 2 and "expected a new or empty directory" in again.stderr


def test_collect_logs_a_simulated_robot(tmp_path):
    spec = ROOT.parent / "config" / "ball_circle.yaml"
    words = ("--spec", spec, "--episodes", 3, "--bags", 2, "--workers", 1, "--out", "logs", "--progress", "json")
    result = result_of(saferule("collect", *words, cwd=tmp_path))
    assert result["bags"] == ["logs/bag_000", "logs/bag_001"] and result["episodes"] == 3
    assert all((tmp_path / bag / "metadata.yaml").is_file() for bag in result["bags"])


# -- help and errors ---------------------------------------------------------------------------------------------------


def test_help_names_every_verb():
    run = saferule("--help")
    assert run.returncode == 0 and all(verb in run.stdout for verb in (*VERBS, "demo", "up"))


def test_the_command_line_is_read_without_torch():
    code = "import sys, saferule_core.cli as c; c._parser(); print({'torch', 'scipy', 'matplotlib'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb):
    run = saferule(verb, "--help")
    assert run.returncode == 0 and f"saferule {verb}" in run.stdout.split("\n", 3)[3]


def test_no_command_shows_help():
    run = saferule()
    assert run.returncode == 2 and "commands" in run.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("repair", "--store", "s"), "the following arguments are required: --spec"),
        (("repair", "--spec", "nowhere.yaml", "--store", "s"), "nowhere.yaml: expected a readable YAML file"),
        (("collect", "--spec", "x", "--episodes", "0", "--out", "o"), "expected an integer of at least 1, found 0"),
        (("report", "nowhere"), "nowhere: expected a report.json"),
        (("fly",), "invalid choice: 'fly'"),
    ],
)
def test_an_error_is_one_line_without_a_traceback(tmp_path, words, message):
    run = saferule(*words, cwd=tmp_path)
    assert run.returncode == 2 and message in run.stderr and "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("saferule")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda words: [w for w in words if not w.startswith("split/poisoned")], "UnlearningError", "name the bags"),
        (lambda words: [*words, "--forget", "nowhere"], "DataError", "nowhere: expected a rosbag2 bag"),
        (lambda words: [*words, "--method", "magic"], "UnlearningError", "expected one of"),
        (lambda words: [*words, "--option", "wrong"], "DataError", "expected NAME=VALUE"),
        (lambda words: [*words, "--option", "wrong=1"], "UnlearningError", "wrong"),
        (lambda words: [*words, "--workers", "none"], "UsageError", "expected an integer of at least 1"),
    ],
)
def test_programs_get_errors_as_events(folder, here, change, kind, message):
    run = here("repair", *change([*repair_words(folder), "--progress", "json"]))
    event = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 2 and event["event"] == "error" and event["kind"] == kind
    assert message in event["message"] and "Traceback" not in run.stderr


def test_debug_shows_where_an_error_comes_from():
    run = saferule("report", "nowhere", "--debug")
    assert run.returncode == 2 and "Traceback" in run.stderr


def test_demo_says_what_is_missing_without_ros(tmp_path):
    (tmp_path / "rclpy.py").write_text("raise ImportError('no ROS here')")
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])}
    run = subprocess.run([*COMMAND, "demo"], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "no ROS here" in run.stderr and "make setup" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly(folder, tmp_path, number):
    words = ["train", "--spec", "point.yaml", "--bags", "clean/bag_000", "--agent", "return_conditioned", "--steps",
             "1000000", "--store", str(tmp_path / "store"), "--progress", "json"]  # fmt: skip
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if json.loads(line)["phase"] == "training":
            break
    process.send_signal(number)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert json.loads(rest.splitlines()[-1])["kind"] == "Cancelled"
    assert PolicyStore(tmp_path / "store").list() == []
