"""unlearning_server: the action `unlearn` that repairs the policy of a running robot.

    ros2 action send_goal -f unlearn saferule/action/Unlearn "{request: {forget_bags: [...], retain_bags: [...]}}"

Learning and validation run in a worker process of low priority and bounded memory, never in a node. Whatever goes
wrong, the robot goes on with the policy that it has, and the caller gets a sentence that says in which phase that was
and what to do. What a request has done is kept in `work_dir`; one that broke off, because its worker or this node died,
goes on from there when it is asked to (`resume`). After a swap the new policy is on probation: if the cost monitor
confirms that it breaks its limit, it is rolled back or the robot is held.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from pathlib import Path
from typing import TypeVar

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from std_srvs.srv import Trigger

from saferule.action import Unlearn as UnlearnAction
from saferule.msg import UnlearnRequest, UnlearnResult
from saferule.srv import ListPolicies, Rollback
from saferule.srv import Unlearn as UnlearnService
from saferule_core.checkpoints import SCRATCH, Checkpoints
from saferule_core.errors import Cancelled, SaferuleError, SpecError, StoreError
from saferule_core.probation import Probation
from saferule_core.store.files import locked
from saferule_core.store.store import PolicyStore
from saferule_core.turns import Turns
from saferule_ros import requests
from saferule_ros.handover import Handover, HandoverError
from saferule_ros.managed_node import SPEC_PARAMETER, STORE_PARAMETER, ManagedNode, Parameter, run
from saferule_ros.requests import Job, Settings
from saferule_ros.worker import Limits, Worker

_BAD_REQUESTS = ("DataError", "DetectionError", "SimulationError", "SpecError", "StoreError", "UnlearningError",
                 "UsageError")  # fmt: skip
_BEFORE_WORK = ("", "waiting", "loading", "detecting")
_POLL_S = 0.05
_MIB = 1 << 20

T = TypeVar("T")


class Refusal(SaferuleError):
    """The request ends here, with this status and message for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnlearningServer(ManagedNode):
    """One request at a time, by action or by service; others wait or are turned away."""

    PARAMETERS = (
        SPEC_PARAMETER,
        STORE_PARAMETER,
        Parameter("work_dir", "saferule_work", "folder for reports and checkpoints, one subfolder per request"),
        Parameter("queue_length", 0, "requests that may wait for the one that is served; others are refused", 0, 100),
        Parameter("resume_interrupted", False, "on activation, go on with the request that broke off last"),
        Parameter("workers", 2, "simulated robots that validate at the same time", 1, 64),
        Parameter("worker_niceness", 19, "how far learning and validation stand back; 19: idle time only", 0, 19),
        Parameter("worker_memory", 4096, "memory of a worker and its simulations [MiB]; 0 for no bound", 0, 1 << 24),
        Parameter("worker_threads", 1, "threads of a worker's arithmetic", 1, 64),
        Parameter("bag_roots", [""], "folders that bags and lists of suspects have to lie in; empty allows all"),
        Parameter("message_types", [""], ".msg files or packages, for types that bags do not define themselves"),
        Parameter("bag_cache", "", "folder that keeps what was read of bags, by content; empty for none"),
        Parameter("tolerate_truncated", False, "take what there is of bags that were cut off"),
        Parameter("executor", "policy_executor", "name of the policy_executor node"),
        Parameter("swap_timeout", 10.0, "how long the executor may take to answer [s]", 0.1, 600.0),
        Parameter("probation_episodes", 5, "episodes that a new policy is watched for; 0 for none", 0, 10_000),
        Parameter("probation_s", -1.0, "probation in the executor [s]; negative: as the executor says", -1.0, 1e6),
    )

    def configure(self) -> None:
        """Check description and store, look for requests that broke off, open action and services."""
        self._spec = self.load_spec()
        self._store = PolicyStore(self.path_parameter("store", "a policy store"))
        self._work_dir = self.path_parameter("work_dir", "a folder for reports")
        self._held = contextlib.ExitStack()
        self._claim_work_dir()
        self._settings = Settings(
            str(self.path_parameter("spec", "")), str(self.path_parameter("store", "")), self.parameter("workers"),
            self.parameter("worker_threads"), requests.names(self.parameter("bag_roots")),
            requests.names(self.parameter("message_types")), self.parameter("bag_cache"),
            self.parameter("tolerate_truncated"),
        )  # fmt: skip
        self._limits = Limits(
            self.parameter("worker_niceness"), self.parameter("worker_memory") * _MIB, self.parameter("worker_threads")
        )
        self._turns, self._jobs = Turns(self.parameter("queue_length")), {}
        self._last: dict[str, object] = {"state": "idle"}
        self._tidy()
        group = ReentrantCallbackGroup()
        self._handover = Handover(
            self, self._store, self.parameter("executor"), self.parameter("swap_timeout"), group
        )
        self._services_made = [
            self.create_service(kind, name, callback, callback_group=group)
            for kind, name, callback in (
                (UnlearnService, "unlearn", self._on_service), (Trigger, "~/status", self._on_status),
                (Trigger, "~/cancel", self._on_cancel_service), (ListPolicies, "~/list_policies", self._on_list),
                (Rollback, "~/rollback", self._on_rollback),
            )
        ]  # fmt: skip
        self._action = ActionServer(
            self, UnlearnAction, "unlearn", self._on_goal, handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel, callback_group=group,
        )  # fmt: skip

    def activate(self) -> None:
        """Go on with what broke off, if the parameters ask for it."""
        broken = self._broken_off()
        if self.parameter("resume_interrupted") and broken:
            request = UnlearnRequest(resume=broken[-1].name, swap=requests.asked_to_swap(broken[-1]))
            self.get_logger().info(f"going on with request {request.resume}")
            self._start(Job(request, request.resume, lambda _event: None, self._turns.join()))

    def deactivate(self) -> None:
        """Stop all requests; the robot keeps its policy, and what they have done so far is kept."""
        for job in list(self._jobs.values()):
            job.stop("unlearning_server was deactivated", resumable=True)

    def cleanup(self) -> None:
        """Close action, services and clients."""
        for service in self.__dict__.pop("_services_made", ()):
            self.destroy_service(service)
        if "_handover" in self.__dict__:
            self.__dict__.pop("_handover").close()
        if "_action" in self.__dict__:
            self.__dict__.pop("_action").destroy()
        if "_held" in self.__dict__:
            self.__dict__.pop("_held").close()

    # -- requests that broke off -------------------------------------------------------------------------------------

    def _claim_work_dir(self) -> None:
        """Make sure that no other server works in the same folder; raises SpecError."""
        try:
            self._work_dir.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(locked(self._work_dir / ".lock", timeout=0.0))
        except (OSError, StoreError) as error:
            raise SpecError(
                f"parameter work_dir: {self._work_dir}: expected a folder that can be written and that no other "
                f"unlearning_server uses, found: {error}"
            ) from error

    def _tidy(self) -> None:
        """Remove what died half written, and write down that requests broke off with the server that served them."""
        for folder in self._broken_off():
            keep = Checkpoints(folder)
            keep.tidy()
            with contextlib.suppress(SaferuleError):
                failure = keep.failure or keep.fail("unlearning_server was stopped or killed")
                self.get_logger().warning(
                    f"request {folder.name} broke off while {failure.phase}: {failure.message}; a request with "
                    f"resume: {folder.name} goes on with it"
                )
        with contextlib.suppress(SaferuleError):  # a store that is busy is tidied by whoever changes it next
            self._store.tidy()

    def _broken_off(self) -> list[Path]:
        """Return the folders of requests that broke off, oldest first."""
        found = [path for path in self._work_dir.iterdir() if requests.REQUEST_ID.fullmatch(path.name)]
        found = [path for path in found if path.name not in self._jobs and Checkpoints(path).broke_off]
        return sorted(found, key=lambda path: path.stat().st_mtime)

    # -- requests ----------------------------------------------------------------------------------------------------

    def _on_accepted(self, goal: object) -> None:
        """Give a goal its place in the line; waiting for it is none of the executor's threads' business."""
        request_id = bytes(goal.goal_id.uuid).hex()[:12]
        feedback = lambda event: goal.publish_feedback(requests.feedback_message(event))  # noqa: E731
        job = Job(goal.request.request, request_id, feedback, self._turns.join() if self.working else None)
        self._jobs[request_id] = job

        def wait() -> None:
            self._wait_for_turn(job)
            goal.execute()

        if job.turn is None or not job.turn.ahead:
            goal.execute()
        else:
            threading.Thread(target=wait, name="unlearn waiting", daemon=True).start()

    def _on_goal(self, goal: object) -> UnlearnAction.Result:
        result = self._serve(self._jobs[bytes(goal.goal_id.uuid).hex()[:12]])
        if result.status in (UnlearnResult.STATUS_SWAPPED, UnlearnResult.STATUS_ACCEPTED):
            goal.succeed()
        elif result.status == UnlearnResult.STATUS_CANCELLED and goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return UnlearnAction.Result(result=result)

    def _on_cancel(self, goal: object) -> CancelResponse:
        job = self._jobs.get(bytes(goal.goal_id.uuid).hex()[:12])
        if job is not None:
            job.stop("cancelled")
        return CancelResponse.ACCEPT

    def _on_service(self, request: UnlearnService.Request, response: UnlearnService.Response) -> object:
        turn = self._turns.join() if self.working else None
        if turn is None:
            response.message = self._why_not()
            return response
        response.accepted, response.request_id = True, uuid.uuid4().hex[:12]
        self._start(Job(request.request, response.request_id, lambda _event: None, turn))
        return response

    def _start(self, job: Job) -> None:
        """Serve a request in a thread of its own."""
        self._jobs[job.request_id] = job

        def work() -> None:
            self._wait_for_turn(job)
            self._serve(job)

        threading.Thread(target=work, name="unlearn", daemon=True).start()

    def _on_status(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        broken = {path.name: Checkpoints(path).failure for path in self._broken_off()}
        words = {name: f"{each.phase}: {each.message}" if each else "" for name, each in broken.items()}
        waiting = [job.request_id for job in list(self._jobs.values()) if job.phase == "waiting"]
        response.success, response.message = True, json.dumps({**self._last, "waiting": waiting, "broken_off": words})
        return response

    def _on_cancel_service(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        jobs = list(self._jobs.values())
        for job in jobs:
            job.stop("cancelled")
        response.success = bool(jobs)
        response.message = f"{len(jobs)} requests cancelled" if jobs else "no request is being served"
        return response

    def _why_not(self) -> str:
        if not self.working:
            return "unlearning_server is not active: activate it (ros2 lifecycle set /unlearning_server activate)"
        return (
            "another request is being served: wait for it, or cancel it; or let more requests wait "
            "(parameter queue_length)"
        )

    def _wait_for_turn(self, job: Job) -> None:
        """Block until those before a job are done, or it is to end."""
        told = 0.0
        while job.turn is not None and (ahead := job.turn.ahead) and not job.stopped.wait(_POLL_S):
            if time.monotonic() - told > 1.0:
                told = time.monotonic()
                job.feedback({"phase": "waiting", "fraction": 0.0, "message": f"{ahead} requests before this one"})

    def _serve(self, job: Job) -> UnlearnResult:
        """Serve one request and return its result; never raises for what a request, a robot or a worker may do."""
        result = requests.empty_result()
        try:
            if job.turn is None:
                raise Refusal(UnlearnResult.STATUS_BAD_REQUEST, self._why_not())
            self._repair(job, result)
        except Refusal as refusal:
            result.status, result.message = refusal.status, str(refusal)
        except Cancelled:
            self._end_early(job, result)
        except (SaferuleError, OSError) as error:
            self._fail(job, result, error)
        finally:
            if job.turn is not None:
                self._last = {"state": "done", "request_id": result.request_id, "status": result.status,
                              "message": result.message}  # fmt: skip
                job.turn.leave()
            self._jobs.pop(job.request_id, None)
        self.get_logger().info(f"unlearn {job.request_id}: {result.message}")
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
        outcome = self._work(job, result, folder)
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
            self._hand_over(result, f"unlearn {result.request_id}")

    def _folder(self, job: Job, result: UnlearnResult) -> Path:
        """Return the folder of a request, new or of one that broke off; raises Refusal."""
        resume = job.request.resume
        result.request_id = resume or job.request_id
        if resume and not (
            requests.REQUEST_ID.fullmatch(resume) and Checkpoints(self._work_dir / resume).broke_off
        ):
            broken = ", ".join(path.name for path in self._broken_off()) or "none"
            raise Refusal(
                UnlearnResult.STATUS_BAD_REQUEST,
                f"resume: expected the id of a request that broke off ({broken}), found {resume!r}; ask anew",
            )
        folder = self._work_dir / result.request_id
        (folder / SCRATCH).mkdir(parents=True, exist_ok=True)
        if not resume:
            requests.note_asked(folder, job.request)
        return folder

    def _work(self, job: Job, result: UnlearnResult, folder: Path) -> Mapping:
        """Let a worker do it, and leave nothing of it behind but whole files."""
        keep = Checkpoints(folder)
        try:
            arguments = requests.worker_arguments(job, result.incumbent_id, folder, self._settings)
            self._report(job, {"phase": "loading", "fraction": 0.0, "message": "starting the worker"})
            job.worker = Worker(arguments, partial(self._progress, job, folder), self._limits, folder / SCRATCH)
            if job.stopped.is_set():
                job.worker.cancel()
            return job.worker.wait()
        finally:
            job.worker = None
            keep.tidy()
            if not (folder / "request.json").exists():
                shutil.rmtree(folder, ignore_errors=True)
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
        self._last = {"state": "running", "request_id": job.request_id, **event}
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
        keep = Checkpoints(self._work_dir / result.request_id)
        if not result.request_id or not keep.broke_off:
            return
        try:
            if job.resumable:
                keep.fail(result.message)
                result.message += f"; a request with resume: {result.request_id} goes on with it"
            else:
                keep.finish({"accepted": False, "status": result.status, "message": result.message})
        except SaferuleError as error:
            self.get_logger().error(f"cannot write down how request {result.request_id} ended: {error}")

    def _hand_over(self, result: UnlearnResult, reason: str) -> None:
        """Let the candidate drive and put it on probation; raises Refusal."""
        watched = {"probation_s": self.parameter("probation_s")} if self.parameter("probation_s") >= 0.0 else {}
        try:
            tick = self._handover.give(result.candidate_id, reason, **watched)
        except HandoverError as error:
            message = f"{error}, then swap {result.candidate_id[:12]}, which is in the store"
            raise Refusal(UnlearnResult.STATUS_UNREACHABLE, message) from error
        result.status = UnlearnResult.STATUS_SWAPPED
        result.message += f" It drives from tick {tick}."
        if episodes := self.parameter("probation_episodes"):
            self._handover.begin_probation(
                Probation(result.candidate_id, result.incumbent_id, result.incumbent_cost, result.cost_limit, episodes)
            )

    # -- the store ---------------------------------------------------------------------------------------------------

    def _on_rollback(self, request: Rollback.Request, response: Rollback.Response) -> Rollback.Response:
        try:
            response.active_id = self._handover.take_back(request.reason or "asked for by ~/rollback")
            response.success, response.message = True, f"policy {response.active_id[:12]} drives again"
        except SaferuleError as error:
            response.success, response.message = False, str(error)
            response.active_id = self._store.active() or ""
        return response

    def _on_list(self, _request: ListPolicies.Request, response: ListPolicies.Response) -> ListPolicies.Response:
        entries = self._store.list()
        response.active_id, response.previous_id = self._store.active() or "", self._store.previous() or ""
        response.policy_ids = [entry.policy_id for entry in entries]
        response.parents = [entry.card.parent or "" for entry in entries]
        response.algorithms = [entry.card.algorithm for entry in entries]
        response.created = [entry.card.created for entry in entries]
        return response


def _kept(result: UnlearnResult) -> str:
    return f"the robot keeps policy {result.incumbent_id[:12]}" if result.incumbent_id else "the robot keeps its policy"


def main(arguments: list[str] | None = None) -> None:
    """Run the node."""
    run(UnlearningServer, "unlearning_server", arguments, partial(MultiThreadedExecutor, num_threads=4))


if __name__ == "__main__":
    main()
