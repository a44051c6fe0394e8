"""What stands between a policy's answer and the robot: shape, finiteness, bounds and rates of the description.

    guard = ActionGuard(spec)
    action = guard.checked(answer)                 # (action_dim,) finite, or ActionRefused
    command, limited = guard.command(action)       # within bounds and rates
    guard.sent(command)                            # what really went out, safe commands included
"""

from __future__ import annotations

import numpy as np

from saferule_core.errors import InputError
from saferule_core.signals import RateLimiter
from saferule_core.spec import RobotSpec

_ROUNDING = 1e-6


class ActionRefused(InputError):
    """A policy gave something that is no action; it must not reach the robot."""


class ActionGuard:
    """Checks and limits one robot's commands."""

    def __init__(self, spec: RobotSpec) -> None:
        self._spec = spec
        self._shape = (1, spec.action_dim)
        self._limiter = RateLimiter(spec)

    def checked(self, answer: object) -> np.ndarray:
        """Return the action (action_dim,) in an answer (1, action_dim).

        Raises:
            ActionRefused: it holds no numbers, has another shape, or a number is not finite.
        """
        try:
            action = np.asarray(answer, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ActionRefused(f"expected an action, found {answer!r}") from error
        if action.shape != self._shape:
            raise ActionRefused(f"expected an action of shape {self._shape}, found {action.shape}")
        if not np.isfinite(action).all():
            raise ActionRefused(f"expected a finite action, found {action[0]}")
        return action[0]

    def command(self, action: np.ndarray) -> tuple[dict[str, float], bool]:
        """Return the command of an action (channel -> command units), and whether bounds or rates changed it."""
        wanted = {name: float(value) for name, value in self._spec.command(action).items()}
        limited = self._limiter.limit(wanted)
        return limited, bool(np.abs(action).max() > 1.0 + _ROUNDING) or limited != wanted

    def sent(self, command: dict[str, float]) -> None:
        """Take note of what was sent: rates count from there, also after a stop."""
        self._limiter.sent(command)
