"""What the cost monitor sets going when a limit is broken: a snapshot of the recorder, and a proposal to unlearn.

    response = ViolationResponse(node, Reaction.PROPOSE, recorder="flight_recorder")
    response.begin(policy_id, reason, suspect_bags, retain_bags, swap=False)       # returns at once

The stop is none of its business: that is published before. Services are called without waiting for them; one that is
not there yet is called when it is (`retry`, some seconds long). What they answer is a line in the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from saferule.msg import UnlearnRequest
from saferule.srv import Unlearn
from saferule_core.errors import DataError
from saferule_core.proposals import Proposals, Reaction
from saferule_ros.messages import LATCHED

PATIENCE_S = 10.0
"""How long a service that is not there yet is waited for [s wall]."""


class ViolationResponse:
    """Clients and publisher for the moment after a violation; `recorder` is a node name, empty for none."""

    def __init__(self, node: Node, reaction: Reaction, recorder: str) -> None:
        self._node = node
        self._proposals = Proposals(reaction)
        self._publisher = self._unlearn = self._snapshot = None
        self._waiting: list[tuple[float, tuple]] = []
        if recorder:
            self._snapshot = node.create_client(Trigger, f"{recorder.rstrip('/')}/snapshot")
        if reaction is not Reaction.NONE:
            self._publisher = node.create_publisher(UnlearnRequest, "unlearn_proposal", LATCHED)
        if reaction is Reaction.START:
            self._unlearn = node.create_client(Unlearn, "unlearn")

    def close(self) -> None:
        """Give clients and publisher back."""
        for client in filter(None, (self._snapshot, self._unlearn)):
            self._node.destroy_client(client)
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)

    def begin(
        self, policy_id: str, reason: str, suspect_bags: Sequence[str], retain_bags: Sequence[str], swap: bool
    ) -> None:
        """Ask for a snapshot, and propose to unlearn where that is wanted and was not done for this policy."""
        if self._snapshot is not None:
            self._call(self._snapshot, Trigger.Request(), "snapshot", lambda answer: (answer.success, answer.message))
        try:
            proposal = self._proposals.on_violation(policy_id, suspect_bags, retain_bags)
        except DataError as error:
            self._node.get_logger().warning(f"nothing is proposed against {policy_id[:12] or 'this policy'}: {error}")
            return
        if proposal is None:
            return
        request = UnlearnRequest(
            forget_bags=list(proposal.forget_bags), retain_bags=list(proposal.retain_bags), swap=swap
        )
        self._publisher.publish(request)
        self._node.get_logger().warning(
            f"policy {policy_id[:12] or 'unknown'}: {reason}; proposing on unlearn_proposal to unlearn "
            f"{', '.join(proposal.forget_bags)}"
        )
        if self._unlearn is not None:
            self._call(
                self._unlearn, Unlearn.Request(request=request), "unlearning",
                lambda answer: (answer.accepted, answer.message or f"started as {answer.request_id}"),
            )  # fmt: skip

    def retry(self) -> None:
        """Call the services that were not there before; to be called about once per second."""
        waiting, self._waiting = self._waiting, []
        for deadline, call in waiting:
            self._call(*call, deadline=deadline)

    def _call(
        self,
        client: object,
        request: object,
        what: str,
        verdict: Callable[[object], tuple[bool, str]],
        deadline: float | None = None,
    ) -> None:
        """Call a service without waiting for it; `verdict` reads success and words from its answer."""
        logger = self._node.get_logger()
        if not client.service_is_ready():
            deadline = time.monotonic() + PATIENCE_S if deadline is None else deadline
            if time.monotonic() < deadline:
                self._waiting.append((deadline, (client, request, what, verdict)))
            else:
                logger.warning(f"{what}: expected a service {client.srv_name}, found none; is its node running?")
            return

        def done(future: Future) -> None:
            if future.exception() is not None:
                logger.warning(f"{what}: {client.srv_name} broke off: {future.exception()}")
                return
            well, words = verdict(future.result())
            if well:
                logger.info(f"{what}: {words}")
            else:
                logger.warning(f"{what} refused: {words}")

        client.call_async(request).add_done_callback(done)
