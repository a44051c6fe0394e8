"""From the tensors of a bundle to the agent that its card describes, checking that they are what the card says.

    check_tensors(card, tensors, path)
    agent = assemble(directory, card, tensors)
"""

from __future__ import annotations

from pathlib import Path

import torch

from saferule_core import agents
from saferule_core.agents import Agent
from saferule_core.errors import SaferuleError, StoreError
from saferule_core.spec import RobotSpec
from saferule_core.store.card import Card, TensorInfo
from saferule_core.store.content import CARD, WEIGHTS


def check_fits(card: Card, spec: RobotSpec, directory: Path) -> None:
    """Raise StoreError if the policy was made for another robot description."""
    if card.spec_hash != spec.hash:
        raise StoreError(
            f"{directory / CARD}: spec_hash: expected {spec.hash[:12]} ({spec.source}), found {card.spec_hash[:12]} "
            f"({card.spec_name}); the policy was made for another robot description"
        )
    if (card.obs_dim, card.action_dim) != (spec.obs_dim, spec.action_dim):
        raise StoreError(
            f"{directory / CARD}: obs_dim, action_dim: expected {spec.obs_dim}, {spec.action_dim} ({spec.source}), "
            f"found {card.obs_dim}, {card.action_dim}"
        )


def check_ranges(card: Card, path: Path) -> None:
    """Raise StoreError if the card has observation ranges that are none; `path` names the file."""
    if card.ranges is None:
        return
    low, high = card.ranges.low, card.ranges.high
    if not len(low) == len(high) == card.obs_dim:
        raise StoreError(f"{path}: ranges: expected {card.obs_dim} of each bound, found {len(low)} and {len(high)}")
    for row, (lowest, highest) in enumerate(zip(low, high, strict=True)):
        if not lowest <= highest:
            raise StoreError(f"{path}: ranges: feature {row}: expected low <= high, found {lowest} and {highest}")


def check_tensors(card: Card, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Raise StoreError if names, shapes or types are not those of the card; `path` names the file."""
    if odd := sorted(card.tensors.keys() ^ tensors.keys()):
        where = "only in the card" if odd[0] in card.tensors else "not in the card"
        raise StoreError(f"{path}: {odd[0]}: expected the tensors that the card lists, found one {where}")
    for name, wanted in card.tensors.items():
        found = tensor_info(tensors[name])
        if found != wanted:
            raise StoreError(
                f"{path}: {name}: expected {wanted.dtype} of shape {list(wanted.shape)}, "
                f"found {found.dtype} of shape {list(found.shape)}"
            )


def check_finite(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Raise StoreError if a number is not finite."""
    for name, value in tensors.items():
        odd = value[~torch.isfinite(value)]
        if odd.numel():
            raise StoreError(f"{path}: {name}: expected finite numbers, found {odd[0].item()}")


def assemble(directory: Path, card: Card, tensors: dict[str, torch.Tensor]) -> Agent:
    """Build the untrained agent of a card and put the weights in.

    Raises:
        StoreError: the card names no agent that can be built, or the weights are not those of it.
    """
    try:
        agent = agents.build(card.algorithm, card.obs_dim, card.action_dim, card.hyperparameters)
    except (SaferuleError, TypeError, ValueError) as error:
        raise StoreError(f"{directory / CARD}: expected an agent that can be built, found: {error}") from error
    modules = agent.modules()
    for name, module in modules.items():
        state = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
        try:
            module.load_state_dict(state, strict=True)
        except RuntimeError as error:
            found = " ".join(str(error).split())
            path = directory / WEIGHTS
            raise StoreError(f"{path}: {name}: expected weights of {card.algorithm}, found: {found}") from error
        module.eval()
    if unused := sorted(key for key in tensors if key.split(".", 1)[0] not in modules):
        raise StoreError(f"{directory / WEIGHTS}: {unused[0]}: expected modules {', '.join(modules)}, found another")
    return agent


def tensor_info(tensor: torch.Tensor) -> TensorInfo:
    """Return shape and type as the card lists them."""
    return TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
