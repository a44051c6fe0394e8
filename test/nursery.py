"""Forks node processes, so that a test can start and kill hundreds: a start costs no import of rclpy and torch.

    child = shared().fork("saferule_ros.cost_monitor", ["--ros-args", ...], folder, log, {"ROS_DOMAIN_ID": "42"})
    child.send_signal(signal.SIGKILL); child.wait()

Run as a program it is the parent of the nodes, which reads orders on stdin: one JSON object a line. Each child runs
the `main` of its module, as the console script does, in a session of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import resource
import select
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parent
NODE_NICENESS = -10
"""A control loop has priority; where tests may not give it, they measure what else the machine does, too."""
MODULES = ("policy_executor", "cost_monitor", "command_filter", "flight_recorder", "unlearning_server", "sim_robot")


class Child:
    """A forked process, with the methods of subprocess.Popen that tests use."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._handle = os.pidfd_open(pid)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self._code is None and select.select([self._handle], [], [], 0)[0]:
            self._code = self._nursery.order(reap=self.pid)
            os.close(self._handle)
        return self._code

    def wait(self, timeout_s: float = 60.0) -> int:
        """Return the exit code when it has ended."""
        if self._code is None and not select.select([self._handle], [], [], timeout_s)[0]:
            raise TimeoutError(f"process {self.pid} still runs after {timeout_s:g} s")
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without asking."""
        self.send_signal(9)


class Nursery:
    """The parent process, seen from the test."""

    def __init__(self) -> None:
        python_path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())], env={**os.environ, "PYTHONPATH": python_path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        atexit.register(self.close)

    def fork(
        self, module: str, arguments: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str],
        niceness: int = 0, file_limit: int = 0,
    ) -> Child:  # fmt: skip
        """Start `module.main(arguments)` in a folder; file_limit: how large a file it may write [byte], 0 for any."""
        order = {
            "module": module, "arguments": list(arguments), "folder": str(folder), "log": str(log),
            "environment": dict(environment), "niceness": niceness, "limit": file_limit,
        }  # fmt: skip
        return Child(self, self.order(**order))

    def order(self, **order: object) -> int:
        """Send an order and return its answer."""
        self._process.stdin.write(json.dumps(order) + "\n")
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it; its children notice that by themselves."""
        self._process.stdin.close()
        self._process.wait(30.0)
        self._process.stdout.close()


@functools.cache
def shared() -> Nursery:
    """Return the one nursery of this process."""
    return Nursery()


def prefer(niceness: int) -> int:
    """Change the priority of this thread and of its session as far as that is allowed; return what it was.

    Where the kernel shares the cores by session first (autogroup), niceness alone only counts within a session.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
        Path("/proc/self/autogroup").write_text(str(niceness), encoding="ascii")
    return before


def become(order: Mapping[str, object]) -> None:
    """Be the node that an order names, in a fresh child, until it ends."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.setsid()
    prefer(order["niceness"])
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    if order["limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], order["limit"]))
    code = 1
    try:
        importlib.import_module(order["module"]).main(order["arguments"])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.environ["SAFERULE_STOP_WITH_PARENT"] = "1"
    for module in MODULES:
        importlib.import_module(f"saferule_ros.{module}")
    for line in sys.stdin:
        order = json.loads(line)
        if "reap" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["reap"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                become(order)
        print(answer, file=answers)


if __name__ == "__main__":
    main()
