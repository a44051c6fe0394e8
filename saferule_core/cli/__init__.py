"""The `saferule` command: log, poison, inspect, train, unlearn, validate, report. One verb per file.

    saferule collect --spec config/ball_circle.yaml --episodes 100 --bags 5 --out logs
    saferule train --spec config/ball_circle.yaml --bags logs/* --store store --activate
    saferule repair --spec config/ball_circle.yaml --store store --forget logs/bag_003 --retain logs/bag_00[0-2]

Exit status: 0 done (or accepted), 2 bad input or failure, 3 refused by the gate, 130 stopped. A verb imports what it
needs when it runs, so that help comes at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from saferule_core import __version__
from saferule_core.cli.display import Display, make_display
from saferule_core.cli.stopping import Stop, end_with_parent
from saferule_core.errors import Cancelled, SaferuleError

VERBS = (
    "collect", "poison", "inspect", "train", "unlearn", "validate", "repair", "report", "policies", "keys",
    "verify-claim",
)  # fmt: skip
ROS_VERBS = {
    "demo": "a simulated robot misbehaves and is repaired while it drives (needs ROS)",
    "up": "start the nodes of a robot without launch_ros (needs ROS)",
}
FAILED, STOPPED = 2, 130
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "bad_alloc", "can't start new thread")


class UsageError(SaferuleError):
    """The command line itself is wrong; `usage` says how it should look."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.format_usage())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in ROS_VERBS:
        return _run_ros_verb(words[0], words[1:])
    try:
        options = _parser().parse_args(words)
    except UsageError as error:
        if _wants_json(words):
            make_display("json", "saferule").error(str(error), type(error).__name__)
        print(f"{error.usage}saferule: {error}", file=sys.stderr)
        return FAILED
    if "run" not in options:
        _parser().print_help()
        return FAILED
    display = make_display(options.progress, options.verb)
    end_with_parent()
    with Stop() as stop, display:
        display.progress = stop.watching(display.progress)
        return _run(options, display, stop)


def _run(options: argparse.Namespace, display: Display, stop: Stop) -> int:
    """Run the verb; turn what it may raise into one line and an exit status."""
    try:
        return options.run(options, display)
    except (SaferuleError, KeyboardInterrupt) as error:
        if stop.asked or isinstance(error, (Cancelled, KeyboardInterrupt)):
            display.error("stopped; nothing was left half done", "Cancelled")
            return STOPPED
        if options.debug:
            traceback.print_exc()
        display.error(str(error), type(error).__name__)
        return FAILED
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        display.error(f"the memory does not suffice: {str(error).strip() or 'an allocation failed'}", "MemoryError")
        return FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads the output any more
        return STOPPED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        display.error(f"{where}expected to read or write, found: {error.strerror or error}", type(error).__name__)
        return FAILED


def out_of_memory(error: Exception) -> bool:
    """Say whether an error is that of Python, numpy or torch where memory cannot be had."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY_WORDS)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="saferule", description="Repair a robot's learned policy by safe reinforcement unlearning.")
    parser.add_argument("--version", action="version", version=f"saferule {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="command", dest="verb")
    for name in VERBS:
        module = importlib.import_module(f"saferule_core.cli.{name.replace('-', '_')}")
        summary = module.__doc__.splitlines()[0].rstrip(".")
        verb = verbs.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(verb)
    for name, summary in ROS_VERBS.items():
        verbs.add_parser(name, help=summary, add_help=False)
    return parser


def _wants_json(words: Sequence[str]) -> bool:
    return "--progress=json" in words or any(
        pair == ("--progress", "json") for pair in zip(words[:-1], words[1:], strict=True)
    )


def _run_ros_verb(name: str, words: Sequence[str]) -> int:
    """Hand over to saferule_ros, if it can be imported here."""
    try:
        module = importlib.import_module(f"saferule_ros.{name}")
    except ImportError as error:
        print(
            f"saferule {name}: this needs the Python packages of ROS 2 and saferule's own messages, but: {error}. "
            "Run `make setup` in the repository and use .venv/bin/saferule, or source your ROS workspace.",
            file=sys.stderr,
        )
        return FAILED
    return int(module.main(list(words)) or 0)
