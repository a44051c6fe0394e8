"""What a run shows: bars on a terminal, a line per finished cell elsewhere.

    with make_screen(total=40) as screen:
        screen.begin(0, "car_run/.../seed_30"); screen.show(0, "retrain 40% training"); screen.end(0)
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def make_screen(total: int) -> Screen:
    """Return the screen for `total` cells that suits where stderr leads."""
    return Bars(total) if sys.stderr.isatty() else Screen(total)


class Screen:
    """Writes a line to stderr when a cell ends; base of the other."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self._began = total, 0, time.monotonic()
        self._running: dict[int, tuple[str, float]] = {}

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the terminal as it was."""

    def begin(self, number: int, name: str) -> None:
        """A cell is started."""
        self._running[number] = name, time.monotonic()

    def show(self, number: int, words: str) -> None:
        """A cell says where it is."""

    def end(self, number: int, failure: str | None = None, again: bool = False) -> None:
        """A cell ended; failure: why it was not finished; again: it is tried again."""
        name, began = self._running.pop(number)
        self.done += not again
        outcome = f"{time.monotonic() - began:.0f} s" if failure is None else f"failed: {failure}"
        outcome = f"tried again: {failure}" if again else outcome
        self.say(f"[{self.done}/{self.total}] {name}: {outcome}; {self.left()}")

    def say(self, words: str) -> None:
        """Write a line."""
        print(words, file=sys.stderr, flush=True)

    def left(self) -> str:
        """Return how long it will take from here on, judged by the cells so far."""
        if not self.done:
            return "time left unknown yet"
        seconds = (time.monotonic() - self._began) / self.done * (self.total - self.done)
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


class Bars(Screen):
    """A bar for all cells, and a line for each that is running."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}", style="dim", markup=False),
            console=Console(stderr=True),
        )
        self._all = self._progress.add_task("cells", total=total, words="")
        self._lines: dict[int, object] = {}

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def begin(self, number: int, name: str) -> None:
        super().begin(number, name)
        self._lines[number] = self._progress.add_task(name, total=None, words="starting")

    def show(self, number: int, words: str) -> None:
        self._progress.update(self._lines[number], words=words)

    def end(self, number: int, failure: str | None = None, again: bool = False) -> None:
        self._progress.remove_task(self._lines.pop(number))
        super().end(number, failure, again)
        self._progress.update(self._all, completed=self.done, words=self.left())

    def say(self, words: str) -> None:
        self._progress.console.print(words, markup=False, highlight=False)
