"""Imports the package safety-gymnasium 1.0.0 so that it runs on Pythons newer than it, and without drawing.

    safety_gymnasium = load_package("robot.yaml")

- Its dataclasses have arrays as defaults, which Python 3.11 refuses because they can be changed. While the package is
  imported, and only for classes of its own, such a default becomes a factory of copies; `dataclasses.dataclass` is what
  it was before when the import is over.
- Its robots of several agents bring gymnasium-robotics along, which numpy 1.26 is too new for and which has its say
  whenever anybody imports gymnasium. They are left out, so that it need not be there.
- Its robots that find their way build their world anew at each reset, and decode 24 MB of pictures of the sky for it,
  which takes most of the time of an episode. Their sky is plain here. Nothing that moves or is sensed depends on it.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import IO, Any

import numpy as np
import yaml

from saferule_core.errors import SimulationError

PACKAGE = "safety_gymnasium"
INSTALL = "pip install --no-deps -r requirements-safety-gymnasium.txt"
PLAIN_SKY = {"@name": "skybox", "@type": "skybox", "@builtin": "flat", "@width": "1", "@height": "6"}


def load_package(source: str) -> ModuleType:
    """Return the module safety_gymnasium; `source` names the robot description in errors.

    Raises:
        SimulationError: it, or a package that it needs, is not installed.
    """
    left_out = ModuleType(f"{PACKAGE}.tasks.safe_multi_agent.safe_mujoco_multi")
    left_out.make_ma = None
    sys.modules.setdefault(left_out.__name__, left_out)
    with _array_defaults():
        try:
            package = importlib.import_module(PACKAGE)
            importlib.import_module(f"{PACKAGE}.builder")  # with all robots, which else come when one is made
            world = importlib.import_module(f"{PACKAGE}.world")
        except ImportError as error:
            raise SimulationError(
                f"{source}: simulation.robot: expected the extra safety-gymnasium to be installed ({INSTALL}), "
                f"found: {error}"
            ) from error
    world.yaml = SimpleNamespace(load=_assets, FullLoader=None)  # it reads nothing else than its assets
    return package


def _assets(file: IO[str], Loader: None) -> dict[str, Any]:
    return deepcopy(_assets_of(file.name))


@cache
def _assets_of(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        assets = yaml.safe_load(file)
    assets["textures"]["skybox"] = PLAIN_SKY
    return assets


@contextmanager
def _array_defaults() -> Iterator[None]:
    """Let dataclasses of the package have arrays as defaults, each instance its own copy."""
    original = dataclasses.dataclass

    def dataclass(cls: type | None = None, /, **options: Any) -> type | Callable[[type], type]:
        if cls is None:
            return lambda each: dataclass(each, **options)
        arrays = {}
        if cls.__module__.partition(".")[0] == PACKAGE:
            arrays = {name: value for name, value in vars(cls).items() if isinstance(value, np.ndarray)}
        for name, value in arrays.items():
            setattr(cls, name, dataclasses.field(default_factory=value.copy))
        made = original(cls, **options)
        for name, value in arrays.items():
            setattr(made, name, value)
        return made

    dataclasses.dataclass = dataclass
    try:
        yield
    finally:
        dataclasses.dataclass = original
