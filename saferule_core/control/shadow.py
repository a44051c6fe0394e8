"""A candidate beside the incumbent: it sees the same, nothing that it says is done, and what it would do is compared.

    shadow = Shadow(candidate, candidate_id, ticks=50, threshold=0.5, period_s=0.02)
    shadow.compare(observation, memory, action)      # after a tick's command is on its way
    shadow.finished, shadow.refusal                  # empty where it may take over
"""

from __future__ import annotations

import time

import numpy as np

from saferule_core.agents.memory import Memory
from saferule_core.control.slot import Policy

PATIENCE = 4
"""The robot has to drive in at least one of so many ticks, or the comparison ends without a result."""


class Shadow:
    """Compares for `ticks` driven ticks.

    Args:
        threshold: largest mean difference that is accepted; a tick's difference is that of the most different channel,
            in units of the action, which lies in [-1, 1].
        period_s: length of a control period [s]; a candidate that takes longer on average is refused.

    Attributes:
        compared: ticks compared so far. worst: largest difference of a tick. finished, refusal: the result.
    """

    def __init__(self, policy: Policy, policy_id: str, ticks: int, threshold: float, period_s: float) -> None:
        self.policy, self.policy_id = policy, policy_id
        self._ticks, self._threshold, self._period_s = ticks, threshold, period_s
        self.compared = self._waited = 0
        self._sum = self._seconds = self.worst = 0.0
        self.finished = False
        self.refusal = ""

    @property
    def difference(self) -> float:
        """Mean difference over the ticks compared so far, 0 before the first one."""
        return self._sum / self.compared if self.compared else 0.0

    def compare(self, observation: np.ndarray, memory: Memory, action: np.ndarray) -> None:
        """Ask the candidate about an observation (obs_dim,) to which the incumbent gave `action` (action_dim,)."""
        begun = time.perf_counter()
        try:
            answer = np.asarray(self.policy.act(observation[None], memory))
        except Exception as error:  # whatever a policy raises, the incumbent drives on
            self._end(f"expected an action, found {type(error).__name__}: {error}")
            return
        self._seconds += time.perf_counter() - begun
        if answer.shape != (1, len(action)) or not np.isfinite(answer).all():
            self._end(f"expected a finite action of shape {(1, len(action))}, found {answer}")
            return
        difference = float(np.abs(np.clip(answer[0], -1.0, 1.0) - np.clip(action, -1.0, 1.0)).max())
        self.compared += 1
        self._sum += difference
        self.worst = max(self.worst, difference)
        if self.compared >= self._ticks:
            self._judge()

    def wait(self) -> None:
        """Take note of a tick in which the incumbent did not drive."""
        self._waited += 1
        if self._waited > PATIENCE * self._ticks:
            self._end(f"expected {self._ticks} ticks in which the robot drives, found {self.compared}")

    def _judge(self) -> None:
        if self.difference > self._threshold:
            self._end(
                f"expected actions within {self._threshold:g} of the incumbent's on average, "
                f"found {self.difference:.3f}"
            )
        elif self._seconds > self.compared * self._period_s:
            mean = self._seconds / self.compared
            self._end(f"expected an answer within {self._period_s:g} s, found {mean:.4f} s on average")
        self.finished = True

    def _end(self, refusal: str) -> None:
        self.refusal, self.finished = f"shadow of {self.policy_id[:12]}: {refusal}", True
