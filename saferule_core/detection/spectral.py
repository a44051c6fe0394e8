"""Spectral signature: what the policy's last hidden layer makes of an episode lies far out along one direction.

    score = <h_e - mean h, v>^2,     h_e mean activations over the episode, v first right singular vector of h - mean h

A network that learned a backdoor represents the poisoned inputs as something of their own (Tran et al., Spectral
Signatures in Backdoor Attacks, arXiv 1811.00636). Nothing is trusted here; blind to changed labels, which leave
activations as they are.
"""

from __future__ import annotations

import numpy as np

from saferule_core.detection.base import Case, Suspicion, detector
from saferule_core.detection.last_layer import agent_of, policy_layer


@detector("spectral")
def spectral(case: Case) -> Suspicion:
    """Return the squared projection of each episode on the main direction of variation, in its mean."""
    data = case.data
    activations = policy_layer(agent_of(case), data).activations
    means = np.stack([activations[part].mean(axis=0, dtype=np.float64) for part in data.episodes()])
    centred = means - means.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    scores = (centred @ direction) ** 2
    scores /= max(float(scores.mean()), 1e-12)
    reasons = [f"the policy's activations lie {score:.2g} times as far out as usual" for score in np.sqrt(scores)]
    return Suspicion(scores, tuple(reasons))
