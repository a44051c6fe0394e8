"""How the control loop keeps time, in processes over DDS: while the computer is idle, unlearns, and validates.

    rows = lateness(rates=(50.0, 100.0), seconds=5.0, rounds=3)
    row = swaps(count=100), stops(count=100)

One policy_executor with a 2x256 network in wall time. The conditions take turns in short blocks within one run, so that
whatever else the machine does meets all of them alike. Load is confined as unlearning_server confines its worker.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rclpy.serialization import deserialize_message

from saferule.msg import PolicyStatus
from saferule_core.store import PolicyStore
from saferule_ros.limits import LOWEST_PRIORITY, Limits, end_group

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "test"), str(ROOT / "test" / "faults")]

from rig import Rig, add_constant_policy  # noqa: E402 - the tests' robot, which is no installed package
from ros_testing import EVERYTHING  # noqa: E402

CONDITIONS = ("idle", "unlearning", "validation")
HIDDEN = (256, 256)
SENSOR_HZ = 20.0
SETTLE_S = 0.5
BLOCKS = 10


class Loads:
    """The two loads as processes that stand still until they are wanted."""

    def __init__(self) -> None:
        limits, self._groups = Limits(niceness=LOWEST_PRIORITY), {}
        for kind in CONDITIONS[1:]:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.runtime_load", kind], cwd=ROOT, env=limits.environment(),
                stdout=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
            self._groups[kind] = process
        for kind, process in self._groups.items():
            if process.stdout.readline() != "working\n":
                raise RuntimeError(f"load {kind}: expected it to work, found that it ended; see above")
            for pid in (process.pid, *_children(process.pid)):  # only now: on a busy machine it would never begin
                limits.confine(pid)
            os.killpg(process.pid, signal.SIGSTOP)

    @contextlib.contextmanager
    def running(self, condition: str) -> Iterator[None]:
        """Let the load of a condition work inside the block."""
        process = self._groups.get(condition)
        if process is not None:
            os.killpg(process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            if process is not None:
                os.killpg(process.pid, signal.SIGSTOP)

    def close(self) -> None:
        """End both, with the simulations that they started."""
        for process in self._groups.values():
            os.killpg(process.pid, signal.SIGCONT)
            end_group(process.pid)
            process.wait()
            process.stdout.close()


def lateness(rates: tuple[float, ...], seconds: float, rounds: int, priority: int) -> list[dict[str, object]]:
    """Return per rate and condition: quantiles of a tick's lateness [ms], their ratios to idle, missed ticks, CPU.

    priority: the executor's parameter `realtime_priority`.
    """
    rows = []
    loads = Loads()
    try:
        for rate in rates:
            rows += _lateness_at(rate, seconds, rounds, priority, loads)
    finally:
        loads.close()
    return rows


def _lateness_at(
    rate: float, seconds: float, rounds: int, priority: int, loads: Loads
) -> list[dict[str, object]]:
    late: dict[str, list[float]] = {condition: [] for condition in CONDITIONS}
    missed, cpu = dict.fromkeys(CONDITIONS, 0), dict.fromkeys(CONDITIONS, 0.0)
    with tempfile.TemporaryDirectory() as folder, _executor(Path(folder), rate, priority) as (rig, heard):
        for number in range(rounds):
            turns = CONDITIONS[number % 3 :] + CONDITIONS[: number % 3]
            for condition in turns:
                with loads.running(condition):
                    time.sleep(SETTLE_S)
                    heard.clear()
                    before, begun = _cpu_seconds(rig.pid("policy_executor")), time.monotonic()
                    time.sleep(seconds)
                    cpu[condition] += (_cpu_seconds(rig.pid("policy_executor")) - before) / (time.monotonic() - begun)
                    statuses = [deserialize_message(data, PolicyStatus) for data in list(heard)]
                if statuses[-1].state != PolicyStatus.STATE_RUNNING:
                    raise RuntimeError(f"expected the policy to drive, found: {statuses[-1].message}")
                late[condition] += [status.lateness for status in statuses]
                missed[condition] += statuses[-1].missed_ticks - statuses[0].missed_ticks
    idle = np.percentile(late["idle"], [50, 99, 99.9])
    rows = []
    for condition in CONDITIONS:
        found = np.percentile(late[condition], [50, 99, 99.9])
        rows.append({
            "rate_hz": rate, "realtime_priority": priority, "condition": condition,
            "ticks": len(late[condition]), "missed": missed[condition],
            **{f"{name}_ms": round(1e3 * value, 3) for name, value in zip(("p50", "p99", "p99.9"), found, strict=True)},
            "p99_to_idle": round(float(found[1] / idle[1]), 2), "cpu_share": round(cpu[condition] / rounds, 3),
        })  # fmt: skip
    return rows


@contextlib.contextmanager
def _executor(folder: Path, rate: float, priority: int) -> Iterator[tuple[Rig, list[bytes]]]:
    """A policy_executor that drives, and the statuses that it publishes, undecoded."""
    with Rig(folder, rate, sensor_hz=SENSOR_HZ, listens=False, max_age_s=5.0) as rig:
        store = PolicyStore(rig.store.root)
        store.activate(add_constant_policy(store, rig.spec, 0.5, HIDDEN))
        rig.start("policy_executor", realtime_priority=priority)
        heard: list[bytes] = []
        rig.node.create_subscription(PolicyStatus, "policy_status", heard.append, EVERYTHING, raw=True)
        rig.wait_until(lambda: len(heard) > rate, "the loop's statuses")
        yield rig, heard


def swaps(count: int, rate: float = 100.0) -> dict[str, object]:
    """Return how long a swap between 2x256 networks takes: from request to answer, and between two ticks [ms]."""
    with tempfile.TemporaryDirectory() as folder, Rig(Path(folder), rate, sensor_hz=SENSOR_HZ, max_age_s=5.0) as rig:
        pair = [add_constant_policy(rig.store, rig.spec, action, HIDDEN) for action in (0.5, -0.25)]
        rig.start("policy_executor")
        rig.wait_until(rig.is_driving, "the policy to drive")
        missed, seconds = {True: 0, False: 0}, []
        for block in range(2 * BLOCKS):  # in turns with and without swaps, each as long as the other
            swapping, before = block % 2 == 0, rig.robot.statuses[-1].missed_ticks
            block_begun = time.monotonic()
            if swapping:
                for number in range(count // BLOCKS):
                    begun = time.monotonic()
                    if not (answer := rig.swap(pair[number % 2])).success:
                        raise RuntimeError(f"expected a swap, found: {answer.message}")
                    seconds.append(time.monotonic() - begun)
                    rig.wait_for_ticks(3)
                length = time.monotonic() - block_begun
            else:
                time.sleep(length)
                rig.wait_for_ticks(1)
            missed[swapping] += rig.robot.statuses[-1].missed_ticks - before
        between = [status.last_swap_duration for status in rig.robot.statuses if status.swaps]
    return {
        "rate_hz": rate, "swaps": len(seconds), "missed_ticks": missed[True], "missed_ticks_without": missed[False],
        **_spread("request_to_answer_ms", seconds),
        "longest_between_two_ticks_ms": round(1e3 * max(between), 3),
    }  # fmt: skip


def stops(count: int, rate: float = 50.0) -> dict[str, object]:
    """Return how long it takes from a state beyond the limit to the safe command [control periods, wall clock]."""
    draw, periods = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder, Rig(Path(folder), rate) as rig:
        rig.start("cost_monitor", "policy_executor")
        rig.robot.begin_episode("episode_0")
        for _ in range(count):
            rig.robot.mend()
            rig.deactivate("policy_executor")  # so that its ticks lie elsewhere between those of monitor and robot
            time.sleep(draw.uniform(0.0, 1.0 / rate))
            rig.activate("policy_executor")
            rig.rearm()
            time.sleep(draw.uniform(0.0, 5.0 / rate))
            seen, begun, rig.robot.x = len(rig.robot.commands), time.monotonic(), 7.0
            rig.robot.say(7.0)
            rig.wait_until(lambda seen=seen: any(c.x == 0.0 for c in rig.robot.commands[seen:]), "a safe command")
            new = [command for command in rig.robot.commands[seen:] if command.at > begun]
            periods.append((next(command.at for command in new if command.x == 0.0) - begun) * rate)
    p50, p95, worst = np.percentile(periods, [50, 95, 100])
    return {
        "rate_hz": rate, "violations": count, "within_two_periods": round(float(np.mean(np.array(periods) <= 2)), 3),
        "p50_periods": round(p50, 2), "p95_periods": round(p95, 2), "max_periods": round(worst, 2),
    }  # fmt: skip


def _spread(name: str, seconds: list[float]) -> dict[str, float]:
    values = np.percentile(seconds, [50, 99])
    return {f"p50_{name}": round(1e3 * values[0], 1), f"p99_{name}": round(1e3 * values[1], 1)}


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def _cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
