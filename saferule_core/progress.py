"""How long work says where it is: one callable, passed down, called often.

    def work(progress: Progress = silent):
        progress("unlearning", 0.25, "stage 2 of 3", policy_loss=0.12)

A progress function may raise `Cancelled`; the work then stops with nothing changed.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the phase, the fraction of it that is done, words for people, and current losses."""

    def __call__(self, phase: str, fraction: float, message: str = "", **losses: float) -> None:
        """Report; `fraction` lies in [0, 1]. May raise `Cancelled`."""


def silent(phase: str, fraction: float, message: str = "", **losses: float) -> None:
    """Ignore progress."""


def within(progress: Progress, start: float, end: float) -> Progress:
    """Return a progress function whose [0, 1] is [`start`, `end`] of `progress`.

    The inner work keeps its own phase names; only its fraction is mapped.
    """

    def scaled(phase: str, fraction: float, message: str = "", **losses: float) -> None:
        progress(phase, start + (end - start) * min(max(fraction, 0.0), 1.0), message, **losses)

    return scaled
