"""The operator's side of the `unlearn` action, for scripts: send a request, follow its feedback, get the result.

    client = UnlearnClient(node)                       # `node` is spun elsewhere, in another thread
    result = client.repair(request, on_feedback)       # blocks; result.status, result.message
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

from saferule.action import Unlearn
from saferule.msg import UnlearnRequest, UnlearnResult
from saferule_core.errors import SaferuleError

PATROL_S = 0.5
GONE_S = 5.0
"""How long a server may be out of sight while its result is awaited [s]."""


class NoAnswer(SaferuleError):
    """A node did not answer in time."""


def wait_for(future: Future, timeout_s: float, what: str) -> object:
    """Block until `future` is done and return its result; the node it belongs to is spun in another thread.

    Raises:
        NoAnswer: it took longer than `timeout_s` [s].
    """
    done = threading.Event()
    future.add_done_callback(lambda _future: done.set())
    if not done.wait(timeout_s):
        raise NoAnswer(f"{what}: expected an answer within {timeout_s:g} s, found none")
    return future.result()


class _WholeActionClient(ActionClient):
    """An action client for a node that another thread spins.

    rclpy shows a new client to that thread before it has made the lock that the thread takes. And it replaces the
    future of a goal by another one after the goal is sent (9.1.2): an answer that comes in between is lost.
    """

    def __init__(self, *arguments: object) -> None:
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        super().__init__(*arguments)

    def send_goal_async(self, *arguments: object, **options: object) -> Future:
        with self._sending:
            return super().send_goal_async(*arguments, **options)

    def take_data(self) -> dict:
        with self._sending:
            return super().take_data()


class UnlearnClient:
    """Calls the `unlearn` action of an unlearning_server."""

    def __init__(self, node: Node, action: str = "unlearn") -> None:
        self._client = _WholeActionClient(node, Unlearn, action)
        self._goal = None

    def repair(
        self,
        request: UnlearnRequest,
        on_feedback: Callable[[Unlearn.Feedback], None],
        answer_timeout_s: float = 10.0,
        result_timeout_s: float = 3600.0,
    ) -> UnlearnResult:
        """Send `request` and block until its result.

        Raises:
            NoAnswer: the server is not there, goes away, or takes longer than `result_timeout_s` [s].
        """
        if not self._client.wait_for_server(timeout_sec=answer_timeout_s):
            raise NoAnswer("action unlearn: expected an active unlearning_server, found none; start it")
        goal = Unlearn.Goal(request=request)
        sent = self._client.send_goal_async(goal, feedback_callback=lambda message: on_feedback(message.feedback))
        self._goal = wait_for(sent, answer_timeout_s, "action unlearn")
        if not self._goal.accepted:
            raise NoAnswer("action unlearn: expected the goal to be accepted, found it refused; is the server active?")
        return self._result(result_timeout_s).result.result

    def _result(self, timeout_s: float) -> object:
        """Wait for the result of the goal, as long as somebody is there to send it."""
        future, done = self._goal.get_result_async(), threading.Event()
        future.add_done_callback(lambda _future: done.set())
        last_seen = time.monotonic()
        deadline = last_seen + timeout_s
        while not done.wait(PATROL_S):
            now = time.monotonic()
            if self._client.server_is_ready():
                last_seen = now
            if now - last_seen > GONE_S:
                raise NoAnswer("action unlearn: expected a result, found that unlearning_server is gone; see its log")
            if now > deadline:
                raise NoAnswer(f"action unlearn: expected a result within {timeout_s:g} s, found none")
        return future.result()

    def cancel(self) -> None:
        """Ask the server to stop; `repair` then returns with STATUS_CANCELLED."""
        if self._goal is not None:
            self._goal.cancel_goal_async()


class Spinner:
    """Spins a node in a thread, for programs that are not nodes themselves."""

    def __init__(self, node: Node) -> None:
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="spinner", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=5.0)
        self._executor.shutdown(timeout_sec=1.0)
