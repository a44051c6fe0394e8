"""The unlearning benchmark: it runs in its tiniest form, survives being killed, and judges only what it measured."""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.unlearning import grid
from benchmarks.unlearning.__main__ import main
from benchmarks.unlearning.jobs import Event, Job, run_jobs
from benchmarks.unlearning.presets import PRESETS
from benchmarks.unlearning.results import Results
from benchmarks.unlearning.screen import Bars, Screen
from benchmarks.unlearning.variants import parse_variant
from saferule_core.errors import DataError, SaferuleError, UnlearningError

ROOT = Path(__file__).parents[1]
TINY = PRESETS["tiny"].plan()


def wait_until(happened, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid):
    """Ids of the processes that `pid` has started."""
    stats = (path.read_text().rsplit(")", 1)[1].split() + [path.parent.name] for path in processes())
    return [int(fields[-1]) for fields in stats if int(fields[1]) == pid and fields[0] != "Z"]


def processes():
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            path.read_text()
        except OSError:
            continue
        yield path


@pytest.mark.timeout(280)
def test_a_run_survives_a_killed_worker_and_ctrl_c(tmp_path, capsys):
    folders = ["--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "benchmarks.unlearning", "run", "--preset", "tiny", "--workers", "1", *folders]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    results = Results(tmp_path / "results")
    wait_until(lambda: results.lines())
    (worker,) = children(run.pid)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: children(run.pid) not in ([], [worker]))
    (successor,) = children(run.pid)
    run.send_signal(signal.SIGINT)
    words = run.communicate(timeout=30)[1]
    assert run.returncode == 130 and "goes on from here" in words and "tried again" in words
    assert not Path(f"/proc/{successor}").exists()
    first = results.lines()
    assert 0 < len(first) < sum(len(methods) for _, methods in TINY)

    with (tmp_path / "results" / "car_run.jsonl").open("a") as file:
        file.write('{"key": "half a li')
    assert main(["run", "--preset", "tiny", "--workers", "1", *folders]) == 0
    lines = results.lines()
    assert lines[: len(first)] == first  # what was there is kept, and not made again
    found = {(line["key"], line["method"]) for line in lines}
    assert found == {(cell.key, name) for cell, methods in TINY for name in methods}
    by_method = {line["method"]: line for line in lines if line["cell"]["knowledge"] == "exact"}
    assert by_method["poisoned"]["cost"] > 100.0 > by_method["safe_rule"]["cost"]
    assert by_method["retrain"]["distance_forget"] == 0.0 < by_method["poisoned"]["distance_forget"]
    assert by_method["safe_rule"]["cpu_seconds"] > 0.0 < by_method["safe_rule"]["retrain_seconds"]

    page = tmp_path / "page" / "RESULTS.md"
    assert main(["table", "--preset", "tiny", *folders[:2], "--out", str(page)]) == 0
    text = page.read_text()
    assert "8 of 8 runs in 2 of 2 cells" in text
    assert f"**{by_method['poisoned']['cost']:.1f}**" in text
    for name in ("scatter", "profile", "intervals", "partial"):
        assert (page.parent / "images" / f"unlearning_{name}.png").stat().st_size > 5000
    assert main(["list", "--preset", "tiny", *folders[:2]]) == 0
    assert "2 of 2 cells are done" in capsys.readouterr().out


class ScriptedBackend:
    """Workers that answer from a list, each time one is started."""

    capacity = 1

    def __init__(self, *scripts):
        self.scripts, self.events, self.requests, self.stopped = list(scripts), [], [], False

    def start(self, number, request):
        self.requests.append(request)
        self.events = [Event(number, answer) for answer in self.scripts.pop(0)]

    def next_event(self):
        event = self.events.pop(0)
        if isinstance(event.answer, BaseException):
            raise event.answer
        return event

    def stop(self):
        self.stopped = True


@pytest.fixture
def run_scripted(tmp_path):
    """Run the first tiny cell on scripted workers; return backend, failures and results."""

    def run(*scripts):
        cell, _ = TINY[0]
        backend, results = ScriptedBackend(*scripts), Results(tmp_path)
        job = Job(cell, ("retrain", "safe_rule"))
        failures = run_jobs([job], backend, results, Screen(1), tmp_path)
        return backend, failures, results

    return run


def line(method, cell=TINY[0][0], **values):
    return {"key": cell.key, "method": method, "cell": {"task": cell.task}, **values}


def test_a_killed_cell_is_tried_again_for_what_it_lacks(run_scripted):
    backend, failures, results = run_scripted(
        [{"progress": "x"}, {"line": line("retrain")}, {"killed": "signal 9"}],
        [{"line": line("safe_rule")}, {"done": True}],
    )
    assert [request["methods"] for request in backend.requests] == [("retrain", "safe_rule"), ("safe_rule",)]
    assert not failures and len(results.lines()) == 2 and backend.stopped


def test_a_cell_that_is_killed_every_time_is_given_up(run_scripted):
    backend, failures, _ = run_scripted(*[[{"killed": "signal 9"}]] * 3)
    assert failures == {TINY[0][0].name: "signal 9"} and len(backend.requests) == 3


def test_a_cell_that_cannot_be_run_is_told_and_not_tried_again(run_scripted):
    backend, failures, _ = run_scripted([{"error": "too few dangerous episodes"}])
    assert list(failures.values()) == ["too few dangerous episodes"] and len(backend.requests) == 1


def test_leaving_early_ends_the_workers(tmp_path):
    backend = ScriptedBackend([KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        run_jobs([Job(*TINY[0])], backend, Results(tmp_path), Screen(1), tmp_path)
    assert backend.stopped


def test_results_keep_the_latest_line_and_refuse_damage(tmp_path):
    results = Results(tmp_path)
    with results.writing():
        results.append(line("retrain", cost=1.0))
        results.append(line("retrain", cost=float("nan")))
        assert results.lines() == [line("retrain", cost=None)]
        with pytest.raises(DataError, match="only run"), Results(tmp_path).writing():
            pass
    missing = results.missing(TINY)
    assert "retrain" not in missing[0][1] and missing[1] == TINY[1]
    assert results.missing(TINY, renewed=["retrain"]) == TINY
    (tmp_path / "car_run.jsonl").write_text("no JSON\n")
    with pytest.raises(DataError, match="car_run.jsonl: line 1"):
        results.lines()


def test_a_plan_names_each_cell_once_and_can_be_narrowed():
    plan = PRESETS["standard"].plan()
    keys = [cell.key for cell, _ in plan]
    assert len(set(keys)) == len(keys) == 5 * (1 + 1 + 2 + 2 + 1 + 1 + 1 + 2 + 2 + 1 + 1 + 2)
    assert [cell.seed for cell, _ in plan[:5]] == [30, 31, 32, 33, 34]
    wanted = {"task": ["ball_circle"], "agent": ["advantage_weighted"], "seed": [31], "knowledge": ["exact"]}
    few = grid.narrowed(plan, {**wanted, "methods": ["retrain"]})
    assert [(cell.name, methods) for cell, methods in few] == [
        ("ball_circle/advantage_weighted/trajectory_15%/exact/seed_31", ("retrain",))
    ]
    assert grid.cell_from(json.loads(json.dumps(Job(*few[0]).request(Path("c"), 0)["cell"]))) == few[0][0]


def test_a_cell_that_two_presets_want_at_different_depth_is_one():
    full = [cell for cell, _ in PRESETS["full"].plan()]
    assert len({dataclasses.replace(cell, deep=False).key for cell in full}) == len(full)
    assert {cell.key for cell, _ in PRESETS["standard"].plan()} <= {cell.key for cell in full}


@pytest.mark.parametrize("field", ["task", "agent", "attack", "knowledge"])
def test_unknown_names_are_refused_before_anything_runs(field):
    cell = grid.cell_from({**dataclasses.asdict(TINY[0][0]), field: "nothing"})
    with pytest.raises(SaferuleError, match="expected .*, found 'nothing'"):
        grid.check([(cell, ("retrain",))])


def test_a_row_says_what_it_knows_of_costs():
    assert parse_variant("finetune").described and not parse_variant("finetune:learned").described
    assert parse_variant("retrain_fast:logged").options == {"fast": True, "repair_labels": False}
    tuned = parse_variant("paper_fixed@learning_rate=0.001,forget_weight=3:logged")
    assert tuned.options == {"learning_rate": 0.001, "forget_weight": 3, "repair_labels": False}
    for wrong in ("nothing", "finetune:nothing", "poisoned:logged", "poisoned@a=1", "paper@steps", "paper@steps=many"):
        with pytest.raises(UnlearningError, match="expected"):
            parse_variant(wrong)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_is_optional(tmp_path, capsys):
    assert main(["run", "--preset", "tiny", "--backend", "ray", "--results", str(tmp_path)]) == 2
    assert "expected the package ray" in capsys.readouterr().err


def test_bars_count_finished_cells():
    with Bars(2) as bars:
        bars.begin(0, "cell [a]")
        bars.show(0, "retrain 40% [training]")
        bars.end(0)
        bars.begin(1, "cell [b]")
        bars.end(1, "killed", again=True)
    assert bars.done == 1 and "left" in bars.left()
