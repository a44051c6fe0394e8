"""What a command shows: progress while it works, then its result or one line of error.

    with make_display("auto", "train") as display:
        agent = train(..., progress=display.progress)
        display.result({"policy_id": policy_id}, f"policy {policy_id[:12]}")

Progress goes to stderr (bars on a terminal, else a line now and then) and the result to stdout. With "json" everything
goes to stdout, one JSON object per line, for programs:

    {"event": "progress", "phase": "unlearning", "fraction": 0.4, "message": "...", "losses": {"keep_loss": 0.1}}
    {"event": "result", ...}    or    {"event": "error", "message": "...", "kind": "DataError", "phase": ""}
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from saferule_core.progress import Progress, silent

MODES = ("auto", "rich", "plain", "json", "none")
_JSON_INTERVAL, _PLAIN_INTERVAL = 0.1, 2.0


class Display:
    """Shows nothing but results and errors; base of the others.

    Attributes:
        progress: to be passed to the work.
    """

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.progress: Progress = silent

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the terminal as it was."""

    def result(self, facts: Mapping[str, Any], text: str) -> None:
        """Show what came out: `facts` for programs, `text` for people."""
        print(text, flush=True)

    def error(self, message: str, kind: str) -> None:
        """Show why the command ends; `kind` is the error's class."""
        prefix = f"saferule {self.verb}" if self.verb != "saferule" else self.verb
        print(f"{prefix}: {message}", file=sys.stderr, flush=True)


class _PacedDisplay(Display):
    """Reports when a phase begins or ends, and at most every `interval_s` seconds within it."""

    interval_s: float

    def __init__(self, verb: str) -> None:
        super().__init__(verb)
        self.progress = self._pace
        self._phase, self._next = "", 0.0

    def _pace(self, phase: str, fraction: float, message: str = "", **losses: float) -> None:
        now = time.monotonic()
        if phase == self._phase and now < self._next and fraction < 1.0:
            return
        self._phase, self._next = phase, now + self.interval_s
        self._show(phase, fraction, message, losses)

    def _show(self, phase: str, fraction: float, message: str, losses: Mapping[str, float]) -> None:
        raise NotImplementedError


class PlainDisplay(_PacedDisplay):
    """A line when a phase begins, and every few seconds within it."""

    interval_s = _PLAIN_INTERVAL

    def _show(self, phase: str, fraction: float, message: str, losses: Mapping[str, float]) -> None:
        print(f"{fraction:4.0%}  {_line(phase, message, losses)}", file=sys.stderr, flush=True)


class JsonDisplay(_PacedDisplay):
    """One JSON object per line on stdout."""

    interval_s = _JSON_INTERVAL

    def _show(self, phase: str, fraction: float, message: str, losses: Mapping[str, float]) -> None:
        self._write("progress", phase=phase, fraction=fraction, message=message, losses=losses)

    def result(self, facts: Mapping[str, Any], text: str) -> None:
        self._write("result", **facts)

    def error(self, message: str, kind: str) -> None:
        self._write("error", message=message, kind=kind, phase=self._phase)

    def _write(self, event: str, **facts: Any) -> None:
        print(json.dumps(_finite({"event": event, **facts})), flush=True)


class RichDisplay(Display):
    """A progress bar with phase, message and losses, on a terminal."""

    def __init__(self, verb: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        super().__init__(verb)
        self.progress = self._show
        self._bars = Progress(
            TextColumn("{task.description:<11}", style="bold"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}", style="dim", markup=False),
            console=Console(stderr=True),
            transient=False,
        )
        self._task: Any = None

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bars.stop()

    def _show(self, phase: str, fraction: float, message: str = "", **losses: float) -> None:
        words = _line("", message, losses)
        if self._task is None:
            self._task = self._bars.add_task(phase, total=1.0, words=words)
        self._bars.update(self._task, description=phase, completed=fraction, words=words)

    def result(self, facts: Mapping[str, Any], text: str) -> None:
        self._bars.stop()
        super().result(facts, text)

    def error(self, message: str, kind: str) -> None:
        self._bars.stop()
        super().error(message, kind)


def make_display(mode: str, verb: str) -> Display:
    """Return the display of a mode in `MODES`; "auto" takes bars on a terminal and lines elsewhere."""
    if mode == "auto":
        mode = "rich" if sys.stderr.isatty() and importlib.util.find_spec("rich") else "plain"
    return {"rich": RichDisplay, "plain": PlainDisplay, "json": JsonDisplay, "none": Display}[mode](verb)


def _line(phase: str, message: str, losses: Mapping[str, float]) -> str:
    values = "  ".join(f"{name} {value:.3g}" for name, value in losses.items())
    return "  ".join(part for part in (phase, message, values) if part)


def _finite(value: Any) -> Any:
    """Return `value` with None for numbers that JSON cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
