"""What an agent is: an actor, the critics that it may have, and the numbers that rebuild it.

    agent = train("advantage_weighted", data, cost_limit=10.0, seed=0)
    actions = agent.act(observations)                     # (N, action_dim) float32 in [-1, 1]
    copy = build(agent.algorithm, agent.obs_dim, agent.action_dim, agent.hyperparameters())

Agents register themselves under the name of their algorithm. Same data, same seed: same weights.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import nn

from saferule_core.agents.memory import ActorInputs, Driver, Memory, logged_inputs, memory_of, propose, propose_row
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError, SaferuleError
from saferule_core.progress import Progress, silent
from saferule_core.tensors import array, learning, tensor

REPORT_EVERY = 20
DISTANCE_ROWS = 2048


class Learner(Protocol):
    """A training step bound to an agent and its data."""

    def run(self, steps: int, progress: Progress) -> None:
        """Take `steps` gradient steps, report as phase "training", and leave the result in the agent."""


class Agent:
    """A trained policy with everything that unlearning may use.

    Subclasses set `algorithm` and `Config`, make their modules in `make_modules`, prepare them for data in
    `prepare`, and return their training step in `learner`. This is all that unlearning knows of an agent:

    actor             observations (N, obs_dim) -> actions in [-1, 1]; with more arguments for a conditioned policy,
                      and of another shape for one with a memory (see `memory.py`)
    inputs            what `actor` is told at each logged step, as logged or as deployed
    action_distance   how far the deployed policy is from logged actions
    policy_weights    what the agent's own policy step moves, and what steps of other methods on its critics move
    learner           the agent's own training step, from its present weights on
    reward_critic,    Q(s, a), ensembles that return (members, N), or None: "reward_critic" in multiples of
    cost_critic       `reward_unit`, "cost_critic" in cost, both discounted by `config.discount`
    """

    algorithm: ClassVar[str]
    Config: ClassVar[type]
    foreign: ClassVar[bool] = False
    """Whether it comes from another tool: it runs and is monitored, and can be neither trained nor repaired."""

    def __init__(self, obs_dim: int, action_dim: int, config: Any) -> None:
        self.obs_dim = obs_dim
        self.action_dim = action_dim
        self.config = config
        self._modules = self.make_modules()
        self._row: Callable[..., np.ndarray] | None = None

    def make_modules(self) -> dict[str, nn.Module]:
        """Return fresh modules by name; "actor" is one of them."""
        raise NotImplementedError

    def prepare(self, data: Transitions) -> None:
        """Fit normalisation to `data`, before the first gradient step."""
        raise NotImplementedError

    def learner(self, data: Transitions, seed: int, config: Any) -> Learner:
        """Return the training step on `data`, from the present weights on; it writes into this agent."""
        raise NotImplementedError

    def contexts(self, data: Transitions) -> np.ndarray | None:
        """Return what `actor` is told besides the observation at each logged step: (N, k), None if nothing."""
        return None

    def aim(self, data: Transitions, contexts: np.ndarray, quantile: float) -> None:
        """Set what a conditioned actor asks for once deployed to a quantile of what safe episodes in `data` gave."""

    def inputs(self, data: Transitions, deployed: bool = False) -> ActorInputs:
        """Return what `actor` is told at each step of `data`.

        deployed: with what the deployed policy asks for, instead of what each logged episode really gave.
        """
        return logged_inputs(data, None if deployed else self.contexts(data), memory_of(self.actor))

    def action_distance(self, data: Transitions) -> np.ndarray:
        """Return |pi(s) - a|^2 of the deployed policy and the logged actions, per step: (N,) float32."""
        inputs = self.inputs(data, deployed=True)
        actions = tensor(data.actions)
        with torch.no_grad():
            parts = [
                (self.actor(*inputs.batch(rows)) - actions[rows]).square().sum(1)
                for rows in torch.arange(len(inputs)).split(DISTANCE_ROWS)
            ]
        return array(torch.cat(parts))

    def policy_weights(self) -> list[nn.Parameter]:
        """Return the weights of `actor` that are moved to raise its value; a model of behaviour is none of them."""
        return [weight for weight in self.actor.parameters() if weight.requires_grad]

    @property
    def reward_critic(self) -> nn.Module | None:
        """The action value of reward, (observations, actions) -> (members, N), or None."""
        return self._modules.get("reward_critic")

    @property
    def cost_critic(self) -> nn.Module | None:
        """The action value of cost, (observations, actions) -> (members, N), or None."""
        return self._modules.get("cost_critic")

    @property
    def reward_unit(self) -> float:
        """Reward per unit of `reward_critic`."""
        return 1.0

    def fit(self, data: Transitions, seed: int, progress: Progress) -> None:
        """Train for the configuration's number of steps."""
        self.prepare(data)
        self.learner(data, seed, self.config).run(self.config.steps, progress)

    @property
    def actor(self) -> nn.Module:
        """The deployed policy."""
        return self._modules["actor"]

    def modules(self) -> dict[str, nn.Module]:
        """Every module that belongs into a bundle, by name."""
        return dict(self._modules)

    def has(self, name: str) -> bool:
        """Say whether the agent carries the module `name`, for example "cost_critic"."""
        return name in self._modules

    def drop(self, *names: str) -> None:
        """Forget modules, for example critics that can no longer be trusted."""
        for name in names:
            self._modules.pop(name, None)

    def act(self, observations: np.ndarray, memory: Memory | None = None) -> np.ndarray:
        """Return actions (N, action_dim) float32 for observations (N, obs_dim) of N robots.

        memory: what came before, for an actor that looks back; None at the beginning of an episode.
        """
        if self._row is not None and len(observations) == 1:
            return propose_row(self._row, memory_of(self.actor), self.action_dim, observations, memory)
        return propose(self.actor, observations, memory)

    def freeze(self) -> None:
        """Answer single observations from a copy of the present weights from now on, several times faster.

        For a policy that drives: what training does to the actor afterwards, `act` does not see. A clone is not frozen.
        An actor that has no `single_row` answers as before.
        """
        self._row = self.actor.single_row() if hasattr(self.actor, "single_row") else None

    def driver(self) -> Driver:
        """Return what drives robots with this policy step by step, whether it has a memory or not."""
        return Driver(self.actor, Memory(memory_of(self.actor), self.obs_dim, self.action_dim))

    def probe(self, observations: np.ndarray) -> np.ndarray:
        """Return the first action (N, action_dim) to each observation (N, obs_dim): N calls without a past."""
        return self.act(observations)

    def hyperparameters(self) -> dict[str, Any]:
        """Return a JSON-able dictionary that `build` turns back into an untrained agent of this shape."""
        return {**dataclasses.asdict(self.config), "modules": sorted(self._modules)}

    def to(self, device: torch.device) -> Agent:
        """Move all weights to a device, in place; return the agent."""
        for module in self._modules.values():
            module.to(device)
        return self

    def clone(self) -> Agent:
        """Return an independent copy with equal weights."""
        twin = copy.copy(self)
        twin._modules = copy.deepcopy(self._modules)
        twin._row = None
        return twin


_REGISTRY: dict[str, type[Agent]] = {}


def register(agent_class: type[Agent]) -> type[Agent]:
    """Make an agent class known under its `algorithm`."""
    _REGISTRY[agent_class.algorithm] = agent_class
    return agent_class


def algorithms() -> list[str]:
    """Return the registered names of those that can be trained."""
    return sorted(name for name, known in _REGISTRY.items() if not known.foreign)


def is_foreign(algorithm: str) -> bool:
    """Say whether a policy of this algorithm comes from another tool; see `Agent.foreign`."""
    return algorithm in _REGISTRY and _REGISTRY[algorithm].foreign


def agent_class(algorithm: str) -> type[Agent]:
    """Return the class registered as `algorithm`.

    Raises:
        SaferuleError: no such algorithm.
    """
    if algorithm not in _REGISTRY:
        raise SaferuleError(f"algorithm: expected one of {', '.join(algorithms())}, found {algorithm!r}")
    return _REGISTRY[algorithm]


def build(algorithm: str, obs_dim: int, action_dim: int, hyperparameters: dict[str, Any]) -> Agent:
    """Return an untrained agent whose weights fit what `hyperparameters` came with.

    Raises:
        SaferuleError: unknown algorithm, or a hyperparameter that it does not have.
    """
    known = agent_class(algorithm)
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in hyperparameters.items()}
    kept = values.pop("modules", None)
    names = {field.name for field in dataclasses.fields(known.Config)}
    if unknown := sorted(set(values) - names):
        raise SaferuleError(f"{algorithm}: expected hyperparameters among {', '.join(sorted(names))}, found {unknown}")
    agent = known(obs_dim, action_dim, known.Config(**values))
    if kept is not None:
        agent.drop(*set(agent.modules()) - set(kept))
    return agent


def train(
    algorithm: str,
    data: Transitions,
    cost_limit: float,
    seed: int,
    steps: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Agent:
    """Train an agent from scratch on `data`, trusting its labels.

    cost_limit: allowed cost per episode. steps: gradient steps, None for the algorithm's own number.
    options: further fields of the algorithm's configuration.

    Raises:
        DataError: there is nothing to learn from.
        SaferuleError: unknown algorithm or option.
        Cancelled: `progress` asked for a stop.
    """
    if not len(data):
        raise DataError("training: expected at least one transition, found none")
    values = {"cost_limit": float(cost_limit), **options}
    if steps is not None:
        values["steps"] = int(steps)
    with seeded(seed), learning():
        agent = build(algorithm, data.obs_dim, data.action_dim, values)
        agent.fit(data, seed, progress or silent)
    return agent.to(torch.device("cpu"))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch draw from `seed` inside, and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        torch.manual_seed(seed)
        yield
