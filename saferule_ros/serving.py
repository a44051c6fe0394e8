"""How the unlearning_server serves one request: a worker learns and validates, the accepted policy is handed over.

    serving = Serving(work, store, handover, settings, limits, ProbationRules(5, -1.0), node.get_logger())
    result = serving.serve(job)             # blocks; serving.last tells meanwhile how it goes

Whatever a request, the robot or the worker may do, there is an answer: it says in which phase the request ended, and
what to do. What the worker had done is kept where the request may go on, and nothing is left half written.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from saferule.msg import UnlearnResult
from saferule_core.checkpoints import SCRATCH, Checkpoints
from saferule_core.errors import Cancelled, SaferuleError, StoreError
from saferule_core.probation import Probation
from saferule_core.store.store import PolicyStore
from saferule_core.work_folder import WorkFolder, note_asked
from saferule_ros import requests
from saferule_ros.handover import Handover, HandoverError
from saferule_ros.requests import Job, Settings
from saferule_ros.worker import Limits, Worker

_BAD_REQUESTS = ("DataError", "DetectionError", "SimulationError", "SpecError", "StoreError", "UnlearningError",
                 "UsageError")  # fmt: skip
_BEFORE_WORK = ("", "waiting", "loading", "detecting")
_POLL_S = 0.05

T = TypeVar("T")


class Refusal(SaferuleError):
    """The request ends here, with this status and message for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class ProbationRules:
    """episodes: that a new policy is watched for, 0 for none. seconds: for the executor, negative: as it says [s]."""

    episodes: int
    seconds: float


class Serving:
    """Serves one request at a time.

    Attributes:
        last: how the newest request goes or went, JSON-able.
    """

    def __init__(
        self,
        work: WorkFolder,
        store: PolicyStore,
        handover: Handover,
        settings: Settings,
        limits: Limits,
        probation: ProbationRules,
        log: object,
    ) -> None:
        self._work, self._store, self._handover = work, store, handover
        self._settings, self._limits, self._probation, self._log = settings, limits, probation, log
        self.last: dict[str, object] = {"state": "idle"}

    def serve(self, job: Job) -> UnlearnResult:
        """Serve one request and return its result; never raises for what a request, a robot or a worker may do."""
        result = requests.empty_result()
        try:
            self._repair(job, result)
        except Refusal as refusal:
            result.status, result.message = refusal.status, str(refusal)
        except Cancelled:
            self._end_early(job, result)
        except (SaferuleError, OSError) as error:
            self._fail(job, result, error)
        finally:
            self.last = {"state": "done", "request_id": result.request_id, "status": result.status,
                         "message": result.message}  # fmt: skip
        self._log.info(f"unlearn {job.request_id}: {result.message}")
        return result

    def _repair(self, job: Job, result: UnlearnResult) -> None:
        """Fill `result`; raises Refusal, Cancelled or WorkerFailed."""
        request = job.request
        job.check()
        self._report(job, {"phase": "loading", "fraction": 0.0, "message": "looking for the robot"})
        if request.swap:
            try:
                self._meanwhile(job, self._handover.check_reachable)
            except HandoverError as error:
                message = f"{error}, or send the request with swap: false; nothing was unlearned"
                raise Refusal(UnlearnResult.STATUS_UNREACHABLE, message) from error
        result.incumbent_id = self._meanwhile(job, self._handover.running_policy) or self._store.active() or ""
        if not result.incumbent_id:
            raise Refusal(UnlearnResult.STATUS_BAD_REQUEST, "no policy is active: train one and activate it first")
        folder = self._folder(job, result)
        outcome = self._let_work(job, result, folder)
        requests.fill(result, outcome)
        if outcome["incumbent_id"] != result.incumbent_id:
            raise Refusal(
                UnlearnResult.STATUS_REFUSED,
                f"policy {result.candidate_id[:12]} was made from {outcome['incumbent_id'][:12]}, and "
                f"{result.incumbent_id[:12]} drives by now; it stays in the store: ask anew",
            )
        if not outcome["accepted"]:
            raise Refusal(UnlearnResult.STATUS_REFUSED, outcome["message"])
        result.status = UnlearnResult.STATUS_ACCEPTED
        job.check()
        if request.swap:
            self._report(
                job, {"phase": "swapping", "fraction": 0.99, "message": f"handing over {result.candidate_id[:12]}"}
            )
            self._hand_over(job, result)

    def _folder(self, job: Job, result: UnlearnResult) -> Path:
        """Return the folder of a request, new or of one that broke off; raises Refusal."""
        resume = job.request.resume
        result.request_id = resume or job.request_id
        if resume and not self._work.can_resume(resume):
            broken = ", ".join(path.name for path in self._work.broken_off()) or "none"
            raise Refusal(
                UnlearnResult.STATUS_BAD_REQUEST,
                f"resume: expected the id of a request that broke off ({broken}), found {resume!r}; ask anew",
            )
        return self._work.open(result.request_id)

    def _let_work(self, job: Job, result: UnlearnResult, folder: Path) -> Mapping:
        """Let a worker do it, and leave nothing of it behind but whole files."""
        try:
            if not job.request.resume:
                note_asked(folder, bool(job.request.swap))
            arguments = requests.worker_arguments(job, result.incumbent_id, folder, self._settings)
            self._report(job, {"phase": "loading", "fraction": 0.0, "message": "starting the worker"})
            job.worker = Worker(arguments, partial(self._progress, job, folder), self._limits, folder / SCRATCH)
            if job.stopped.is_set():
                job.worker.cancel()
            return job.worker.wait()
        finally:
            job.worker = None
            self._work.close(folder)
            with contextlib.suppress(SaferuleError):
                self._store.tidy()

    def _progress(self, job: Job, folder: Path, event: Mapping) -> None:
        """Pass a worker's progress on, with what was detected as soon as that is settled."""
        if event["phase"] != job.phase and event["phase"] == "unlearning":
            job.detected = requests.detected_in(folder)
        self._report(job, event)

    def _report(self, job: Job, event: Mapping) -> None:
        job.phase = event["phase"]
        event = {**event, "detected": job.detected}
        self.last = {"state": "running", "request_id": job.request_id, **event}
        job.feedback(event)

    def _meanwhile(self, job: Job, work: Callable[[], T]) -> T:
        """Return `work()`, which may wait for the robot, unless the job is to end first."""
        done: Future = Future()

        def call() -> None:
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

        threading.Thread(target=call, name="robot", daemon=True).start()
        while not done.done():
            job.check()
            with contextlib.suppress(FutureTimeout):
                done.result(_POLL_S)
        return done.result()

    # -- ends --------------------------------------------------------------------------------------------------------

    def _end_early(self, job: Job, result: UnlearnResult) -> None:
        """Answer a request that was stopped."""
        result.status = UnlearnResult.STATUS_CANCELLED
        result.message = f"{job.stop_reason} while {job.phase}; {_kept(result)}"
        if result.candidate_id:
            result.message += f", and {result.candidate_id[:12]} stays in the store"
        self._write_down(job, result)

    def _fail(self, job: Job, result: UnlearnResult, error: Exception) -> None:
        """Answer a request that broke off or makes no sense."""
        phase = getattr(error, "phase", "") or job.phase
        bad = getattr(error, "kind", type(error).__name__) in _BAD_REQUESTS and phase in _BEFORE_WORK
        result.status = UnlearnResult.STATUS_BAD_REQUEST if bad else UnlearnResult.STATUS_FAILED
        job.resumable = not bad
        result.message = f"while {phase}: {error}; {_kept(result)}"
        self._write_down(job, result)

    def _write_down(self, job: Job, result: UnlearnResult) -> None:
        """Keep in the request's folder how it ended; one that can go on says so."""
        keep = Checkpoints(self._work.root / result.request_id)
        if not result.request_id or not keep.broke_off:
            return
        try:
            if job.resumable:
                keep.fail(result.message)
                result.message += f"; a request with resume: {result.request_id} goes on with it"
            else:
                keep.finish({"accepted": False, "status": result.status, "message": result.message})
        except SaferuleError as error:
            self._log.error(f"cannot write down how request {result.request_id} ended: {error}")

    def _hand_over(self, job: Job, result: UnlearnResult) -> None:
        """Let the candidate drive and put it on probation; raises Refusal or Cancelled."""
        reason = f"unlearn {result.request_id}"
        swap = partial(
            self._handover.swap,
            result.candidate_id,
            reason,
            probation_s=self._probation.seconds,
            hold_on_failure=result.incumbent_cost > result.cost_limit,
        )
        try:
            tick = self._meanwhile(job, swap)
        except HandoverError as error:
            message = f"while swapping: {error}, then swap {result.candidate_id[:12]}, which is in the store"
            raise Refusal(UnlearnResult.STATUS_UNREACHABLE, message) from error
        except Cancelled:
            try:
                self._handover.call_off(result.incumbent_id, f"{reason}: {job.stop_reason}")
            except HandoverError as error:
                self._log.error(f"cannot call off {result.candidate_id[:12]}, which may drive: {error}")
            raise
        try:
            self._store.activate(result.candidate_id, reason)
        except StoreError as error:
            if self._handover.running_policy() != result.candidate_id:
                raise  # it was taken back meanwhile
            result.status = UnlearnResult.STATUS_SWAPPED
            result.message += f" It drives, but the store does not say so: {error}; activate it there."
            return
        result.status = UnlearnResult.STATUS_SWAPPED
        result.message += f" It drives from tick {tick}."
        if episodes := self._probation.episodes:
            self._handover.begin_probation(
                Probation(result.candidate_id, result.incumbent_id, result.incumbent_cost, result.cost_limit, episodes)
            )


def _kept(result: UnlearnResult) -> str:
    return f"the robot keeps policy {result.incumbent_id[:12]}" if result.incumbent_id else "the robot keeps its policy"
