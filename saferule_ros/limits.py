"""What a worker process may take of the robot's computer: priority, memory and threads; and how it is ended at once.

    process = subprocess.Popen(command, env=limits.environment(scratch), start_new_session=True)
    limits.confine(process.pid)
    ...
    end_group(process.pid)                    # the worker and the simulations that it started

Memory is bounded twice. The kernel bounds what each process allocates (RLIMIT_DATA: the address space, which RLIMIT_AS
bounds, is mostly code that libraries map and that needs no memory), so that one that wants too much gets an error and
can say so. And `resident` tells what all of them hold together, for whoever watches. Should the computer run out of
memory all the same, Linux takes the worker before any node.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

LOWEST_PRIORITY = 19
MOST_KILLABLE = "1000"
PROC = Path("/proc")


@dataclass(frozen=True)
class Limits:
    """niceness: 0 to 19. memory_bytes: of a worker and all it starts, 0 for no bound. threads: of its arithmetic."""

    niceness: int = 10
    memory_bytes: int = 0
    threads: int = 1

    def environment(self, scratch: Path | None = None) -> dict[str, str]:
        """Return the environment of a worker, which ends when this process has died; scratch: for temporary files."""
        threads = {f"{name}_NUM_THREADS": str(self.threads) for name in ("OMP", "MKL", "OPENBLAS")}
        places = {} if scratch is None else {"TMPDIR": str(scratch)}
        return {**os.environ, **threads, **places, "SAFERULE_STOP_WITH_PARENT": str(os.getpid())}

    def confine(self, pid: int) -> None:
        """Bound a process that has just started; those that it starts inherit it."""
        stand_back(pid, self.niceness)
        with contextlib.suppress(OSError):  # it ended already, or this system has no such file
            (PROC / str(pid) / "oom_score_adj").write_text(MOST_KILLABLE, encoding="ascii")
        if self.memory_bytes and hasattr(resource, "prlimit"):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_DATA, (self.memory_bytes, self.memory_bytes))


def stand_back(pid: int, niceness: int) -> None:
    """Lower a process's priority; at the lowest niceness it runs only where no node wants the core.

    Niceness alone shares a core by weights, and a node that wakes up for a tick may wait for a slice of the worker's
    to end, on each hop from robot to policy and back. Linux's idle class gives way at once. Where the kernel shares the
    cores by session first (autogroup, as desktops do), both only count within a session, so the session of a process
    that leads one stands back, too.
    """
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
        if os.getsid(pid) == pid:
            with contextlib.suppress(OSError):  # this system has no such file
                (PROC / str(pid) / "autogroup").write_text(str(niceness), encoding="ascii")
        if niceness == LOWEST_PRIORITY and hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def group(leader: int) -> list[int]:
    """Return the processes of a group, as far as they live; those whose parent has died belong to it, too."""
    found = []
    for entry in os.listdir(PROC):
        with contextlib.suppress(ValueError, ProcessLookupError, PermissionError):
            if os.getpgid(int(entry)) == leader:
                found.append(int(entry))
    return found


def resident(leader: int) -> int:
    """Return how much memory a group of processes holds for itself [bytes]; 0 where nothing tells."""
    total = 0
    for each in group(leader):
        with contextlib.suppress(OSError):
            for line in (PROC / str(each) / "status").read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1]) * 1024
    return total


def end_group(leader: int) -> None:
    """Kill a group of processes.

    Giving its memory back is work that a process does itself, so one of the idle class may wait long for a core to die
    on. It gets an ordinary place first, where this process may give it (root, CAP_SYS_NICE, or RLIMIT_NICE).
    """
    for each in group(leader):
        with contextlib.suppress(OSError, AttributeError):
            if os.sched_getscheduler(each) == os.SCHED_IDLE:
                os.sched_setscheduler(each, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, each, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
