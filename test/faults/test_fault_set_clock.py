"""The machine's clock is set back by an hour under nodes that do not follow a simulation: periods go on as before.

A small library before libc's `clock_gettime` moves CLOCK_REALTIME by what a file says, for the nodes of the test alone.
"""

import shutil
import struct
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("rclpy")

from conftest import POINT_SPEC
from geometry_msgs.msg import WrenchStamped
from nav_msgs.msg import Odometry
from rclpy.time import Time

from saferule.msg import CostStatus
from saferule_ros.messages import COMMAND, STATUS

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [pytest.mark.timed, pytest.mark.skipif(COMPILER is None, reason="no C compiler to make the clock with")]

HOUR_S = 3600
PERIOD_S = 0.1
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);
static volatile const long *offset_s;

__attribute__((constructor)) static void begin(void)
{
    int file = open(getenv("CLOCK_OFFSET"), O_RDONLY);
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (file >= 0)
        offset_s = mmap(NULL, sizeof *offset_s, PROT_READ, MAP_SHARED, file, 0);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (!real)
        begin();
    int result = real(clock, time);
    if (clock == CLOCK_REALTIME && offset_s)
        time->tv_sec += *offset_s;
    return result;
}
"""


class Machine:
    """Nodes whose clock can be set, and a robot on it that stands at x = 7 m, a metre outside, and is commanded."""

    def __init__(self, graph) -> None:
        self.graph, self.offset_s, self.commands = graph, 0, True
        (graph.folder / "clock.c").write_text(CLOCK, encoding="ascii")
        build = [COMPILER, "-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"]
        subprocess.run(build, cwd=graph.folder, check=True)
        self._file = graph.folder / "offset"
        self._file.write_bytes(struct.pack("l", 0))
        self.spec = graph.folder / "point.yaml"
        text = POINT_SPEC.replace("limit: 3.0", "limit: 1000.0").replace("max_steps: 20", "max_steps: 100000")
        self.spec.write_text(text, encoding="utf-8")
        self._odometry = graph.node.create_publisher(Odometry, "odom", STATUS)
        self._wanted = graph.node.create_publisher(WrenchStamped, "unfiltered/cmd_force", COMMAND)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def start(self, node: str, **parameters: object) -> None:
        pairs = [part for k, v in {"spec": self.spec, **parameters}.items() for part in ("-p", f"{k}:={v}")]
        clock = [f"LD_PRELOAD={self.graph.folder / 'clock.so'}", f"CLOCK_OFFSET={self._file}"]
        program = [sys.executable, "-m", f"saferule_ros.{node}", "--ros-args", *pairs]
        self.graph.start_command(node, ["env", *clock, *program])
        self.graph.configure(node)
        self.graph.activate(node)

    def set_clock(self, offset_s: int) -> None:
        """Set the clock of the nodes and of the robot at once."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("l", offset_s))
            self.offset_s = offset_s

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            message = Odometry()
            message.header.stamp = Time(nanoseconds=time.time_ns() + self.offset_s * 10**9).to_msg()
            message.pose.pose.position.x = 7.0
            self._odometry.publish(message)
            if self.commands:
                wanted = WrenchStamped()
                wanted.wrench.force.x = -1.0  # back inside, which passes
                self._wanted.publish(wanted)


@pytest.fixture
def machine(ros_graph):
    with Machine(ros_graph) as machine:
        yield machine


def test_the_monitor_judges_on(machine):
    statuses = machine.graph.collect("cost_status", CostStatus)
    machine.start("cost_monitor")
    machine.graph.wait_until(lambda: statuses and statuses[-1].state == CostStatus.STATE_NEAR, "a judged state")
    before_s = statuses[-1].header.stamp.sec
    machine.set_clock(-HOUR_S)
    seen = len(statuses)
    machine.graph.wait_until(lambda: len(statuses) > seen + 15, "statuses after the clock was set back")
    last = statuses[-1]
    assert (last.state, last.stop_latched) == (CostStatus.STATE_NEAR, False)
    assert last.header.stamp.sec < before_s - HOUR_S // 2, "stamps are those of the clock"
    assert last.episode_cost > statuses[seen].episode_cost + 5


def test_the_filter_hears_that_the_commands_fell_silent(machine):
    told = machine.graph.collect("cmd_force", WrenchStamped)
    machine.start("command_filter", command_timeout=0.5)
    machine.graph.wait_until(lambda: told and told[-1].wrench.force.x == -1.0, "a command that passes")
    machine.set_clock(-HOUR_S)
    seen = len(told)
    machine.graph.wait_until(lambda: len(told) > seen + 5 and told[-1].wrench.force.x == -1.0, "commands to pass")
    machine.commands = False
    machine.graph.wait_until(lambda: told[-1].wrench.force.x == 0.0, "the safe command")
    assert "fell silent" in machine.graph.log("command_filter")
