"""Gradient similarity: learning from this episode would undo what learning from trusted episodes does.

    score = 1 - mean over {policy, cost critic} of  cos(g_e, mean_{i trusted, i != e} g_i)

g_e is the mean gradient of an episode's loss at the weights of the trained agent (TracIn with its last checkpoint and
the last layer, Pruthi et al., arXiv 2002.08484). At the end of training the gradients of all data add up to nothing, so
those of trusted and of poisoned episodes point against each other. The cost critic counts where the agent has one.
"""

from __future__ import annotations

import numpy as np

from saferule_core.detection.base import Case, Suspicion, detector
from saferule_core.detection.last_layer import agent_of, cost_layer, policy_layer
from saferule_core.errors import DetectionError

TINY = 1e-12


@detector("gradient_similarity")
def gradient_similarity(case: Case) -> Suspicion:
    """Return how far each episode's gradients turn away from the trusted ones: 0 along them, 2 against them.

    Raises:
        DetectionError: fewer than two trusted episodes.
    """
    if len(case.trusted) < 2:
        raise DetectionError(
            f"gradient_similarity: expected at least two trusted episodes to compare with, found {len(case.trusted)}"
        )
    agent = agent_of(case)
    layers = {"policy": policy_layer(agent, case.data), "cost critic": cost_layer(agent, case.data)}
    cosines = {
        name: _cosines(layer.episode_gradients(case.data), case.trusted)
        for name, layer in layers.items()
        if layer is not None
    }
    reasons = []
    for episode in range(case.data.episode_count):
        name = min(cosines, key=lambda each: cosines[each][episode])
        reasons.append(f"its gradient on the {name} has cosine {cosines[name][episode]:+.2f} with the trusted ones")
    return Suspicion(1.0 - np.mean(list(cosines.values()), axis=0), tuple(reasons))


def _cosines(gradients: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """Return the cosine of each gradient (E, P) with the mean of the trusted ones, itself left out: (E,)."""
    total, count = gradients[trusted].sum(axis=0, dtype=np.float64), len(trusted)
    own = np.zeros(len(gradients))
    own[trusted] = 1.0
    others = (total - own[:, None] * gradients) / (count - own)[:, None]
    lengths = np.linalg.norm(gradients, axis=1) * np.linalg.norm(others, axis=1)
    return np.einsum("ij,ij->i", gradients, others) / np.maximum(lengths, TINY)
