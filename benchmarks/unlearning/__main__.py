"""The command line of the unlearning benchmark; see the package."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.unlearning import grid
from benchmarks.unlearning.jobs import Backend, Job, LocalBackend, run_jobs
from benchmarks.unlearning.presets import PAGE, PRESETS
from benchmarks.unlearning.results import Results
from benchmarks.unlearning.screen import make_screen
from saferule_core.errors import SaferuleError

CACHE = Path("runs/unlearning_cache")
FILTERS = {
    "task": ("--tasks", str), "agent": ("--agents", str), "attack": ("--attacks", str), "rate": ("--rates", float),
    "knowledge": ("--knowledge", str), "seed": ("--seeds", int), "methods": ("--methods", str),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb of the command line; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        return options.verb(options)
    except SaferuleError as error:
        print(f"benchmarks.unlearning: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="python -m benchmarks.unlearning", description=__doc__.splitlines()[0])
    verbs = top.add_subparsers(required=True)
    summaries = {run: "run what is missing", table: "write tables and plots", show: "list cells, and what is done"}
    for verb, summary in summaries.items():
        sub = verbs.add_parser("list" if verb is show else verb.__name__, help=summary)
        purposes = "; ".join(f"{preset.name}: {preset.purpose}" for preset in PRESETS.values())
        sub.add_argument("--preset", choices=PRESETS, default="smoke", help=f"{purposes} (default: smoke)")
        sub.add_argument("--results", type=Path, metavar="DIR", help="folder of the JSON lines (default: the preset's)")
        for name, (flag, kind) in FILTERS.items():
            sub.add_argument(flag, dest=name, type=kind, nargs="+", help="only these (default: all of the preset)")
        sub.set_defaults(verb=verb)
        if verb is run:
            sub.add_argument("--workers", type=int, default=cores(), help=f"cells at a time (default: {cores()})")
            sub.add_argument("--backend", choices=("local", "ray"), default="local", help="default: local processes")
            sub.add_argument("--renew", nargs="+", default=[], metavar="METHOD", help="run these again")
            sub.add_argument("--cache", type=Path, default=CACHE, help="for data and trained agents")
            sub.add_argument("--nice", type=int, default=0, help="lower the workers' priority by 0 to 19 (default: 0)")
        if verb is table:
            sub.add_argument("--out", type=Path, metavar="FILE", help="page to write (default: the preset's)")
    return top


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def planned(options: argparse.Namespace) -> tuple[grid.Plan, Results]:
    """Return the preset's cells that the command line leaves, and where their results are."""
    preset = PRESETS[options.preset]
    wanted: dict[str, Any] = {name: getattr(options, name) for name in FILTERS}
    return grid.narrowed(preset.plan(), wanted), Results(options.results or preset.results)


def run(options: argparse.Namespace) -> int:
    """Run every cell that has no result yet."""
    plan, results = planned(options)
    grid.check(plan)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without it
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with results.writing():
        jobs = [Job(cell, methods) for cell, methods in results.missing(plan, options.renew)]
        print(f"{len(plan) - len(jobs)} of {len(plan)} cells are done", file=sys.stderr)
        if not jobs:
            return 0
        with make_screen(len(jobs)) as screen:
            failures = run_jobs(jobs, backend(options), results, screen, options.cache, options.nice)
    for name, words in failures.items():
        print(f"{name}: {words}", file=sys.stderr)
    return 1 if failures else 0


def backend(options: argparse.Namespace) -> Backend:
    """Return where workers run."""
    if options.backend == "local":
        return LocalBackend(max(options.workers, 1))
    from benchmarks.unlearning.ray_backend import RayBackend

    return RayBackend()


def table(options: argparse.Namespace) -> int:
    """Write the page and its plots from all results of the preset's cells, and the README's share of them."""
    from benchmarks.unlearning.report import write_overview, write_report

    plan, results = planned(options)
    page = options.out or PRESETS[options.preset].page
    write_report(plan, results.lines(), page, options.preset)
    if page == PAGE:
        write_overview(plan, results.lines())
    print(page)
    return 0


def show(options: argparse.Namespace) -> int:
    """List the cells with their methods that are missing."""
    plan, results = planned(options)
    missing = {cell.key: methods for cell, methods in results.missing(plan)}
    for cell, methods in plan:
        left = missing.get(cell.key, ())
        state = "done" if not left else f"{len(methods) - len(left)} of {len(methods)}, missing: {' '.join(left)}"
        print(f"{cell.name}  {state}")
    print(f"{len(plan) - len(missing)} of {len(plan)} cells are done")
    grid.check(plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())
