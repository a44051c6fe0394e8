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
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from std_srvs.srv import Trigger

from saferule.action import Unlearn as UnlearnAction
from saferule.msg import UnlearnRequest, UnlearnResult
from saferule.srv import ListPolicies, Rollback
from saferule.srv import Unlearn as UnlearnService
from saferule_core.checkpoints import Checkpoints
from saferule_core.errors import SaferuleError
from saferule_core.store.store import PolicyStore
from saferule_core.turns import Turns
from saferule_core.work_folder import WorkFolder, asked_to_swap
from saferule_ros import requests
from saferule_ros.handover import Handover
from saferule_ros.managed_node import SPEC_PARAMETER, STORE_PARAMETER, ManagedNode, Parameter, run
from saferule_ros.requests import Job, Settings
from saferule_ros.serving import ProbationRules, Serving
from saferule_ros.worker import Limits

_POLL_S = 0.05
_END_S = 5.0
"""How long to wait for the end of requests that were stopped [s]."""

_MIB = 1 << 20


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
        Parameter("worker_device", "cpu", "device of torch that a worker learns on, such as cuda"),
        Parameter("bag_roots", [""], "folders that bags and lists of suspects have to lie in; empty allows all"),
        Parameter("message_types", [""], ".msg files or packages, for types that bags do not define themselves"),
        Parameter("bag_cache", "", "folder that keeps what was read of bags, by content; empty for none"),
        Parameter("tolerate_truncated", False, "take what there is of bags that were cut off"),
        Parameter("executor", "policy_executor", "name of the policy_executor node"),
        Parameter("swap_timeout", 10.0, "how long the executor may take to answer [s]", 0.1, 600.0),
        Parameter("probation_episodes", 5, "episodes that a new policy is watched for; 0 for none", 0, 10_000),
        Parameter("probation_s", -1.0, "probation in the executor [s]; negative: as the executor says", -1.0, 1e6),
    )
    READS_CLOCK = False

    def configure(self) -> None:
        """Check description and store, look for requests that broke off, open action and services."""
        self._spec = self.load_spec()
        self._store = PolicyStore(self.path_parameter("store", "a policy store"))
        self._work = WorkFolder(self.path_parameter("work_dir", "a folder for reports"))
        self._work.claim()
        self._turns, self._jobs = Turns(self.parameter("queue_length")), {}
        self._tidy()
        group = ReentrantCallbackGroup()
        self._handover = Handover(
            self, self._store, self.parameter("executor"), self.parameter("swap_timeout"), group
        )
        self._serving = self._make_serving()
        self._services_made = [
            self.create_service(kind, name, partial(self._answer, callback), callback_group=group)
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

    def _make_serving(self) -> Serving:
        """Return what serves requests, with the parameters that a caller has no say in."""
        settings = Settings(
            str(self.path_parameter("spec", "")), str(self.path_parameter("store", "")), self.parameter("workers"),
            self.parameter("worker_threads"), self.parameter("worker_device"),
            requests.paths(self.parameter("bag_roots")), requests.paths(self.parameter("message_types")),
            self.parameter("bag_cache"), self.parameter("tolerate_truncated"),
        )  # fmt: skip
        limits = Limits(
            self.parameter("worker_niceness"), self.parameter("worker_memory") * _MIB, self.parameter("worker_threads")
        )
        probation = ProbationRules(self.parameter("probation_episodes"), self.parameter("probation_s"))
        return Serving(
            self._work, self._store, self._handover, settings, limits, probation, self.get_logger()
        )

    def _tidy(self) -> None:
        """Remove what died half written, and say which requests broke off."""
        for request_id, failure in self._work.tidy().items():
            self.get_logger().warning(
                f"request {request_id} broke off while {failure.phase}: {failure.message}; a request with "
                f"resume: {request_id} goes on with it"
            )
        with contextlib.suppress(SaferuleError):  # a store that is busy is tidied by whoever changes it next
            self._store.tidy()

    def activate(self) -> None:
        """Go on with what broke off, if the parameters ask for it."""
        broken = self._work.broken_off(self._jobs)
        if self.parameter("resume_interrupted") and broken:
            request = UnlearnRequest(resume=broken[-1].name, swap=asked_to_swap(broken[-1]))
            self.get_logger().info(f"going on with request {request.resume}")
            self._start(Job(request, request.resume, lambda _event: None, self._turns.join()))

    def deactivate(self) -> None:
        """Stop all requests; the robot keeps its policy, and what they have done so far is kept."""
        for job in list(self._jobs.values()):
            job.stop("unlearning_server was deactivated", resumable=True)
        patience = time.monotonic() + _END_S
        while self._jobs and time.monotonic() < patience:
            time.sleep(_POLL_S)

    def cleanup(self) -> None:
        """Close action, services and clients."""
        for service in self.__dict__.pop("_services_made", ()):
            self.destroy_service(service)
        if "_handover" in self.__dict__:
            self.__dict__.pop("_handover").close()
        if "_action" in self.__dict__:
            self.__dict__.pop("_action").destroy()
        if "_work" in self.__dict__:
            self.__dict__.pop("_work").release()

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

    def _answer(self, callback: Callable[[object, object], object], request: object, response: object) -> object:
        """Answer a service; what is wrong with a file on disk is said and ends nothing."""
        try:
            return callback(request, response)
        except (SaferuleError, OSError) as error:
            self.get_logger().error(str(error))
            for name, value in (("success", False), ("accepted", False), ("message", str(error))):
                if hasattr(response, name):
                    setattr(response, name, value)
            return response

    def _on_status(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        jobs = list(self._jobs.values())
        busy = {name for job in jobs for name in (job.request_id, job.request.resume)}
        broken = {path.name: Checkpoints(path).failure for path in self._work.broken_off(busy)}
        facts = {
            **self._serving.last,
            "waiting": [job.request_id for job in jobs if job.phase == "waiting"],
            "broken_off": {name: f"{each.phase}: {each.message}" if each else "" for name, each in broken.items()},
        }
        response.success, response.message = True, json.dumps(facts)
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

    def _serve(self, job: Job) -> UnlearnResult:
        """Serve a request, or say why it is not served."""
        try:
            if job.turn is None:
                result = requests.empty_result()
                result.status, result.message = UnlearnResult.STATUS_BAD_REQUEST, self._why_not()
                return result
            return self._serving.serve(job)
        finally:
            self._jobs.pop(job.request_id, None)
            if job.turn is not None:
                job.turn.leave()

    def _wait_for_turn(self, job: Job) -> None:
        """Block until those before a job are done, or it is to end."""
        told = 0.0
        while job.turn is not None and (ahead := job.turn.ahead) and not job.stopped.wait(_POLL_S):
            if time.monotonic() - told > 1.0:
                told = time.monotonic()
                job.feedback({"phase": "waiting", "fraction": 0.0, "message": f"{ahead} requests before this one"})

    # -- the store ---------------------------------------------------------------------------------------------------

    def _on_rollback(self, request: Rollback.Request, response: Rollback.Response) -> Rollback.Response:
        try:
            response.active_id = self._handover.take_back(request.reason or "asked for by ~/rollback")
            response.success, response.message = True, f"policy {response.active_id[:12]} drives again"
        except SaferuleError as error:
            response.success, response.message = False, str(error)
            with contextlib.suppress(SaferuleError):  # a link that is damaged is what the message says
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


def main(arguments: list[str] | None = None) -> None:
    """Run the node."""
    run(UnlearningServer, "unlearning_server", arguments, partial(MultiThreadedExecutor, num_threads=4))


if __name__ == "__main__":
    main()
