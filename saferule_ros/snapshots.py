"""The recorder's service `~/snapshot`: it answers when what led to the request, and a little more, is on disk.

    snapshots = Snapshots(node, delay_s=0.5, broken=break_off)
    node.create_service(Trigger, "~/snapshot", snapshots.on_request, callback_group=MutuallyExclusiveCallbackGroup())
    snapshots.begin(recording)            # a Recording or a RingRecording
    snapshots.end()                       # a snapshot that is under way is completed first

A large ring is written slice by slice, so that messages are taken in between. Requests that come while a snapshot is
under way get the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from saferule_core.data.recording import Recording
from saferule_core.data.ring_buffer import RingRecording
from saferule_core.errors import DataError

PAUSE_S = 1e-3
"""Between two slices [s wall]; whatever waits is served then."""


NOT_ACTIVE = "nothing is recorded: the recorder is not active"


class Snapshots:
    """Answers `~/snapshot` of a node; `broken` is called with the error when writing fails."""

    def __init__(self, node: Node, delay_s: float, broken: Callable[[DataError], None]) -> None:
        self._node, self._delay_s, self._broken = node, delay_s, broken
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._recording: Recording | RingRecording | None = None
        self._nothing = NOT_ACTIVE
        self._answer: Future | None = None
        self._pouring: Iterator[None] = iter(())
        self._timer = None

    def begin(self, recording: Recording | RingRecording) -> None:
        """Take snapshots of `recording` from now on."""
        self._recording, self._nothing = recording, NOT_ACTIVE

    def end(self, reason: str = "") -> None:
        """Take no more; complete the one that is under way, or with a `reason` refuse it: the recording broke off."""
        if reason:
            self._recording, self._nothing = None, reason
        if self._answer is not None:
            self._finish()
        self._recording = None

    async def on_request(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Answer a request; it awaits, so its service needs a callback group of its own."""
        if self._recording is None:
            response.message = self._nothing
            return response
        if self._answer is None:
            self._answer = Future(executor=self._node.executor)
            self._timer = self._node.create_timer(max(self._delay_s, PAUSE_S), self._pour, clock=self._steady)
        response.success, response.message = await self._answer
        return response

    def _pour(self) -> None:
        """The delay is over: begin to write."""
        self._node.destroy_timer(self._timer)
        self._pouring = self._recording.pour()
        self._timer = self._node.create_timer(PAUSE_S, self._on_slice, clock=self._steady)

    def _on_slice(self) -> None:
        try:
            next(self._pouring)
        except StopIteration:
            self._finish()
        except DataError as error:
            self._broken(error)

    def _finish(self) -> None:
        self._node.destroy_timer(self._timer)
        answer, self._answer = self._answer, None
        pouring, self._pouring = self._pouring, iter(())
        if self._recording is None:
            answer.set_result((False, self._nothing))
            return
        try:
            for _ in pouring:
                pass
            bags = self._recording.snapshot()
        except DataError as error:
            answer.set_result((False, str(error)))
            self._broken(error)
            return
        words = f"written to {', '.join(map(str, bags))}" if bags else "no message came since the last snapshot"
        self._node.get_logger().info(f"snapshot: {words}")
        answer.set_result((True, words))
