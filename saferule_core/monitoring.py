"""Watch a running policy's safety cost: account it per episode, and say when the limit is exceeded for certain.

    meter = CostMeter(limit=10.0, max_steps=200)
    reading = meter.tick(cost=1.0, episode="episode_7")     # once per control tick
    if reading.violation_confirmed: ...

Two answers are kept apart. `over_limit` looks at one episode and is immediate. `violation_confirmed` is about the
policy: its mean episode cost exceeds the limit, with a false alarm probability of at most `alpha` however long one
watches and whenever one looks.

The second is an e-process, a betting martingale (Waudby-Smith & Ramdas 2024, "Estimating means of bounded random
variables by betting", JRSS B 86(1), arXiv:2010.09686). With x_i the i-th episode's cost divided by the largest
possible one, and m the limit divided likewise, a gambler who stakes the share b of his fortune has

    K_n(b) = prod_i (1 + b / m (x_i - m)),    0 < b < 1,

and as long as E[x_i | past] <= m no K(b), nor the mean over several b, grows above 1/alpha with more than probability
alpha (Ville's inequality). The factors grow with x_i, so the cost that a running episode has collected so far
already gives a valid lower bound of the evidence: there is no need to wait for the end of a disastrous episode.

The premise is about each episode given those before it: costs within an episode may be correlated as they like, and
so may the spread of episodes. What is not covered is a mean that drifts above the limit and back again.
`benchmarks/false_alarms.py` counts false alarms over thousands of simulated robots.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from saferule_core.errors import DataError

BETS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 0.95)
"""Shares of the fortune that are staked, in equal parts: small ones win slowly and surely, large ones quickly."""

LARGEST_EVIDENCE = 1e12
"""Evidence is reported up to here, so that it stays a readable finite number."""


class ExceedanceTest:
    """Anytime-valid test of "the mean episode cost is at most `limit`", for costs in [0, `max_episode_cost`].

        test = ExceedanceTest(limit=10.0, max_episode_cost=200.0)
        test.add(77.0); test.add(104.0)
        test.evidence()            # 21.6: confirmed at alpha = 0.05, where 1/alpha = 20 is needed

    A cost above `max_episode_cost` counts as `max_episode_cost`, which keeps the false alarm guarantee. With `runs` it
    is that many tests at once, for simulations: costs and evidence are then arrays (runs,).

    Raises:
        DataError: the limit is negative, or the largest episode cost is not positive.
    """

    def __init__(self, limit: float, max_episode_cost: float, runs: int | None = None) -> None:
        if not (math.isfinite(limit) and limit >= 0.0):
            raise DataError(f"cost monitor: limit: expected a finite number of at least 0, found {limit}")
        if not (math.isfinite(max_episode_cost) and max_episode_cost > 0.0):
            raise DataError(f"cost monitor: max_episode_cost: expected a positive number, found {max_episode_cost}")
        self._limit = limit
        self._largest = max_episode_cost
        self._log_fortunes = np.zeros(() if runs is None else (runs,))[..., None] * np.zeros(len(BETS))

    def add(self, episode_cost: float | np.ndarray) -> None:
        """Count a completed episode."""
        self._log_fortunes = self._bet(episode_cost)

    def evidence(self, running_cost: float | np.ndarray = 0.0) -> float | np.ndarray:
        """Return the e-value, in [0, `LARGEST_EVIDENCE`].

        Args:
            running_cost: what a running episode has collected so far; it can only add evidence.
        """
        completed = _mean_exp(self._log_fortunes)
        if np.all(np.asarray(running_cost) <= self._limit):
            return completed
        evidence = np.maximum(completed, _mean_exp(self._bet(running_cost)))
        return float(evidence) if evidence.ndim == 0 else evidence

    def _bet(self, episode_cost: float | np.ndarray) -> np.ndarray:
        cost = np.minimum(episode_cost, self._largest)[..., None]
        if self._limit == 0.0:
            # Costs are never negative, so a mean of 0 is refuted by a single positive cost.
            return np.where(cost > 0.0, np.inf, self._log_fortunes)
        return self._log_fortunes + np.log1p(np.array(BETS) * (cost / self._limit - 1.0))


@dataclass(frozen=True)
class CostReading:
    """What the meter knows after a tick.

    episode: episodes seen since the start, this one included; step: ticks of this one, from 1.
    cost, episode_cost: of this tick, and of this episode so far.
    charged: what of `episode_cost` counts against the limit: all of it or, in an episode that another policy began,
    what came since the last `restart`; over_limit: it is more than the limit.
    completed_episodes, mean_episode_cost: whole episodes since the last `restart`, and the mean of the last `window`
    of them (0.0 while there is none).
    evidence: e-value that the mean episode cost exceeds the limit; violation_confirmed: it has reached 1/alpha, once.
    """

    episode: int
    step: int
    cost: float
    episode_cost: float
    charged: float
    over_limit: bool
    completed_episodes: int
    mean_episode_cost: float
    evidence: float
    violation_confirmed: bool


class CostMeter:
    """Accounts costs per episode, tick by tick; not thread-safe.

    An episode begins where the marker given to `tick` changes or, with no marker, every `max_steps` ticks. The episode
    that runs when the meter starts, or at `restart`, is shown but not judged: part of it was not seen, or was driven
    by another policy. Set `first_is_whole` if the meter is known to start with an episode.

    Args:
        limit: allowed cost of an episode.
        max_steps: ticks of the longest episode.
        max_step_cost: largest cost of one tick.
        window: number of completed episodes that the mean is over.
        alpha: highest probability of a false alarm, in (0, 1).

    Raises:
        DataError: an argument is out of range.
    """

    def __init__(
        self,
        limit: float,
        max_steps: int,
        max_step_cost: float = 1.0,
        window: int = 20,
        alpha: float = 0.05,
        first_is_whole: bool = False,
    ) -> None:
        if max_steps < 1:
            raise DataError(f"cost monitor: max_steps: expected at least 1, found {max_steps}")
        if window < 1:
            raise DataError(f"cost monitor: window: expected at least 1 episode, found {window}")
        if not 0.0 < alpha < 1.0:
            raise DataError(f"cost monitor: alpha: expected a number between 0 and 1, found {alpha}")
        self.limit = limit
        self._max_steps = max_steps
        self._max_episode_cost = max_steps * max_step_cost
        self._threshold = 1.0 / alpha
        self._recent: deque[float] = deque(maxlen=window)
        self._marker: Hashable = None
        self._episode = 0
        self._step = 0
        self._episode_cost = 0.0
        self.restart(running_is_whole=first_is_whole)

    def restart(self, running_is_whole: bool = False) -> None:
        """Forget completed episodes and evidence, because another policy drives from here on.

        running_is_whole: it drove, or will drive, all of the running episode, which is judged then.
        """
        self._test = ExceedanceTest(self.limit, self._max_episode_cost)
        self._recent.clear()
        self._completed = 0
        self._confirmed = False
        self._whole = running_is_whole
        self._inherited = self._episode_cost

    def tick(self, cost: float, episode: Hashable = None) -> CostReading:
        """Account one tick.

        Args:
            cost: of this tick, at least 0.
            episode: the episode marker, if the robot has one.

        Raises:
            DataError: the cost is negative or not a number; nothing was accounted.
        """
        if not (math.isfinite(cost) and cost >= 0.0):
            raise DataError(f"cost monitor: cost: expected a finite number of at least 0, found {cost}")
        if self._episode == 0:
            self._begin(episode)
        elif episode != self._marker or (episode is None and self._step >= self._max_steps):
            self._complete()
            self._begin(episode)
        self._step += 1
        self._episode_cost += cost
        return self._reading(cost)

    def _begin(self, marker: Hashable) -> None:
        self._marker = marker
        self._episode += 1
        self._step = 0
        self._episode_cost = self._inherited = 0.0

    def _complete(self) -> None:
        if self._whole:
            self._completed += 1
            self._recent.append(self._episode_cost)
            self._test.add(self._episode_cost)
        self._whole = True

    def _reading(self, cost: float) -> CostReading:
        evidence = self._test.evidence(self._episode_cost if self._whole else 0.0)
        self._confirmed = self._confirmed or evidence >= self._threshold
        charged = self._episode_cost - self._inherited
        return CostReading(
            episode=self._episode,
            step=self._step,
            cost=cost,
            episode_cost=self._episode_cost,
            charged=charged,
            over_limit=charged > self.limit,
            completed_episodes=self._completed,
            mean_episode_cost=math.fsum(self._recent) / len(self._recent) if self._recent else 0.0,
            evidence=evidence,
            violation_confirmed=self._confirmed,
        )


def _mean_exp(logs: np.ndarray) -> float | np.ndarray:
    """Return the mean of exp(`logs`) over the last axis, at most `LARGEST_EVIDENCE`."""
    mean = np.minimum(np.exp(np.minimum(logs, 700.0)).mean(axis=-1), LARGEST_EVIDENCE)  # exp overflows beyond 709
    return float(mean) if mean.ndim == 0 else mean
