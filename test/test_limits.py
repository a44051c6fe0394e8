"""A worker stands back from the nodes, also where the kernel shares the cores by session first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from saferule_ros.limits import LOWEST_PRIORITY, stand_back


def session_niceness(pid):
    """What the kernel says of the session of a process; None where it has no such file, or nothing in it."""
    try:
        line = Path(f"/proc/{pid}/autogroup").read_text(encoding="ascii")
    except OSError:
        return None
    return int(line.split()[-1]) if line.strip() else None


@pytest.fixture
def start():
    processes = []

    def sleeper(**options):
        processes.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], **options))
        return processes[-1].pid

    yield sleeper
    for process in processes:
        process.kill()
        process.wait()


def test_a_worker_at_the_lowest_priority_is_idle_class(start):
    pid = start(start_new_session=True)
    stand_back(pid, LOWEST_PRIORITY)
    assert os.getpriority(os.PRIO_PROCESS, pid) == LOWEST_PRIORITY
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE


@pytest.mark.skipif(session_niceness("self") is None, reason="this kernel does not group processes by session")
def test_the_session_of_a_worker_stands_back_and_that_of_its_caller_does_not(start):
    before, own, shared = session_niceness("self"), start(start_new_session=True), start()
    stand_back(own, LOWEST_PRIORITY)
    stand_back(shared, LOWEST_PRIORITY)
    assert session_niceness(own) == LOWEST_PRIORITY
    assert session_niceness("self") == session_niceness(shared) == before


def test_a_process_that_has_ended_already_is_no_error():
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    stand_back(process.pid, LOWEST_PRIORITY)
