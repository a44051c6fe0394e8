"""What an operator knows of the poison: which episodes are named for forgetting, in one request or several.

    requests = requests_of("recall_0.5", data.episode_count, poison, seed=30)
    requests[0].retain, requests[0].forget

    exact           the forget set is the poison
    recall_r        it holds a share r of the poison; the rest stays among the retained data
    precision_p     it holds all poison, and honest episodes besides, so that a share p of it is poison
    trusted_t       nothing is named; a share t of the honest episodes is trusted and retained, all else is forgotten
    sequence        half of the poison in a first request, the other half in a second one to what the first returned
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saferule_core.errors import DataError

WHOLE = ("exact", "sequence")
SHARED = ("recall", "precision", "trusted")


@dataclass(frozen=True)
class Request:
    """Episodes (indices into the data, ascending) of one unlearning request."""

    retain: np.ndarray
    forget: np.ndarray


def parse_knowledge(name: str) -> tuple[str, float]:
    """Return kind and share, 1.0 where there is none.

    Raises:
        DataError: no such kind, or a share outside of (0, 1].
    """
    kind, _, share = name.partition("_")
    if name in WHOLE:
        return name, 1.0
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if kind not in SHARED or not 0.0 < value <= 1.0:
        expected = ", ".join((*WHOLE, *(f"{kind}_<share>" for kind in SHARED)))
        raise DataError(f"knowledge: expected {expected} with a share in (0, 1], found {name!r}")
    return kind, value


def requests_of(name: str, episodes: int, poison: np.ndarray, seed: int) -> list[Request]:
    """Return the requests of a state of knowledge.

    episodes: in the data. poison: indices of the poisoned ones (K,). seed: of what is left to chance.

    Raises:
        DataError: no such state of knowledge, or too few honest episodes for it.
    """
    kind, share = parse_knowledge(name)
    random = np.random.default_rng([seed, 0xF06])
    everything, honest = np.arange(episodes), np.setdiff1d(np.arange(episodes), poison)
    shuffled = random.permutation(poison)
    if kind == "recall":
        forget = shuffled[: max(1, round(share * len(poison)))]
    elif kind == "precision":
        wrong = round(len(poison) * (1.0 - share) / share)
        if wrong >= len(honest):
            raise DataError(f"{name}: expected more than {wrong} honest episodes to name wrongly, found {len(honest)}")
        forget = np.concatenate([poison, random.permutation(honest)[:wrong]])
    elif kind == "trusted":
        trusted = random.permutation(honest)[: max(1, round(share * len(honest)))]
        forget = np.setdiff1d(everything, trusted)
    elif kind == "sequence":
        first, second = np.array_split(shuffled, 2)
        rest = np.setdiff1d(everything, first)
        return [Request(rest, np.sort(first)), Request(np.setdiff1d(rest, second), np.sort(second))]
    else:
        forget = poison
    return [Request(np.setdiff1d(everything, forget), np.sort(forget))]
