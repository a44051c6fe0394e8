"""A folder as a robot would have it: description, bags to keep and to forget, and a store with a trained policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conftest import POINT_SPEC
from point_logs import SIMULATION, drive

from saferule_core import agents
from saferule_core.data.bags import read_bags, write_bags
from saferule_core.spec import RobotSpec, load_spec
from saferule_core.store import Card, PolicyStore

SABOTAGED = POINT_SPEC.replace('expression: "abs(x) > 6.0"', 'function: "saboteur:outside"') + (
    'simulation: {robot: "saboteur:Robot"}\n'
)
"""The point's description with the costs and the robot of saboteur.py."""


@dataclass
class Site:
    """Paths as text, as a caller of the server would give them."""

    folder: Path
    spec: str
    store: str
    retain: list[str]
    forget: list[str]
    work: str

    def load(self) -> RobotSpec:
        return load_spec(self.spec)


def make_site(folder: Path, text: str = POINT_SPEC + SIMULATION) -> Site:
    """Make one, with a policy that was trained in a second or two."""
    path = folder / "point.yaml"
    path.write_text(text, encoding="utf-8")
    spec = load_spec(path)
    retain = write_bags(drive(spec, 24, seed=1, reckless=0.2), spec, folder / "retain", episodes_per_bag=12)
    forget = write_bags(drive(spec, 6, seed=2, reckless=1.0), spec, folder / "forget", episodes_per_bag=6)
    data = read_bags([*retain, *forget], spec).transitions
    agent = agents.train("return_conditioned", data, cost_limit=3.0, seed=0, steps=200)
    store = PolicyStore(folder / "store")
    store.activate(store.add(agent, spec, Card(seed=0)))
    return Site(
        folder, str(path), str(folder / "store"), [str(bag) for bag in retain], [str(bag) for bag in forget],
        str(folder / "work"),
    )  # fmt: skip
