"""A worker ends when it is told to, takes no more than it may, and says in which phase it broke off."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import saboteur
from sites import SABOTAGED, make_site

from saferule_core.checkpoints import SCRATCH, Checkpoints
from saferule_core.errors import Cancelled
from saferule_core.store import PolicyStore
from saferule_core.store.files import locked
from saferule_ros.limits import Limits, group, resident
from saferule_ros.worker import Worker, WorkerFailed

PATIENCE_S = 5.0
"""Within this a cancelled worker has to be gone; on an idle computer it takes less than one second."""

UNBOUNDED = Limits(niceness=0)
PHASES = ["loading", "detecting", "unlearning", "validating", "storing"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    here = Path(__file__).resolve().parent
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
    os.environ[saboteur.PLAN] = str(folder / "plan.json")
    yield make_site(folder, SABOTAGED)
    del os.environ[saboteur.PLAN]


@pytest.fixture
def begin(site, tmp_path):
    """Starts a repair whose checkpoints lie in tmp_path / "run", with a plan for the saboteur."""

    def start(action="", phase="", on_progress=lambda _event: None, limits=UNBOUNDED, **changes):
        saboteur.plan(os.environ[saboteur.PLAN], action, phase, tmp_path)
        options = {"--episodes": 3, "--min-reward-kept": 0.0, "--cost-limit": 20.0, "--workers": 2, **changes}
        words = ["repair", "--spec", site.spec, "--store", site.store, "--work", tmp_path / "run", "--forget",
                 *site.forget, "--retain", *site.retain, "--detect", "--max-share", 0.2]  # fmt: skip
        words += [word for pair in options.items() for word in pair]
        (tmp_path / "run" / SCRATCH).mkdir(parents=True)
        return Worker([str(word) for word in words], on_progress, limits, tmp_path / "run" / SCRATCH)

    return start


@pytest.fixture
def untouched(site):
    """After the test the store is whole, and nothing half written is in it."""
    store = PolicyStore(site.store)
    before = store.ids(), store.active()
    yield
    store.tidy()
    store.verify()
    assert (store.ids(), store.active()) == before


def gone(pid, began):
    """Say whether no process of a worker's group is left within the patience that there is since `began`."""
    while group(pid) and time.monotonic() < began + PATIENCE_S:
        time.sleep(0.01)
    return not group(pid)


@pytest.mark.parametrize("phase", PHASES)
def test_it_is_cancelled_in_every_phase(begin, phase):
    cancelled = []

    def cancel(event):
        if event["phase"] == phase and not cancelled:
            cancelled.append(time.monotonic())
            worker.cancel()

    worker = begin(on_progress=cancel)
    with pytest.raises(Cancelled, match=f"cancelled while {phase}"):
        worker.wait()
    assert gone(worker.pid, cancelled[0])


@pytest.mark.parametrize("phase", ["loading", "unlearning", "validating"])
def test_one_that_heeds_nothing_is_cancelled_too(begin, untouched_unless_validating, tmp_path, phase):
    """It hangs where nothing is reported and no signal is seen."""
    worker = begin("hang", phase)
    deadline = time.monotonic() + 120.0
    while Checkpoints(tmp_path / "run").phase != phase and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    began = time.monotonic()
    worker.cancel()
    with pytest.raises(Cancelled):
        worker.wait()
    assert gone(worker.pid, began)


@pytest.fixture
def untouched_unless_validating(request):
    if request.node.callspec.params["phase"] != "validating":
        request.getfixturevalue("untouched")


@pytest.mark.parametrize("phase", ["loading", "unlearning"])
def test_one_that_is_killed_says_when(begin, untouched, tmp_path, phase):
    with pytest.raises(WorkerFailed, match="killed .SIGKILL") as failed:
        begin("die", phase).wait()
    assert failed.value.phase == phase
    run = Checkpoints(tmp_path / "run")
    run.tidy()
    assert run.phase == phase and not list(run.folder.glob(".*"))


def test_a_killed_simulation_ends_the_repair(begin):
    with pytest.raises(WorkerFailed, match="a simulation worker was killed by signal 9") as failed:
        begin("die", "validating").wait()
    assert failed.value.phase == "validating" and failed.value.kind == "SimulationError"


@pytest.mark.parametrize("phase", ["loading", "unlearning"])
def test_one_that_allocates_without_end_gets_an_error_and_says_so(begin, untouched, phase):
    with pytest.raises(WorkerFailed, match="the memory does not suffice|out of memory") as failed:
        begin("allocate", phase, limits=Limits(0, memory_bytes=700 << 20)).wait()
    assert failed.value.kind == "MemoryError" and failed.value.phase == phase


def test_memory_is_bounded_for_a_worker_and_its_simulations_together(begin):
    """Each of the simulations stays below the bound, all together do not."""
    limits = Limits(0, memory_bytes=800 << 20)
    with pytest.raises(WorkerFailed, match=r"out of memory: the worker held \d+ MiB, 800 MiB are allowed") as failed:
        begin("grow", "validating", limits=limits, **{"--workers": 3}).wait()
    assert failed.value.phase == "validating"


@pytest.mark.parametrize(
    ("begins", "ends", "kind", "words"),
    [
        ("loading", "detecting", "DiskError", "expected to write transitions, found: .*File too large"),
        ("unlearning", "unlearning", "StoreError", "expected to add a policy, found: File too large"),
    ],
)
def test_a_full_disk_ends_it_with_whole_files(begin, untouched, tmp_path, begins, ends, kind, words):
    with pytest.raises(WorkerFailed, match=words) as failed:
        begin("fill", begins).wait()
    assert failed.value.phase == ends and failed.value.kind == kind
    assert not list((tmp_path / "run").glob(".*")) and not (tmp_path / "run" / "result.json").exists()


def test_a_store_that_is_locked_ends_it(begin, untouched, site):
    """The lock is held by somebody else from the moment on at which the worker begins to unlearn."""
    with locked(Path(site.store) / ".lock"), pytest.raises(WorkerFailed, match="locked by another process") as failed:
        begin().wait()
    assert failed.value.phase == "unlearning" and failed.value.kind == "StoreError"


def test_what_it_may_take_holds_for_what_it_starts(tmp_path):
    limits = Limits(3, memory_bytes=300 << 20, threads=2)
    child = "import resource, os; print(resource.getrlimit(resource.RLIMIT_DATA)[0], os.nice(0), os.environ['TMPDIR'])"
    command = f"input(); import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", command], env=limits.environment(tmp_path), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    limits.confine(process.pid)
    assert (Path("/proc") / str(process.pid) / "oom_score_adj").read_text().strip() == "1000"
    out, _ = process.communicate("\n", timeout=60)
    bound, niceness, scratch = out.split()
    assert (int(bound), int(niceness), scratch) == (300 << 20, os.nice(0) + 3, str(tmp_path))


def test_the_memory_of_the_whole_group_counts():
    grandchild = "x = bytearray(b'1' * (64 << 20)); print('up', flush=True); input()"
    command = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    words = [sys.executable, "-c", command]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(words, **pipes, text=True, start_new_session=True)
    assert process.stdout.readline() == "up\n"
    assert len(group(process.pid)) == 2 and resident(process.pid) > 64 << 20
    process.communicate("\n", timeout=60)


def test_it_ends_with_the_process_that_started_it(site, tmp_path):
    """As when the server is killed: nobody is left who could end the worker."""
    saboteur.plan(os.environ[saboteur.PLAN], "hang", "loading", tmp_path)
    words = ["repair", "--spec", site.spec, "--store", site.store, "--work", str(tmp_path / "run"), "--forget",
             *site.forget, "--retain", *site.retain]  # fmt: skip
    program = (
        "import sys, time; from saferule_ros.worker import Worker; "
        f"print(Worker({words!r}, print, 0).pid, flush=True); time.sleep(600)"
    )
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    worker = int(server.stdout.readline())
    deadline = time.monotonic() + 120.0
    while Checkpoints(tmp_path / "run").phase != "loading" and time.monotonic() < deadline:
        time.sleep(0.05)
    server.kill()
    server.wait()
    assert gone(worker, time.monotonic())
