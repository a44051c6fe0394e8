"""How long a request takes to end after it was cancelled, in each phase, through the real server over DDS.

    row = cancels(count=20)
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from saferule.action import Unlearn
from saferule.msg import UnlearnRequest, UnlearnResult
from saferule_ros.client import UnlearnClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from ros_testing import RosGraph  # noqa: E402 - the tests' graph and site, which are no installed packages
from sites import Site, make_site  # noqa: E402

PHASES = {
    "loading": Unlearn.Feedback.PHASE_LOADING, "detecting": Unlearn.Feedback.PHASE_DETECTING,
    "unlearning": Unlearn.Feedback.PHASE_UNLEARNING, "validating": Unlearn.Feedback.PHASE_VALIDATING,
}  # fmt: skip
LONGEST_DELAY_S = 0.5
LONGEST_RUN = 20_000


def cancels(count: int) -> dict[str, object]:
    """Cancel `count` requests, the phases in turn, each a random moment after the phase's first feedback.

    Returns:
        Seconds from the call to the result: quantiles of all, and the worst per phase that was broken off.
    """
    draw, seconds, worst = random.Random(0), [], dict.fromkeys(PHASES, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder))
        with RosGraph(Path(folder)) as graph:
            server = graph.start("unlearning_server", spec=site.spec, store=site.store, work_dir=site.work)
            graph.configure(server)
            graph.activate(server)
            client = UnlearnClient(graph.node)
            for number in range(count):
                wanted = list(PHASES)[number % len(PHASES)]
                result, took = _cancelled(client, _request(site, wanted), wanted, draw.uniform(0.0, LONGEST_DELAY_S))
                if result.status != UnlearnResult.STATUS_CANCELLED:
                    raise RuntimeError(f"expected a request that is cancelled, found: {result.message}")
                phase = next(name for name in PHASES if f"cancelled while {name}" in result.message)
                seconds.append(took)
                worst[phase] = max(worst[phase], took)
    p50, p95, longest = np.percentile(seconds, [50, 95, 100])
    return {
        "cancelled": count, "within_1_s": round(float(np.mean(np.array(seconds) <= 1.0)), 3), "p50_s": round(p50, 2),
        "p95_s": round(p95, 2), "max_s": round(longest, 2),
        **{f"max_{phase}_s": round(value, 2) for phase, value in worst.items()},
    }  # fmt: skip


def _request(site: Site, phase: str) -> UnlearnRequest:
    """Return a request that spends long enough in a phase to be cancelled there."""
    common = {"method": "finetune", "cost_limit": 20.0, "seed": 1, "confidence": 0.9}
    if phase == "detecting":
        bags = [*site.retain, *site.forget]
        return UnlearnRequest(retain_bags=bags, detect=True, detect_max_share=0.2, **common)
    return UnlearnRequest(
        retain_bags=site.retain, forget_bags=site.forget, validation_episodes=LONGEST_RUN, **common
    )


def _cancelled(client: UnlearnClient, request: UnlearnRequest, phase: str, delay: float) -> tuple[UnlearnResult, float]:
    """Return the result of a request that is cancelled `delay` s into a phase, and how long that took [s]."""
    begun, results = threading.Event(), []
    asking = threading.Thread(target=lambda: results.append(client.repair(request, follow)))

    def follow(feedback: Unlearn.Feedback) -> None:
        if feedback.phase == PHASES[phase]:
            begun.set()

    asking.start()
    while not begun.wait(0.1):
        if not asking.is_alive():
            raise RuntimeError(f"expected a request in the phase {phase}, found that it ended")
    time.sleep(delay)
    asked = time.monotonic()
    client.cancel()
    asking.join()
    return results[0], time.monotonic() - asked
