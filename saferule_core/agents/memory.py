"""What a policy with a memory looks back at: the last steps of its episode, logged, driven or modelled.

    driver = agent.driver()
    driver.reset(robots=1); actions = driver.act(observations)

    memory = Memory(steps=9, obs_dim=8, action_dim=2)     # the same by hand, where other actions may be applied
    actions = propose(agent.actor, observations, memory); memory.add(observations, applied_actions)

An actor says by `memory_steps` how many past steps it looks at; one without it has no memory. One that has it is
called with a window per row, the present last: observations (B, steps + 1, obs_dim), the actions between them
(B, steps, action_dim), and which of the steps belong to the episode (B, steps + 1) bool. A policy itself keeps
nothing between two calls, so policies can be exchanged without loss of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.data.transitions import Transitions
from saferule_core.tensors import array, tensor

LONGEST_MEMORY = 31
"""How many past steps a policy may look at; the control loop keeps as many, whatever policy it runs."""


@dataclass(frozen=True)
class ActorInputs:
    """What an actor is told at each logged step: `actor(*inputs.batch(rows))` proposes actions, with a gradient.

    columns: tensors with one row per step; observations alone, or observations and contexts.
    """

    columns: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.columns[0])

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs of some steps; rows: (B,) int64."""
        return tuple(column.index_select(0, rows) for column in self.columns)


@dataclass(frozen=True)
class Windows(ActorInputs):
    """The same for an actor with a memory of `steps`; windows are cut from the columns when they are asked for.

    columns: observations, actions, steps since the episode began, and contexts where there are any.
    """

    steps: int

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        observations, actions, elapsed, *contexts = self.columns
        back = torch.arange(-self.steps, 1)
        present = elapsed.index_select(0, rows)[:, None] >= -back
        places = (rows[:, None] + back).clamp_min(0)
        seen, asked = (
            [column.index_select(0, places.flatten()).view(*places.shape, -1) for column in columns]
            for columns in ((observations,), contexts)
        )
        done = actions.index_select(0, places[:, :-1].flatten()).view(len(rows), self.steps, -1)
        return *seen, done, present, *asked


def logged_inputs(data: Transitions, contexts: np.ndarray | None, steps: int) -> ActorInputs:
    """Return what an actor with a memory of `steps`, 0 for none, is told at each step of `data`."""
    told = () if contexts is None else (tensor(contexts),)
    observations = tensor(data.observations)
    if not steps:
        return ActorInputs((observations, *told))
    return Windows((observations, tensor(data.actions), tensor(elapsed(data)), *told), steps)


def elapsed(data: Transitions) -> np.ndarray:
    """Return how many steps of its episode came before each row: (N,) int64."""
    return np.arange(len(data)) - np.repeat(data.episode_bounds[:-1], np.diff(data.episode_bounds))


class Memory:
    """The last `steps` observations and applied actions of some robots; of fixed size, the newest last.

    known: (robots,) how many of the steps have happened since the episode began.
    """

    def __init__(self, steps: int, obs_dim: int, action_dim: int, robots: int = 1) -> None:
        self.steps = steps
        self.observations = np.zeros((robots, steps, obs_dim), dtype=np.float32)
        self.actions = np.zeros((robots, steps, action_dim), dtype=np.float32)
        self.known = np.zeros(robots, dtype=np.int64)

    @classmethod
    def logged(cls, data: Transitions, rows: np.ndarray, steps: int) -> Memory:
        """Return what really came before the logged steps `rows` (robots,)."""
        memory = cls(steps, data.obs_dim, data.action_dim, len(rows))
        places = np.maximum(np.asarray(rows)[:, None] + np.arange(-steps, 0), 0)
        memory.observations[:], memory.actions[:] = data.observations[places], data.actions[places]
        memory.known[:] = np.minimum(elapsed(data)[rows], steps)
        return memory

    def fresh(self, robots: int) -> Memory:
        """Return an empty memory of the same kind."""
        return Memory(self.steps, self.observations.shape[2], self.actions.shape[2], robots)

    def clear(self) -> None:
        """Begin an episode."""
        self.known[:] = 0

    def add(self, observations: np.ndarray, actions: np.ndarray) -> None:
        """Take a step: what was observed (robots, obs_dim), and what was done then (robots, action_dim)."""
        if not self.steps:
            return
        for kept, newest in ((self.observations, observations), (self.actions, actions)):
            kept[:, :-1] = kept[:, 1:]
            kept[:, -1] = newest
        np.minimum(self.known + 1, self.steps, out=self.known)

    def window(self, observations: np.ndarray, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the inputs of an actor that looks at `steps` past steps and sees `observations` (robots, obs_dim)."""
        seen = np.concatenate([self.observations[:, self.steps - steps :], observations[:, None]], axis=1)
        present = self.known[:, None] >= np.arange(steps, -1, -1)
        done = self.actions[:, self.steps - steps :]
        return tensor(seen), tensor(done), tensor(present)


@torch.no_grad()
def propose(actor: nn.Module, observations: np.ndarray, memory: Memory | None = None) -> np.ndarray:
    """Return an actor's actions (N, action_dim) float32 for observations (N, obs_dim), one robot each.

    memory: what came before, of at least `actor.memory_steps` steps; None at the beginning of an episode.
    """
    seen = np.ascontiguousarray(observations, dtype=np.float32)
    steps = memory_of(actor)
    if not steps:
        return array(actor(tensor(seen)))
    if memory is None:
        memory = Memory(steps, seen.shape[1], actor.action_dim, len(seen))
    return array(actor(*memory.window(seen, steps)))


def propose_row(
    row: Callable[..., np.ndarray], steps: int, action_dim: int, observations: np.ndarray, memory: Memory | None
) -> np.ndarray:
    """Return the action (1, action_dim) float32 of one robot by an actor's `single_row`, as `propose` does.

    row: the actor's. steps: how many past steps it looks at. observations: (1, obs_dim). memory: as in `propose`.
    """
    seen = np.asarray(observations, dtype=np.float32)
    if not steps:
        return row(seen[0])[None]
    if memory is None:
        memory = Memory(steps, seen.shape[1], action_dim)
    return row(*(part.numpy()[0] for part in memory.window(seen, steps)))[None]


def memory_of(actor: nn.Module) -> int:
    """Return how many past steps an actor looks at."""
    return getattr(actor, "memory_steps", 0)


class Driver:
    """A policy that drives some robots through an episode, and remembers it as far as the policy looks back."""

    def __init__(self, actor: nn.Module, memory: Memory) -> None:
        self._actor, self._memory = actor, memory

    def reset(self, robots: int = 1) -> None:
        """Begin an episode with that many robots."""
        self._memory = self._memory.fresh(robots)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return actions (robots, action_dim) float32 for observations (robots, obs_dim), and remember both."""
        actions = propose(self._actor, observations, self._memory)
        self._memory.add(observations, actions)
        return actions
