"""What an unlearning method gets and gives, and the registry that names the methods.

    problem = UnlearningProblem(agent, retain, forget, cost_limit=10.0, seed=0, relabel=spec.relabel)
    result = unlearn("safe_rule", problem, progress=print_progress)
    if result.succeeded: ...

A method never changes the agent of its problem, never steps an environment, and says so when it fails. A failed
result still carries an agent, for study; it must not be deployed.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from saferule_core.agents.base import Agent, seeded
from saferule_core.agents.networks import load_optimiser
from saferule_core.data.transitions import Transitions
from saferule_core.errors import UnlearningError
from saferule_core.progress import Progress, silent
from saferule_core.tensors import learning


@dataclass(frozen=True)
class UnlearningProblem:
    """A running agent, the data it should keep, and the data it should be as if it had never seen.

    cost_limit: allowed cost per episode. relabel: returns the same transitions with costs recomputed from the
    sensors (`RobotSpec.relabel`); None where no robot description exists.
    """

    agent: Agent
    retain: Transitions
    forget: Transitions
    cost_limit: float
    seed: int
    relabel: Callable[[Transitions], Transitions] | None = None


@dataclass(frozen=True)
class UnlearningResult:
    """What a method returns.

    succeeded: the method believes that the agent is repaired. message: a sentence for people.
    steps: gradient steps of the policy. seconds: wall time of everything. history: losses and multipliers over
    time. diagnostics: JSON-able numbers, such as the audit's. critics: "repaired", "dropped", "none" if the agent has
    none, or "poisoned" where they are as they were, or worse.
    """

    agent: Agent
    succeeded: bool
    message: str
    steps: int
    critics: str
    history: list[dict[str, Any]] = field(default_factory=list)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


Method = Callable[..., UnlearningResult]
METHODS: dict[str, Method] = {}


def method(name: str) -> Callable[[Method], Method]:
    """Register a function (problem, progress, **options) -> UnlearningResult as `name`."""

    def enter(function: Method) -> Method:
        METHODS[name] = function
        return function

    return enter


def unlearn(
    name: str, problem: UnlearningProblem, progress: Progress | None = None, **options: Any
) -> UnlearningResult:
    """Run the method `name` on `problem`; `options` are the method's own.

    Raises:
        UnlearningError: unknown method or option, or a problem that makes no sense (see `checked`).
        Cancelled: `progress` asked for a stop; nothing was changed.
    """
    if name not in METHODS:
        raise UnlearningError(f"method: expected one of {', '.join(sorted(METHODS))}, found {name!r}")
    _check_options(name, options)
    load_optimiser()
    started = time.perf_counter()
    problem, shared = checked(problem)
    with seeded(problem.seed), learning() as device:
        there = replace(problem, agent=problem.agent.clone().to(device))
        result = METHODS[name](there, progress or silent, **options)
    result.agent.to(torch.device("cpu"))
    diagnostics = {"episodes_named_on_both_sides": shared, **result.diagnostics}
    return replace(result, diagnostics=diagnostics, seconds=time.perf_counter() - started)


def _check_options(name: str, options: dict[str, Any]) -> None:
    """Refuse options that the method has no parameter for; one that takes any checks them itself."""
    parameters = inspect.signature(METHODS[name]).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = sorted(parameter.name for parameter in parameters if parameter.default is not parameter.empty)
    if unknown := sorted(set(options) - set(known)):
        raise UnlearningError(f"{name}: expected options among {', '.join(known)}, found {unknown[0]}")


def checked(problem: UnlearningProblem) -> tuple[UnlearningProblem, int]:
    """Return the problem without forgotten episodes in its retain set, and how many of them there were.

    An episode counts as the same when its observations and actions are, whatever its labels say.

    Raises:
        UnlearningError: a policy of another tool, an empty forget set, no retained data, nothing retained but
            forgotten episodes, or data that does not fit the agent.
    """
    agent, retain, forget = problem.agent, problem.retain, problem.forget
    if agent.foreign:
        raise UnlearningError(foreign_policy("the policy", agent.algorithm))
    if not len(forget):
        raise UnlearningError("forget set: expected at least one episode, found none; name the data to forget")
    if not len(retain):
        raise UnlearningError("retain set: expected at least one episode, found none; nothing is left to learn from")
    for name, data in (("retain", retain), ("forget", forget)):
        if (data.obs_dim, data.action_dim) != (agent.obs_dim, agent.action_dim):
            raise UnlearningError(
                f"{name} set: expected {agent.obs_dim} observation features and {agent.action_dim} action channels "
                f"as the agent has, found {data.obs_dim} and {data.action_dim}"
            )
    if not problem.cost_limit >= 0.0:
        raise UnlearningError(f"cost_limit: expected a number >= 0, found {problem.cost_limit}")
    forgotten = set(episode_digests(forget))
    kept = [i for i, digest in enumerate(episode_digests(retain)) if digest not in forgotten]
    shared = retain.episode_count - len(kept)
    if not kept:
        raise UnlearningError(
            f"forget set: it covers all {retain.episode_count} retained episodes, so nothing is left to learn from; "
            "name fewer episodes to forget, or more data to retain"
        )
    return (replace(problem, retain=retain.select_episodes(kept)) if shared else problem), shared


def foreign_policy(what: str, algorithm: str) -> str:
    """Return why a policy of another tool cannot be repaired, and what can be done."""
    return (
        f"{what}: expected one that saferule trained, found a model of another tool ({algorithm}). It runs and is "
        "monitored, but its weights cannot be updated here: train a policy with `saferule train` on the retained bags"
    )


def episode_digests(data: Transitions) -> list[bytes]:
    """Return one hash per episode over its observations and actions."""
    rows = np.concatenate([data.observations, data.actions], axis=1)
    return [hashlib.blake2b(rows[episode].tobytes(), digest_size=16).digest() for episode in data.episodes()]
