"""Data and trained agents of a cell, each made once and kept in a cache folder by content.

    store = Cache("runs/unlearning_cache")
    clean = collected(store, spec, episodes=500, seed=30)
    agent = trained(store, spec, "return_conditioned", clean, cost_limit=10.0, seed=30)

What lies in the cache is named by everything that it was made from: description, seed, number of episodes and the code
of the simulation; or data, hyperparameters and the code of the agents. Several processes may share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from saferule_core import agents
from saferule_core.agents import Agent
from saferule_core.data.episode_log import transitions_of
from saferule_core.data.transitions import Transitions
from saferule_core.progress import Progress, silent
from saferule_core.sim.collect import collect_episodes
from saferule_core.spec import RobotSpec
from saferule_core.store import Card, bundle
from saferule_core.store.files import locked, replace_file

CORE = Path(agents.__file__).parents[1]
PATIENCE_S = 6 * 3600.0


@cache
def code_digest(*parts: str) -> str:
    """Return a hash of the Python files in parts of saferule_core ("sim", "agents"), or of all of it."""
    sha = hashlib.sha256()
    for part in parts or ("",):
        for path in sorted((CORE / part).rglob("*.py")):
            sha.update(f"{path.relative_to(CORE)}\n".encode() + path.read_bytes())
    return sha.hexdigest()[:12]


class Cache:
    """A folder of things that take long to make."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def place(self, suffix: str, **origin: Any) -> Iterator[Path]:
        """Hold the path for what was made from `origin`, so that only one process makes it."""
        name = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:20]
        with locked(self.folder / f".{name}.lock", timeout=PATIENCE_S):
            yield self.folder / f"{name}{suffix}"


def collected(store: Cache, spec: RobotSpec, episodes: int, seed: int, progress: Progress = silent) -> Transitions:
    """Return honest transitions of the description's own driver. Raises as `collect_episodes`."""
    origin = {"spec": spec.text, "episodes": episodes, "seed": seed, "code": code_digest("sim")}
    with store.place(".safetensors", **origin) as path:
        if not path.exists():
            logs = collect_episodes(spec, episodes, seed, progress=progress)
            temporary = path.with_suffix(".incoming")
            transitions_of(logs, spec).save(temporary)
            replace_file(path, temporary.read_bytes())
            temporary.unlink()
        return Transitions.load(path)


def trained(
    store: Cache,
    spec: RobotSpec,
    algorithm: str,
    data: Transitions,
    cost_limit: float,
    seed: int,
    steps: int | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Agent:
    """Return an agent trained from scratch on `data`. Raises as `agents.train`."""
    origin = {
        "spec": spec.hash, "algorithm": algorithm, "data": data.digest(), "cost_limit": cost_limit, "seed": seed,
        "steps": steps, "options": dict(options or {}), "code": code_digest("agents"),
    }  # fmt: skip
    with store.place("", **origin) as path:
        if not path.exists():
            agent = agents.train(algorithm, data, cost_limit, seed, steps, progress, **(options or {}))
            bundle.save(path, agent, spec, Card(seed=seed, data={"train": data.digest()}))
        return bundle.load_agent(path, spec)
