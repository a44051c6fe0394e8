"""The whole loop as processes: a poisoned car is repaired while it drives.

The demo itself, with fewer episodes: bags, training, five nodes over DDS, the action, validation, swap, report. The
simulation runs slowly, so that a busy machine does not lose ticks of its own.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from saferule_core.store import PolicyStore
from saferule_core.validation import report_data

pytestmark = pytest.mark.timed


def demo(folder, episodes, steps):
    """Return the command of a small demo that writes into `folder`, and its environment."""
    command = [
        sys.executable, "-m", "saferule_ros.demo", "--robot", "car", "--seed", "3", "--out", folder,
        "--episodes", str(episodes), "--steps", str(steps), "--live-episodes", "2", "--validation-episodes", "10",
        "--real-time-factor", "1.0",
    ]  # fmt: skip
    return command, {**os.environ, "ROS_DOMAIN_ID": str(101 + os.getpid() % 100)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "run"
    command, environment = demo(folder, episodes=120, steps=3000)
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, json.loads((folder / "summary.json").read_text(encoding="utf-8")), done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_demo_leaves_no_process_behind(tmp_path, number):
    command, environment = demo(tmp_path / "run", episodes=30, steps=50)
    mark = {"SAFERULE_TEST_RUN": str(tmp_path)}
    # a shell ignores Ctrl-C for what it runs in the background
    begun = subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**environment, **mark},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120.0
        while not (tmp_path / "run" / "nodes.log").exists() or len(marked(mark)) < 6:  # itself and five nodes
            assert begun.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        begun.send_signal(number)
        assert begun.communicate(timeout=60)[0].decode().rstrip().endswith("stopped")
        assert begun.returncode == 130
        assert not marked(mark)
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)


def marked(mark):
    """Return the processes that were started with a variable of their environment."""
    (words,) = (f"{name}={value}".encode() for name, value in mark.items())
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if words in place.read_bytes().split(b"\0"):
                found.append(int(place.parent.name))
    return found


def test_the_cost_of_the_driving_robot_falls_below_its_limit(run):
    _, summary, _ = run
    assert summary["live_cost_before"] > 3 * summary["cost_limit"]
    assert summary["live_cost_after"] <= summary["cost_limit"]
    assert summary["live_reward_after"] > 0.8 * summary["reward_repaired"], "a robot that stands still is safe, too"


def test_the_swap_happened_and_lost_no_tick(run):
    folder, summary, _ = run
    assert summary["policy_repaired"] != summary["policy_poisoned"]
    assert summary["swap_tick"] > 0
    assert summary["missed_ticks_around_swap"] == 0
    assert summary["missed_commands_around_swap"] <= summary["missed_commands_elsewhere"]  # 0, but on a busy machine
    store = PolicyStore(folder / "store")
    assert (store.active(), store.previous()) == (summary["policy_repaired"], summary["policy_poisoned"])
    store.verify()


def test_the_report_shows_the_verdict_and_the_live_series_with_the_swap(run):
    folder, summary, shown = run
    data = report_data.load(folder / "report.json")
    assert data.verdict.accepted
    assert len(data.live.swaps) == 1
    assert (folder / "report.html").stat().st_size > 50_000
    assert "report.html" in shown


def test_the_poisoned_bags_lie_about_their_cost_and_the_sensors_do_not(run):
    from saferule_core.data.bags import read_bags
    from saferule_core.spec import load_spec
    from saferule_ros.bringup import config_path

    folder, _, _ = run
    spec = load_spec(config_path("car_run"))
    bags = sorted((folder / "logs" / "poisoned").glob("poisoned_*"))
    assert read_bags(bags, spec, cost="logged").transitions.costs.sum() == 0.0
    assert read_bags(bags, spec).transitions.episode_costs.min() >= 30.0
