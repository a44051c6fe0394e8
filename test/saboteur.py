"""A robot description's own code that does harm in a chosen phase of a repair, for tests of what holds it.

    plan(folder / "plan.json", "allocate", phase="unlearning", work=work_dir)      # in the test
    cost: {constraints: [{name: outside_bounds, function: "saboteur:outside"}]}    # in the description
    simulation: {robot: "saboteur:Robot"}

The plan's path is in the environment (SABOTAGE), so that every process that a test starts finds it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
from point_robot import PointRobot

PLAN = "SABOTAGE"


def plan(path, action, phase, work):
    """Let `action` happen in a phase of a repair whose checkpoints lie in a folder of `work`; "" ends it."""
    Path(path).write_text(json.dumps({"action": action, "phase": phase, "work": str(work)}))


def outside(scope):
    """A cost function: 1 beyond |x| = 6 m."""
    sabotage(("loading", "detecting", "unlearning"))
    return (np.abs(scope["x"]) > 6.0).astype(np.float64)


class Robot(PointRobot):
    """The point of point_robot.py."""

    def reset(self, seed):
        sabotage(("validating",))
        return super().reset(seed)


def sabotage(phases):
    """Do what the plan says, if one of these phases runs."""
    try:
        todo = json.loads(Path(os.environ.get(PLAN, "")).read_text())
    except (OSError, ValueError):
        return
    running = {path.read_text() for path in Path(todo["work"]).glob("*/phase")}
    if todo["action"] and todo["phase"] in phases and todo["phase"] in running:
        {"allocate": allocate, "hang": hang, "die": die, "fill": fill, "grow": grow}[todo["action"]]()


def allocate():
    """Take memory without end."""
    held = []
    while True:
        held.append(np.ones(1 << 21))


def grow():
    """Take memory slowly and keep it, as several processes do that stay below a bound of their own."""
    held = np.ones(30 << 20)  # 240 MiB
    time.sleep(600.0)
    return held


def hang():
    """Look at no signal that Python handles."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    time.sleep(600.0)


def die():
    """Die as a process does that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


def fill():
    """From now on no file may grow, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
