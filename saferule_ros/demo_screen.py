"""What `saferule demo` prints: numbered steps, one progress bar at a time, and the table at the end."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


class Screen:
    """What the demo prints: numbered steps, and one progress bar at a time."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._step = 0

    def step(self, title: str) -> None:
        """Begin a numbered step."""
        self._step += 1
        self.console.print(f"\n[bold]{self._step}. {title}[/bold]")

    def say(self, text: str) -> None:
        """Print a line below the step's title."""
        self.console.print(Padding(text, (0, 0, 0, 3)))

    def bar(self) -> Progress:
        """Return a progress bar for `with`."""
        columns = (TextColumn("   {task.description:<12}"), BarColumn(30), TextColumn("{task.percentage:>3.0f} %"),
                   TimeElapsedColumn(), TextColumn("{task.fields[words]}"))  # fmt: skip
        hidden = not self.console.is_terminal
        return Progress(*columns, console=self.console, transient=True, disable=hidden)

    def fail(self, text: str) -> None:
        """Print why the demo ended."""
        self.console.print(f"\n[bold red]{escape(text)}[/bold red]")

    def table(self, summary: Mapping) -> None:
        """Print before and after, and what they are measured against where that was computed."""
        limit = f"cost limit {summary['cost_limit']:g} per episode"
        table = Table(title=f"{summary['robot']}, seed {summary['seed']}, {limit}")
        columns = {"poisoned": "before", "repaired": "after"}
        columns |= {key: words for key, words in (("clean", "trained on clean data"), ("retrained", "retrained"))
                    if f"cost_{key}" in summary}  # fmt: skip
        table.add_column("per episode, mean")
        for words in columns.values():
            table.add_column(words, justify="right")
        rows = (("cost, validation", "cost_{}"), ("reward, validation", "reward_{}"))
        for title, pattern in rows:
            table.add_row(title, *(f"{summary[pattern.format(key)]:.1f}" for key in columns))
        blanks = [""] * (len(columns) - 2)
        for title, key in (("cost, live", "live_cost"), ("reward, live", "live_reward")):
            table.add_row(title, *(f"{summary[f'{key}_{when}']:.1f}" for when in ("before", "after")), *blanks)
        seconds = {"poisoned": "", "repaired": f"{summary['unlearning_seconds']:.1f} s"}
        seconds |= {key: f"{summary[f'{key}_seconds']:.1f} s" for key in columns if f"{key}_seconds" in summary}
        table.add_row("learning time", *(seconds[key] for key in columns))
        self.console.print()
        self.console.print(table)
        self.say(
            f"swap at tick {summary['swap_tick']}: {summary['missed_ticks_around_swap']} ticks missed around it by the "
            f"executor's count, {summary['missed_commands_around_swap']} commands by the robot's (elsewhere up to "
            f"{summary['missed_commands_elsewhere']} in as many ticks)"
        )


def words_of(event: Mapping) -> str:
    """Return message and losses of a progress event, short enough for the end of a line."""
    losses = "  ".join(f"{name} {value:.3g}" for name, value in list((event.get("losses") or {}).items())[:3])
    return f"{escape(event.get('message', ''))}  [dim]{losses}[/dim]".strip()
