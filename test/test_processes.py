"""Nodes as plain processes: their output, and that nothing of them is left."""

import os
import subprocess
import sys
import time

import pytest

from saferule_ros import processes
from saferule_ros.processes import NodeProcess, stop
from saferule_ros.worker import LOWEST_PRIORITY, stand_back

STUBBORN = """
import signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
time.sleep(60)
"""

LISTENING = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
try:
    print("up")
    time.sleep(60)
except KeyboardInterrupt:
    print("bye")
"""


@pytest.fixture
def lines():
    return []


@pytest.fixture
def start(lines):
    """Starts a Python program as a node; all are ended after the test."""
    started = []

    def run(program, **environment):
        started.append(NodeProcess("node", [sys.executable, "-u", "-c", program], environment, lines.append))
        return started[-1]

    yield run
    for process in started:
        process.end()


def wait_for(condition, timeout_s=20.0):
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_output_carries_the_name_of_the_node(start, lines):
    process = start("import sys; print('one'); print('two', file=sys.stderr)")
    wait_for(lambda: len(lines) == 2)
    assert sorted(lines) == ["[node] one", "[node] two"]
    assert sorted(process.last_words().splitlines()) == ["one", "two"]


def test_a_node_finds_what_it_is_given_in_its_environment(start, lines):
    start("import os; print(os.environ['GIVEN'], os.environ['PATH'])", GIVEN="here")
    wait_for(lambda: lines)
    assert lines == [f"[node] here {os.environ['PATH']}"]


def test_a_silent_node_has_no_last_words(start):
    process = start("")
    wait_for(lambda: process.exit_code == 0)
    assert process.last_words() == "(no output)"


def test_ctrl_c_is_enough_for_a_node_that_listens(start):
    process = start(LISTENING)
    wait_for(lambda: process.tail)
    stop([process])
    assert process.exit_code == 0 and list(process.tail) == ["up", "bye"]


def test_a_node_that_does_not_listen_is_killed_with_its_children(start, monkeypatch):
    monkeypatch.setattr(processes, "INTERRUPT_S", 0.2)
    monkeypatch.setattr(processes, "TERMINATE_S", 0.2)
    process = start(STUBBORN)
    wait_for(lambda: process.tail)
    child = int(process.tail[0])
    assert is_running(child)
    stop([process])
    assert process.exit_code == -9
    wait_for(lambda: not is_running(child))


def test_stopping_what_has_ended_does_nothing(start):
    process = start("raise SystemExit(3)")
    wait_for(lambda: process.exit_code is not None)
    stop([process])
    assert process.exit_code == 3


def test_a_worker_at_the_lowest_priority_gives_way_at_once():
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        usual = os.sched_getscheduler(sleeper.pid)
        stand_back(sleeper.pid, 10)
        assert os.getpriority(os.PRIO_PROCESS, sleeper.pid) == 10
        assert os.sched_getscheduler(sleeper.pid) == usual
        stand_back(sleeper.pid, LOWEST_PRIORITY)
        assert os.sched_getscheduler(sleeper.pid) == os.SCHED_IDLE
    finally:
        sleeper.kill()
        sleeper.wait()
