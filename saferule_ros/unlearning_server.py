"""unlearning_server: the action `unlearn` that repairs the policy of a running robot.

    ros2 action send_goal -f unlearn saferule/action/Unlearn "{request: {forget_bags: [...], retain_bags: [...]}}"

Learning and validation run in a worker process at low priority, never in a node. Whatever goes wrong, the robot goes
on with the policy that it has, and the caller gets a sentence that says what to do. After a swap the new policy is on
probation: if the cost monitor confirms that it breaks its limit, it is rolled back or the robot is held.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Mapping
from functools import partial

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from std_srvs.srv import Trigger

from saferule.action import Unlearn as UnlearnAction
from saferule.msg import UnlearnRequest, UnlearnResult
from saferule.srv import ListPolicies, Rollback
from saferule.srv import Unlearn as UnlearnService
from saferule_core.errors import Cancelled, SaferuleError
from saferule_core.probation import Probation
from saferule_core.store.store import PolicyStore
from saferule_ros.handover import Handover, HandoverError
from saferule_ros.managed_node import SPEC_PARAMETER, STORE_PARAMETER, ManagedNode, Parameter, run
from saferule_ros.worker import Worker, WorkerFailed

_PHASES = {
    "loading": UnlearnAction.Feedback.PHASE_LOADING,
    "unlearning": UnlearnAction.Feedback.PHASE_UNLEARNING,
    "validating": UnlearnAction.Feedback.PHASE_VALIDATING,
    "storing": UnlearnAction.Feedback.PHASE_STORING,
    "swapping": UnlearnAction.Feedback.PHASE_SWAPPING,
}
_FIGURES = (
    "incumbent_cost", "candidate_cost", "candidate_cost_upper", "incumbent_reward", "candidate_reward",
    "reward_reference", "cost_limit", "unlearning_seconds", "validation_seconds",
)  # fmt: skip
_BAD_REQUESTS = ("DataError", "SpecError", "StoreError", "UnlearningError")


class Refusal(SaferuleError):
    """The request ends here, with this status and message for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnlearningServer(ManagedNode):
    """One request at a time, by action or by service."""

    PARAMETERS = (
        SPEC_PARAMETER,
        STORE_PARAMETER,
        Parameter("work_dir", "saferule_work", "folder for reports, one subfolder per request"),
        Parameter("workers", 2, "simulated robots that validate at the same time", 1, 64),
        Parameter("worker_niceness", 19, "how far learning and validation stand back; 19: idle time only", 0, 19),
        Parameter("executor", "policy_executor", "name of the policy_executor node"),
        Parameter("swap_timeout", 10.0, "how long the executor may take to answer [s]", 0.1, 600.0),
        Parameter("probation_episodes", 5, "episodes that a new policy is watched for; 0 for none", 0, 10_000),
    )

    def configure(self) -> None:
        """Check description and store, open action and services."""
        self._spec = self.load_spec()
        self._store = PolicyStore(self.path_parameter("store", "a policy store"))
        self._work_dir = self.path_parameter("work_dir", "a folder for reports")
        self._busy = threading.Lock()
        self._worker: Worker | None = None
        self._last: dict[str, object] = {"state": "idle"}
        group = ReentrantCallbackGroup()
        self._handover = Handover(
            self, self._store, self.parameter("executor"), self.parameter("swap_timeout"), group
        )
        self._services_made = [
            self.create_service(UnlearnService, "unlearn", self._on_service, callback_group=group),
            self.create_service(Trigger, "~/status", self._on_status, callback_group=group),
            self.create_service(ListPolicies, "~/list_policies", self._on_list, callback_group=group),
            self.create_service(Rollback, "~/rollback", self._on_rollback, callback_group=group),
        ]
        self._action = ActionServer(
            self, UnlearnAction, "unlearn", self._on_goal,
            cancel_callback=self._on_cancel, callback_group=group,
        )  # fmt: skip

    def deactivate(self) -> None:
        """Stop a running request; the robot keeps its policy."""
        if self._worker is not None:
            self._worker.cancel()

    def cleanup(self) -> None:
        """Close action, services and clients."""
        for service in self.__dict__.pop("_services_made", ()):
            self.destroy_service(service)
        if "_handover" in self.__dict__:
            self.__dict__.pop("_handover").close()
        if "_action" in self.__dict__:
            self.__dict__.pop("_action").destroy()

    # -- requests --------------------------------------------------------------------------------------------------

    def _on_goal(self, goal: object) -> UnlearnAction.Result:
        def feedback(event: Mapping) -> None:
            losses = event.get("losses") or {}
            message = UnlearnAction.Feedback(
                phase=_PHASES.get(event["phase"], UnlearnAction.Feedback.PHASE_LOADING),
                progress=float(event["fraction"]),
                message=event.get("message", ""),
                loss_names=list(losses),
                loss_values=[float(value) for value in losses.values()],
            )
            goal.publish_feedback(message)

        result = self._serve(goal.request.request, feedback, lambda: goal.is_cancel_requested)
        if result.status in (UnlearnResult.STATUS_SWAPPED, UnlearnResult.STATUS_ACCEPTED):
            goal.succeed()
        elif result.status == UnlearnResult.STATUS_CANCELLED and goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return UnlearnAction.Result(result=result)

    def _on_cancel(self, _goal: object) -> CancelResponse:
        worker = self._worker
        if worker is not None:
            worker.cancel()
        return CancelResponse.ACCEPT

    def _on_service(self, request: UnlearnService.Request, response: UnlearnService.Response) -> object:
        if not self.working or self._busy.locked():
            response.message = self._why_not()
            return response
        response.accepted, response.request_id = True, uuid.uuid4().hex[:12]
        work = partial(self._serve, request.request, lambda _event: None, lambda: False, response.request_id)
        threading.Thread(target=work, name="unlearn", daemon=True).start()
        return response

    def _on_status(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, json.dumps(self._last)
        return response

    def _why_not(self) -> str:
        if not self.working:
            return "unlearning_server is not active: activate it (ros2 lifecycle set /unlearning_server activate)"
        return "another request is being served: wait for it, or cancel it"

    def _serve(
        self,
        request: UnlearnRequest,
        feedback: Callable[[Mapping], None],
        is_cancelled: Callable[[], bool],
        request_id: str = "",
    ) -> UnlearnResult:
        """Serve one request and return its result; never raises for what a request, a robot or a worker may do."""
        result = UnlearnResult(**{name: float("nan") for name in _FIGURES})
        result.unlearning_seconds = result.validation_seconds = 0.0
        if not self.working or not self._busy.acquire(blocking=False):
            result.status, result.message = UnlearnResult.STATUS_BAD_REQUEST, self._why_not()
            return result
        request_id = request_id or uuid.uuid4().hex[:12]

        def report(event: Mapping) -> None:
            self._last = {"state": "running", "request_id": request_id, **event}
            feedback(event)

        try:
            self._repair(request, result, report, is_cancelled, request_id)
        except Refusal as refusal:
            result.status, result.message = refusal.status, str(refusal)
        except Cancelled as error:
            result.status, result.message = UnlearnResult.STATUS_CANCELLED, str(error)
        except WorkerFailed as error:
            bad = error.kind in _BAD_REQUESTS
            result.status = UnlearnResult.STATUS_BAD_REQUEST if bad else UnlearnResult.STATUS_FAILED
            result.message = f"{error}; the robot keeps policy {result.incumbent_id[:12]}"
        except SaferuleError as error:
            result.status, result.message = UnlearnResult.STATUS_FAILED, str(error)
        finally:
            self._worker = None
            self._last = {"state": "done", "request_id": request_id, "status": result.status, "message": result.message}
            self._busy.release()
        self.get_logger().info(f"unlearn {request_id}: {result.message}")
        return result

    def _repair(
        self,
        request: UnlearnRequest,
        result: UnlearnResult,
        report: Callable[[Mapping], None],
        is_cancelled: Callable[[], bool],
        request_id: str,
    ) -> None:
        """Fill `result`; raises Refusal, Cancelled or WorkerFailed."""
        if request.swap:
            try:
                self._handover.check_reachable()
            except HandoverError as error:
                message = f"{error}, or send the request with swap: false; nothing was unlearned"
                raise Refusal(UnlearnResult.STATUS_UNREACHABLE, message) from error
        result.incumbent_id = self._handover.running_policy() or self._store.active() or ""
        if not result.incumbent_id:
            raise Refusal(UnlearnResult.STATUS_BAD_REQUEST, "no policy is active: train one and activate it first")
        report({"phase": "loading", "fraction": 0.0, "message": "starting the worker"})
        self._worker = Worker(
            self._worker_arguments(request, result.incumbent_id, request_id), report, self.parameter("worker_niceness")
        )
        if is_cancelled():
            self._worker.cancel()
        outcome = self._worker.wait()
        self._worker = None
        for name in _FIGURES:
            if outcome.get(name) is not None:
                setattr(result, name, float(outcome[name]))
        result.candidate_id = outcome.get("candidate_id") or ""
        result.report_path = outcome.get("report_path") or ""
        if not outcome["accepted"]:
            raise Refusal(UnlearnResult.STATUS_REFUSED, outcome["message"])
        result.status, result.message = UnlearnResult.STATUS_ACCEPTED, outcome["message"]
        if is_cancelled():
            raise Cancelled(f"cancelled before the swap; policy {result.candidate_id[:12]} stays in the store")
        if request.swap:
            report({"phase": "swapping", "fraction": 0.99, "message": f"handing over {result.candidate_id[:12]}"})
            self._hand_over(result, f"unlearn {request_id}")

    def _hand_over(self, result: UnlearnResult, reason: str) -> None:
        """Let the candidate drive and put it on probation; raises Refusal."""
        try:
            tick = self._handover.give(result.candidate_id, reason)
        except HandoverError as error:
            message = f"{error}, then swap {result.candidate_id[:12]}, which is in the store"
            raise Refusal(UnlearnResult.STATUS_UNREACHABLE, message) from error
        result.status = UnlearnResult.STATUS_SWAPPED
        result.message += f" It drives from tick {tick}."
        if episodes := self.parameter("probation_episodes"):
            self._handover.begin_probation(
                Probation(result.candidate_id, result.incumbent_id, result.incumbent_cost, result.cost_limit, episodes)
            )

    def _worker_arguments(self, request: UnlearnRequest, incumbent_id: str, request_id: str) -> list[str]:
        arguments = [
            "repair", "--spec", self.parameter("spec"), "--store", self.parameter("store"), "--policy", incumbent_id,
            "--method", request.method or "safe_rule", "--seed", str(request.seed),
            "--min-reward-kept", str(request.min_reward_kept), "--confidence", str(request.confidence),
            "--episodes", str(request.validation_episodes), "--workers", str(self.parameter("workers")),
            "--out", str(self._work_dir / request_id), "--asked-by", f"unlearning_server, request {request_id}",
        ]  # fmt: skip
        if request.cost_limit > 0.0:
            arguments += ["--cost-limit", str(request.cost_limit)]
        for option, bags in (("--forget", request.forget_bags), ("--retain", request.retain_bags)):
            for bag in bags:
                arguments += [option, bag]
        return arguments

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


def main(arguments: list[str] | None = None) -> None:
    """Run the node."""
    run(UnlearningServer, "unlearning_server", arguments, partial(MultiThreadedExecutor, num_threads=4))


if __name__ == "__main__":
    main()
