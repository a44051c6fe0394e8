"""How a policy gets into the executor's loop, and out of it again: everything but the assignment is done aside.

    swapping = Swapping(node, controller, store, defaults)
    node.create_service(SwapPolicy, "~/swap_policy", swapping.on_swap, callback_group=ReentrantCallbackGroup())
    swapping.after_tick()                         # a shadow that has finished takes over, or is refused
    swapping.record_failure(reverted)             # the store learns what the loop did by itself

Policies are read, checked and warmed up in one loader thread, which also writes to the store. A guard condition brings
a loaded policy back to the executor's thread, which assigns it between two ticks.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from concurrent.futures import Future as LoadedFuture
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future

from saferule.srv import SwapPolicy
from saferule_core.agents.memory import LONGEST_MEMORY, Memory
from saferule_core.control import Controller, Policy, ProbationTerms, Reverted, Shadow
from saferule_core.errors import SaferuleError
from saferule_core.spec import RobotSpec
from saferule_core.store.bundle import load_policy
from saferule_core.store.store import PolicyStore
from saferule_ros.managed_node import ManagedNode

WARM_UP_CALLS = 10
"""The first answers of a network are slow: memory is allocated and kernels are chosen."""

ASKED_BY = "policy_executor, probation"


class SwapRefused(SaferuleError):
    """The policy does not take over; the one before drives on."""


@dataclass(frozen=True)
class SwapDefaults:
    """What a request that leaves it open gets; see SwapPolicy.srv and the node's parameters."""

    blend_ticks: int = 0
    shadow_s: float = 0.0
    shadow_threshold: float = 0.5
    probation_s: float = 0.0
    probation_share: float = 1.0
    probation_grace_s: float = 0.0


@dataclass(frozen=True)
class _Swap:
    """A request on its way."""

    loading: LoadedFuture
    answer: Future
    blend_ticks: int
    shadow_ticks: int
    probation: ProbationTerms | None


def load(store: PolicyStore, name: str, spec: RobotSpec) -> tuple[str, Policy]:
    """Return id and policy of a name in the store, checked and warm.

    Checked are content hashes, signature, history, description, shapes, finite weights, and the answers to its probes.

    Raises:
        StoreError, SpecError: it may not or cannot drive.
    """
    policy = load_policy(store.path_to_drive(name), spec)
    memory = Memory(LONGEST_MEMORY, spec.obs_dim, spec.action_dim)
    observation = np.zeros((1, spec.obs_dim), dtype=np.float32)
    for _ in range(WARM_UP_CALLS):
        memory.add(observation, policy.act(observation, memory))
    return policy.policy_id, policy


class Swapping:
    """What one executor node does about swaps, its loader thread, and a swap that is under way."""

    def __init__(
        self, node: ManagedNode, controller: Controller, store: PolicyStore, defaults: SwapDefaults
    ) -> None:
        self._node, self._controller, self._store, self._defaults = node, controller, store, defaults
        self._spec, self._policies = controller.spec, controller.succession
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy_loader")
        self._under_way: _Swap | None = None
        self._loaded = node.create_guard_condition(self._on_loaded, MutuallyExclusiveCallbackGroup())

    def close(self) -> None:
        """Wait for the loader thread, and end it."""
        self._loader.shutdown(wait=True)
        if self._under_way is not None:
            self._finish(SwapRefused("expected an executor that is configured, found it cleaned up meanwhile"))
        self._node.destroy_guard_condition(self._loaded)

    def abandon(self, why: str) -> None:
        """Refuse a shadow that has not finished: nobody ticks any more."""
        if self._policies.shadow is not None:
            self._policies.shadow = None
            self._finish(SwapRefused(f"expected the shadow to finish, found that {why}"))

    @property
    def under_way(self) -> bool:
        """Whether a policy is being loaded, or runs as a shadow."""
        return self._under_way is not None

    # -- in the executor's thread ------------------------------------------------------------------------------------

    async def on_swap(self, request: SwapPolicy.Request, response: SwapPolicy.Response) -> SwapPolicy.Response:
        """Read the policy aside, then exchange it; answers when it drives, or with the reason why it does not.

        Who asks for the policy that drives already calls off the one that runs beside it.
        """
        controller, log = self._controller, self._node.get_logger()
        response.previous_id = controller.policy_id
        if self._policies.shadow is not None and request.policy_id == controller.policy_id:
            self.abandon("it was called off: " + (request.reason or "no reason given"))
        if self._under_way is not None:
            response.success, response.message = False, "another policy is being loaded; try again when it drives"
            return response
        try:
            swap = self._under_way = self._begin(request)
            swap.loading.add_done_callback(lambda _loading: self._loaded.trigger())
            response.tick = await swap.answer
        except SaferuleError as error:
            response.success, response.message = False, str(error)
            log.error(f"swap refused, {response.previous_id[:12]} drives on: {error}")
            return response
        response.success = True
        response.message = f"policy {controller.policy_id[:12]} drives from tick {response.tick}"
        log.info(f"{response.message}, after {response.previous_id[:12]}: {request.reason or 'no reason given'}")
        return response

    def _begin(self, request: SwapPolicy.Request) -> _Swap:
        defaults, rate = self._defaults, self._spec.rate_hz
        for name in ("shadow_s", "probation_s", "probation_limit"):
            if not math.isfinite(getattr(request, name)):
                raise SwapRefused(f"{name}: expected a finite number, found {getattr(request, name)}")
        blend = request.blend_ticks if request.blend_ticks >= 0 else defaults.blend_ticks
        shadow_s = request.shadow_s if request.shadow_s >= 0.0 else defaults.shadow_s
        probation_s = request.probation_s if request.probation_s >= 0.0 else defaults.probation_s
        terms = None
        if probation_s > 0.0:
            usual = defaults.probation_share * self._spec.cost.limit
            limit = request.probation_limit if request.probation_limit > 0.0 else usual
            grace = round(defaults.probation_grace_s * rate)
            terms = ProbationTerms(max(1, round(probation_s * rate)), limit, request.hold_on_failure, grace)
        loading = self._loader.submit(load, self._store, request.policy_id, self._spec)
        return _Swap(loading, Future(executor=self._node.executor), blend, round(shadow_s * rate), terms)

    def _on_loaded(self) -> None:
        """Runs in the executor's thread, so never during a tick."""
        swap = self._under_way
        if swap is None or not swap.loading.done() or self._policies.shadow is not None:
            return
        error = swap.loading.exception()
        if error is not None:
            self._finish(error)
            return
        gc.freeze()  # what was loaded stays: the collector need not look at it
        policy_id, policy = swap.loading.result()
        if swap.shadow_ticks and not self._node.working:
            self._finish(SwapRefused("expected a robot that drives, for the shadow, found policy_executor inactive"))
        elif swap.shadow_ticks:
            self._policies.shadow = Shadow(
                policy, policy_id, swap.shadow_ticks, self._defaults.shadow_threshold, 1.0 / self._spec.rate_hz
            )
            self._node.get_logger().info(f"{policy_id[:12]} runs beside {self._controller.policy_id[:12]} first")
        else:
            self._take_over(policy_id, policy)

    def after_tick(self) -> None:
        """Let a shadow that has finished take over, or refuse it."""
        shadow = self._policies.shadow
        if shadow is None or not shadow.finished:
            return
        self._policies.shadow = None
        if shadow.refusal:
            self._finish(SwapRefused(shadow.refusal))
        else:
            self._take_over(shadow.policy_id, shadow.policy)

    def _take_over(self, policy_id: str, policy: Policy) -> None:
        swap = self._under_way
        self._controller.swap(policy, policy_id, swap.blend_ticks, swap.probation)
        if swap.probation is not None and not self._controller.hears_monitor:
            self._node.get_logger().warning(
                f"{policy_id[:12]} is on probation and no cost_status comes: its cost is not watched"
            )
        self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        swap, self._under_way = self._under_way, None
        if isinstance(error, SaferuleError):
            swap.answer.set_exception(error)
        elif error is not None:
            swap.answer.set_exception(SwapRefused(f"expected a policy that answers, found {error!r}"))
        else:
            swap.answer.set_result(self._policies.last_swap_tick)

    # -- in the loader's thread --------------------------------------------------------------------------------------

    def record_failure(self, reverted: Reverted) -> None:
        """Let the store know, aside, that a policy failed its probation: it is rejected, and `active` goes back."""
        self._loader.submit(self._logged, lambda: self._reject(reverted))

    def _reject(self, reverted: Reverted) -> None:
        store = self._store
        store.reject(reverted.policy_id, reverted.reason, asked_by=ASKED_BY)
        if not reverted.previous_id or store.active() != reverted.policy_id:
            return
        if store.previous() == reverted.previous_id:
            store.rollback(reverted.reason, asked_by=ASKED_BY)
        else:
            store.activate(reverted.previous_id, reverted.reason, asked_by=ASKED_BY)

    def _logged(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # nobody looks at what became of it
            self._node.get_logger().error(f"the store does not follow what the robot does: {error}")
