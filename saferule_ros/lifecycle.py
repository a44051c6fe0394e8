"""Changes the lifecycle states of nodes from outside, as an operator or a bring-up does.

    manager = LifecycleManager(node)                # `node` is spun elsewhere, in another thread
    manager.change("/cost_monitor", "configure")    # blocks; raises BringUpError with what to do

Only services are used: `~/transition_event` may be missed by a listener that has just come.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from rclpy.node import Node

from saferule_ros.bringup import BringUpError

START_TIMEOUT_S = 60.0
"""How long a node may take until its services are there [s]; a loaded machine imports slowly."""

CHANGE_TIMEOUT_S = 60.0
"""How long a transition may take [s]; configuring reads policies and builds simulations."""

POLL_S = 0.02

_TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}


class LifecycleManager:
    """Calls the lifecycle services of other nodes; `check` is called while waiting and may raise to end the wait."""

    def __init__(self, node: Node, check: Callable[[], None] = lambda: None) -> None:
        self._node = node
        self._check = check

    def change(
        self,
        name: str,
        transition: str,
        start_timeout_s: float = START_TIMEOUT_S,
        change_timeout_s: float = CHANGE_TIMEOUT_S,
    ) -> None:
        """Take the node `name` (with namespace) through a transition: configure, activate, deactivate or cleanup.

        Raises:
            BringUpError: the node is not there in time, does not answer in time, or refuses.
        """
        request = ChangeState.Request(transition=Transition(id=_TRANSITIONS[transition], label=transition))
        response = self._call(ChangeState, f"{name}/change_state", request, start_timeout_s, change_timeout_s)
        if not response.success:
            raise BringUpError(
                f"{name}: expected it to {transition}, found it {self.state(name)} afterwards; its log says why"
            )

    def state(self, name: str, timeout_s: float = 5.0) -> str:
        """Return the state of the node `name`, such as `inactive`; raises BringUpError."""
        return self._call(GetState, f"{name}/get_state", GetState.Request(), timeout_s, timeout_s).current_state.label

    def _call(
        self, kind: type, service: str, request: object, start_timeout_s: float, answer_timeout_s: float
    ) -> object:
        client = self._node.create_client(kind, service)
        try:
            self._wait(client.service_is_ready, start_timeout_s, f"service {service}: expected it to be there")
            return self._answer(client, request, service, answer_timeout_s)
        finally:
            self._node.destroy_client(client)

    def _answer(self, client: Client, request: object, service: str, timeout_s: float) -> object:
        future = client.call_async(request)
        self._wait(future.done, timeout_s, f"service {service}: expected an answer")
        return future.result()

    def _wait(self, condition: Callable[[], bool], timeout_s: float, expected: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._check()
            if time.monotonic() > deadline:
                raise BringUpError(f"{expected} within {timeout_s:g} s, found none; is the node running?")
            time.sleep(POLL_S)
