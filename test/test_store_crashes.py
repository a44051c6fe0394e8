"""A writer is killed at random moments, while others read: what drives is always whole, and no version is lost.

SAFERULE_KILLS sets how often; the long form takes 200 and more.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from saferule_core import agents
from saferule_core.store import Card, PolicyStore, bundle
from saferule_core.store.checking import check_store

ROOT = Path(__file__).resolve().parent
KILLS = int(os.environ.get("SAFERULE_KILLS", "12"))


@pytest.fixture
def store(tmp_path, point_spec):
    """A store whose first policy is active."""
    store = PolicyStore(tmp_path / "store")
    torch.manual_seed(0)
    agent = agents.build("return_conditioned", 5, 2, {"hidden": (4,)})
    store.activate(store.add(agent, point_spec, Card(seed=0)))
    return store


@pytest.fixture
def writer(store):
    """A process that forks a child for each line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT.parent), str(ROOT), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "store_writer.py"), str(store.root)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    yield process
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


class Reader(threading.Thread):
    """Loads what drives, over and over, as an executor that starts would."""

    def __init__(self, store, spec):
        super().__init__()
        self.loads, self.errors, self._store, self._spec = 0, [], store, spec
        self._ended = threading.Event()

    def run(self):
        while not self._ended.is_set():
            try:
                bundle.load_policy(self._store.root / "active", self._spec)
            except Exception as error:  # noqa: BLE001 - whatever it is, a reader must not see it
                self.errors.append(error)
            self.loads += 1
            time.sleep(0.002)

    def end(self):
        self._ended.set()
        self.join()


def test_a_writer_that_is_killed_leaves_a_whole_store_behind(store, writer, point_spec):
    draw, reader, lines = random.Random(0), Reader(store, point_spec), 0
    reader.start()
    for kill in range(KILLS):
        writer.stdin.write("\n")
        child = int(writer.stdout.readline())
        before = time.monotonic()
        while kill == 0 and len(store.history.entries()) < 12 and time.monotonic() < before + 60:
            time.sleep(0.05)  # the first one may work in peace: so there is something to lose
        time.sleep(draw.uniform(0.0, 0.15))
        os.kill(child, signal.SIGKILL)
        assert writer.stdout.readline() == "ended\n"
        assert bundle.load_policy(store.path("active"), point_spec).policy_id == store.active()
        store.record("looked at")  # any change tidies up
        check = check_store(store)
        assert check.policies == len(store.ids()) and not list(store.root.glob("policies/.*"))
        assert len(store.history.entries()) > lines, "the history only grows"
        lines = len(store.history.entries())
    reader.end()
    assert reader.loads > KILLS and reader.errors == []
    assert lines > 12 + KILLS
