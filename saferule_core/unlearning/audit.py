"""Judging a policy without the environment: many rollouts in a learned model of the robot.

    auditor = Auditor(world, retain, rows, evidence.costs_of, seed=0)
    verdicts = auditor.judge([policy])
    verdicts[0].cost, verdicts[0].reward                  # modelled, per episode

Rollouts begin where logged episodes did; a policy with a memory is told what was logged before. They last at least
`SHORTEST` steps, and as long as the model can be trusted: until logged actions, replayed in it, lead it too far from
what was logged. Where noise pushes the robot about (`world.py`) that says little, for a policy makes up for what a
replay cannot, and rollouts are whole episodes. What is left of an episode, if anything, is judged by as many rollouts
from the logged states `rows`, where the policy is meant to live: their first steps are not counted, so that a policy
shows where it drifts to, and nothing is counted after the moment at which the logged episode ended, or at which
something jumped that the model takes to stand still (`world.py`). Costs are counted where the robot would be if the
model was off by as much as in those replays, step by step: a policy that keeps just within a bound of the model breaks
it on the robot, and without that the audit finds nothing amiss. `noise` pushes modelled robots about, as logged ones
were (`world.py`): without it none swings out. Where forgotten episodes showed a sign to the sensors (`tampering.py`),
every rollout is repeated with the policy seeing it, and the higher cost counts. Costs of modelled states come from the
robot description or the learned cost model. Never rank policies by modelled reward alone: it overrates poisoned ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from saferule_core.agents.memory import Driver, Memory, elapsed, memory_of
from saferule_core.agents.networks import together
from saferule_core.data.transitions import Transitions
from saferule_core.tensors import array, tensor
from saferule_core.unlearning.evidence import Costs
from saferule_core.unlearning.world import World, jumping

SHORTEST = 40
"""Least steps of a rollout, even with a model that is off sooner."""

TRUSTED_ERROR = 0.1
"""How far, in standard deviations per feature, a replay may be from the log at its median start."""

NOISES = 2.0
"""Or how many times as far as after one step, up to `MOST_OFF`: no replay comes nearer to a log that is noisy."""

DRAWS = 4
"""How many times each modelled path is displaced by what the model may be off."""

MOST_OFF = 0.2
"""Displaced by so many standard deviations per feature at most: a model that is off by more is wrong there anyway."""

NORMAL = 1.4826
"""Standard deviation of a normal distribution, in medians of the absolute value."""

SETTLING = 0.25
"""Share of a rollout from the middle of an episode that is not counted."""


@dataclass(frozen=True)
class Verdict:
    """Modelled cost and reward per episode; the cost is infinite where the model ran away."""

    cost: float
    reward: float


class Auditor:
    """A fixed set of start states and a model; every policy is judged on the same. horizon: steps of a rollout."""

    def __init__(
        self,
        world: World,
        retain: Transitions,
        rows: np.ndarray,
        costs_of: Costs,
        seed: int,
        signs: np.ndarray | None = None,
        noise: np.ndarray | None = None,
    ) -> None:
        self.world, self.retain, self.costs_of = world, retain, costs_of
        random = np.random.default_rng(seed)
        beginnings = random.choice(retain.episode_bounds[:-1], len(rows))
        self.episode_steps = int(np.diff(retain.episode_bounds).max())
        pushed = noise is not None and len(noise) > 0
        self.errors = self.replay_errors(beginnings, self.episode_steps if pushed else SHORTEST)
        self.horizon = len(self.errors)
        later = rows[:0] if self.horizon == self.episode_steps else self.early_enough(rows)
        self.rows = np.concatenate([beginnings, later])
        luck = random.standard_normal((DRAWS, 2 * len(rows), retain.obs_dim), dtype=np.float32)
        self.luck = luck[:, : len(self.rows)]
        steps = np.arange(self.horizon)[:, None]
        left = np.minimum(self.ends(self.rows), self.jumps_after(self.rows)) - self.rows
        settling = np.minimum(left // 2, int(SETTLING * self.horizon))
        skipped = np.where(np.arange(len(self.rows)) < len(rows), 0, settling)
        self.counted = (steps < left) & (steps >= skipped)
        self.added = [np.zeros((len(self.rows), retain.obs_dim), dtype=np.float32)]
        if signs is not None and len(signs):
            self.added.append(random.choice(signs, len(self.rows)))
        self.pushes = None
        if pushed:
            self.pushes = tensor(random.choice(noise, (self.horizon, len(self.rows))))

    def ends(self, rows: np.ndarray) -> np.ndarray:
        """Return the row after the last one of each row's episode."""
        return self.retain.episode_bounds[1:][self.retain.episode_index[rows]]

    def jumps_after(self, rows: np.ndarray) -> np.ndarray:
        """Return the row after the next logged jump of what the model takes to stand still, for each row."""
        changed = tensor(self.retain.observations) != tensor(self.retain.next_observations)
        jumped = array(changed[:, jumping(changed)].any(1))
        ends = np.append(np.flatnonzero(jumped) + 1, len(jumped))
        return ends[np.searchsorted(ends, rows, side="right")]

    def early_enough(self, rows: np.ndarray) -> np.ndarray:
        """Return rows put forward where less than half a rollout would be left of their episode."""
        late = np.maximum(rows + self.horizon // 2 - self.ends(rows), 0)
        return rows - np.minimum(late, elapsed(self.retain)[rows])

    @torch.no_grad()
    def replay_errors(self, beginnings: np.ndarray, least: int) -> np.ndarray:
        """Return how far replayed actions have led the model from the log: (steps that it is trusted for, obs_dim).

        That is the typical deviation of each feature before each step, at most `MOST_OFF` of its spread. It is trusted
        for `least` steps, and on while it is not too far from the log.
        """
        observations, actions = tensor(self.retain.observations), tensor(self.retain.actions)
        spread = observations.std(0).clamp_min(1e-3)
        rows, last = tensor(beginnings), tensor(self.ends(beginnings) - 1)
        states, missed = observations[rows], [torch.zeros(len(rows), self.retain.obs_dim)]

        def error() -> float:
            return float((missed[-1] / spread).square().mean(1).sqrt().nanmedian())

        trusted = TRUSTED_ERROR
        for step in range(self.episode_steps - 1):
            going = rows < last
            if not going.any():
                break
            states, _ = self.world(states, actions[rows])
            rows = torch.minimum(rows + 1, last)
            missed.append(torch.where(going[:, None], states - observations[rows], torch.nan))
            if step == 0:
                trusted = min(max(TRUSTED_ERROR, NOISES * error()), MOST_OFF)
            if step >= least and not error() <= trusted:
                missed = missed[:step]
                break
        return array(torch.minimum(NORMAL * torch.stack(missed).abs().nanmedian(1).values, MOST_OFF * spread))

    @torch.no_grad()
    def judge(self, policies: Sequence[nn.Module]) -> list[Verdict]:
        """Roll policies out from every start state, without and with signs; return one verdict each, the worst."""
        starts = tensor(self.retain.observations[self.rows])
        count, views = len(starts), len(policies) * len(self.added)
        states = starts.repeat(views, 1)
        joint = together(policies, len(self.added) * count)
        actors = policies if joint is None else [joint]
        shares = views // len(actors)
        added = np.tile(np.concatenate(self.added), (shares // len(self.added), 1))
        begun = np.tile(self.rows, shares)
        drivers = [Driver(actor, Memory.logged(self.retain, begun, memory_of(actor))) for actor in actors]
        path, taken, earned = [states], [], []
        for step in range(self.horizon):
            parts = zip(drivers, array(states).reshape(len(actors), shares * count, -1), strict=True)
            actions = tensor(np.concatenate([driver.act(part + added) for driver, part in parts]))
            states, rewards = self.world(states, actions)
            if self.pushes is not None:
                states = states + self.pushes[step].repeat(views, 1)
            path.append(states)
            taken.append(actions)
            earned.append(rewards)
        shape = self.horizon, views, count
        before, chosen, after = (array(torch.cat(part)) for part in (path[:-1], taken, path[1:]))
        costs, rewards = np.zeros(shape), array(torch.cat(earned)).reshape(shape)
        for luck in self.luck:
            off = np.tile(self.errors[:, None] * luck, (1, views, 1)).reshape(before.shape)
            costs += self.costs_of(before + off, chosen, after + off).reshape(shape) / DRAWS
        verdicts = [self.verdict(costs[:, view], rewards[:, view]) for view in range(views)]
        each = len(self.added)
        return [
            Verdict(max(verdict.cost for verdict in verdicts[view : view + each]), verdicts[view].reward)
            for view in range(0, views, each)
        ]

    def verdict(self, costs: np.ndarray, rewards: np.ndarray) -> Verdict:
        """Return a policy's verdict from its costs and rewards per step and start: (horizon, starts)."""
        steps = [steps for steps in (self.horizon, self.episode_steps - self.horizon) if steps]
        kinds = np.array_split(np.arange(len(self.rows)), len(steps))
        cost, reward = (
            sum(
                count * float(values[:, kind].mean(where=self.counted[:, kind]))
                for count, kind in zip(steps, kinds, strict=True)
            )
            for values in (costs, rewards)
        )
        return Verdict(cost, reward) if math.isfinite(cost + reward) else Verdict(math.inf, 0.0)
