"""Handing a policy to the executor, watching it on probation, and taking it back.

    handover = Handover(node, store, "policy_executor", timeout_s=10.0, callback_group=group)
    tick = handover.swap(candidate_id, "passed validation", probation_s=120.0, probation_limit=5.0)
    store.activate(candidate_id, "passed validation")
    handover.begin_probation(Probation(...))
    handover.take_back("operator's wish")

`active` in the store is to move after the executor has answered, so that the store never names a policy that does not
drive.
There are two probations. The executor's own (`probation_s`) sees every step and swaps back within a tick; it rejects
the policy in the store by itself. The one that `begin_probation` starts judges whole episodes, and asks for what it
wants done. A policy that the executor has taken back ends it, too.

Call from threads that the node's executor does not need: the calls block until it answers.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from std_srvs.srv import Trigger

from saferule.msg import CostStatus, PolicyStatus
from saferule.srv import SwapPolicy
from saferule_core.errors import SaferuleError
from saferule_core.probation import Decision, Probation
from saferule_core.store.store import PolicyStore
from saferule_ros.client import NoAnswer, wait_for
from saferule_ros.messages import SENSOR

CALL_OFF_PAUSE_S = 0.1
"""How long to wait until an executor that is busy is asked again [s]."""

STATUS_WAIT_S = 1.0
"""How long to listen for the executor's status, which comes every tick [s]."""


class HandoverError(SaferuleError):
    """The executor did not answer, or refused; the robot keeps its policy."""


class Handover:
    """The server's line to one policy_executor."""

    def __init__(
        self, node: Node, store: PolicyStore, executor: str, timeout_s: float, callback_group: CallbackGroup
    ) -> None:
        self._node, self._store, self._timeout_s, self._group = node, store, timeout_s, callback_group
        self._swap = node.create_client(SwapPolicy, f"{executor}/swap_policy", callback_group=callback_group)
        self._hold = node.create_client(Trigger, f"{executor}/hold", callback_group=callback_group)
        self._end_probation = threading.Event()

    def close(self) -> None:
        """End a running probation and close the clients."""
        self._end_probation.set()
        self._node.destroy_client(self._swap)
        self._node.destroy_client(self._hold)

    def check_reachable(self) -> None:
        """Raise HandoverError where there is no executor to hand anything to."""
        if not self._swap.wait_for_service(self._timeout_s):
            raise HandoverError(
                f"{self._swap.srv_name}: expected a policy_executor within {self._timeout_s:g} s, found none; start it"
            )

    def running_policy(self) -> str:
        """Return the id of the policy that drives now, empty where no executor says so."""
        heard, found = threading.Event(), [""]

        def listen(status: PolicyStatus) -> None:
            found[0] = status.policy_id
            heard.set()

        with self._listening(PolicyStatus, "policy_status", listen):
            heard.wait(STATUS_WAIT_S)
        return found[0]

    def swap(
        self,
        policy_id: str,
        reason: str,
        probation_s: float = -1.0,
        probation_limit: float = 0.0,
        hold_on_failure: bool = False,
        shadow_s: float = -1.0,
        blend_ticks: int = -1,
    ) -> int:
        """Let a policy of the store drive and return its first tick; the store is not told yet.

        probation_s, probation_limit, hold_on_failure, shadow_s, blend_ticks: see SwapPolicy.srv; what is negative
        takes the executor's parameter. The executor answers once the shadow has driven; it is waited for for as long as
        the executor's status says that the policy runs beside the one that drives.

        Raises:
            HandoverError: the executor did not answer or refused; nothing was changed.
        """
        request = SwapPolicy.Request(
            policy_id=policy_id, reason=reason, blend_ticks=blend_ticks, shadow_s=float(shadow_s),
            probation_s=float(probation_s), probation_limit=float(probation_limit), hold_on_failure=hold_on_failure,
        )  # fmt: skip
        return self._call_swap(request)

    def call_off(self, incumbent_id: str, reason: str) -> None:
        """Let the policy that drove before a `swap`, which another thread waits for, drive on, or again.

        Raises:
            HandoverError: the executor did not answer, or still refuses after a while.
        """
        request = SwapPolicy.Request(policy_id=incumbent_id, reason=reason, shadow_s=0.0, probation_s=0.0)
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                self._call_swap(request)
                return
            except HandoverError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(CALL_OFF_PAUSE_S)  # the candidate is being loaded just now

    def take_back(self, reason: str) -> str:
        """Reject the policy that drives, let the previous one of the store drive again, and return its id.

        The rejection comes first: as long as a repair stands, the policy that it was made from may not drive.

        Raises:
            StoreError: there is no previous policy. HandoverError: as in `swap`.
        """
        self._end_probation.set()
        previous = self._store.resolve("previous")
        self._store.reject("active", reason)
        self._call_swap(SwapPolicy.Request(policy_id=previous, reason=reason, shadow_s=0.0, probation_s=0.0))
        return self._store.rollback(reason=reason)

    def begin_probation(self, probation: Probation) -> None:
        """Watch a policy in a thread of its own, until it has passed or is taken back; replaces an earlier watch."""
        self._end_probation.set()
        self._end_probation = threading.Event()
        watch = threading.Thread(
            target=self._watch, args=(probation, self._end_probation), name="probation", daemon=True
        )
        watch.start()

    def _call_swap(self, request: SwapPolicy.Request) -> int:
        self.check_reachable()
        shadows: deque[str] = deque([""], maxlen=1)
        with self._listening(PolicyStatus, "policy_status", lambda status: shadows.append(status.shadow_id)):
            call = self._swap.call_async(request)
            while True:
                try:
                    answer = wait_for(call, self._timeout_s, self._swap.srv_name)
                    break
                except NoAnswer as error:
                    if shadows[0] == request.policy_id and self._swap.service_is_ready():
                        continue  # also where time stands still, and nothing ticks
                    self._swap.remove_pending_request(call)
                    raise HandoverError(f"{error}; restart policy_executor") from error
        if not answer.success:
            raise HandoverError(f"policy_executor refused {request.policy_id[:12]}: {answer.message}")
        return answer.tick

    def _watch(self, probation: Probation, ended: threading.Event) -> None:
        decided, decision = threading.Event(), [Decision.WATCH, 0.0]
        drives = threading.Event()
        states = deque([PolicyStatus.STATE_INACTIVE], maxlen=1)
        completed = stood = 0

        def judge(status: CostStatus) -> None:
            nonlocal completed, stood
            if decided.is_set():
                return
            if status.policy_id != probation.candidate_id:
                if status.policy_id and drives.is_set():
                    ended.set()  # another one drives, by somebody else's decision
                return
            drives.set()
            if states[0] != PolicyStatus.STATE_RUNNING:
                stood += max(0, status.completed_episodes - completed)  # a robot that is held breaks no limit
            completed = status.completed_episodes
            decision[:] = (
                probation.judge(completed - stood, status.mean_episode_cost, status.violation_confirmed),
                status.mean_episode_cost,
            )
            if decision[0] is not Decision.WATCH:
                decided.set()

        listens_to_policy = self._listening(PolicyStatus, "policy_status", lambda status: states.append(status.state))
        with listens_to_policy, self._listening(CostStatus, "cost_status", judge):
            while not decided.wait(0.1):
                if ended.is_set():
                    return
        self._carry_out(decision[0], decision[1], probation)

    def _carry_out(self, decision: Decision, mean_cost: float, probation: Probation) -> None:
        log, name = self._node.get_logger(), probation.candidate_id[:12]
        if decision is Decision.PASSED:
            log.info(f"{name} passed its probation: mean episode cost {mean_cost:.2f}")
            return
        if decision is Decision.ROLL_BACK:
            log.error(f"{name} breaks its limit on the robot: rolling back to {probation.incumbent_id[:12]}")
            try:
                self.take_back(f"{name} broke its limit on probation")
                return
            except SaferuleError as error:
                log.error(f"cannot roll back: {error}")
        log.error(f"{name} breaks its limit, and no safer policy is at hand: holding the robot until ~/resume")
        self._hold.call_async(Trigger.Request())

    @contextlib.contextmanager
    def _listening(self, kind: type, topic: str, callback: Callable[[object], None]) -> Iterator[None]:
        """Subscribe for as long as the block lasts: status topics carry a message per tick, which costs time."""
        subscription = self._node.create_subscription(
            kind, topic, callback, SENSOR, callback_group=self._group,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )  # fmt: skip
        try:
            yield
        finally:
            self._node.destroy_subscription(subscription)
