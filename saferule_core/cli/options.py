"""Options that several verbs share, each with the same name, meaning and check everywhere."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saferule_core.cli.display import MODES
from saferule_core.data.reading import ReadOptions
from saferule_core.errors import DataError

if TYPE_CHECKING:
    from saferule_core.unlearning.request import RepairRequest


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every verb has."""
    group = parser.add_argument_group("output")
    group.add_argument("--progress", choices=MODES, default="auto", help="how to show progress (default: auto)")
    group.add_argument("--debug", action="store_true", help="show where an error comes from")


def add_spec(parser: argparse.ArgumentParser) -> None:
    """Add the robot description."""
    parser.add_argument("--spec", required=True, metavar="FILE", help="robot description (YAML), e.g. config/*.yaml")


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the seed."""
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of all randomness (default: 0)")


def add_store(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the policy store."""
    parser.add_argument("--store", required=required, metavar="DIR", help="policy store (a directory)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the number of threads for learning."""
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="threads of arithmetic (default: 1)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add what learning runs on."""
    parser.add_argument("--device", default="cpu", metavar="NAME", help="of torch, to learn on (default: cpu)")


def add_workers(parser: argparse.ArgumentParser, default: int = 2) -> None:
    """Add how many simulated robots run, and at which priority."""
    parser.add_argument(
        "--workers", type=positive, default=default, metavar="N",
        help=f"simulated robots at the same time (default: {default})",
    )  # fmt: skip
    parser.add_argument(
        "--nice", type=niceness, default=0, metavar="N", help="lower their priority, 0 to 19 (default: 0)"
    )


def add_unlearning(parser: argparse.ArgumentParser) -> None:
    """Add what a repair is asked with."""
    parser.add_argument("--policy", default="active", metavar="ID", help="the policy to repair (default: active)")
    parser.add_argument(
        "--forget", nargs="*", action="extend", default=[], metavar="BAG", help="bags whose influence is to be removed"
    )
    parser.add_argument(
        "--retain", nargs="*", action="extend", default=[], metavar="BAG", help="bags to go on learning from"
    )
    parser.add_argument(
        "--forget-range", nargs=3, action="append", default=[], metavar=("BAG", "FROM", "TO"),
        help="forget the episodes of a bag that were driven from one time to another [s], counted from its first step",
    )  # fmt: skip
    parser.add_argument(
        "--forget-stamps", nargs=3, action="append", default=[], metavar=("BAG", "FROM", "TO"),
        help="the same with times as in the header stamps of the messages [s]",
    )  # fmt: skip
    parser.add_argument(
        "--suspects", metavar="FILE", help="forget the episodes in a list that saferule inspect --suspects wrote"
    )
    parser.add_argument(
        "--detect", action="store_true", help="forget the episodes of the retained bags that the detectors suspect"
    )
    parser.add_argument(
        "--max-share", type=float, default=0.3, metavar="X",
        help="most episodes that --detect may choose, 0 to 1 (default: 0.3)",
    )  # fmt: skip
    parser.add_argument(
        "--false-alarm-rate", type=float, default=0.05, metavar="X",
        help="share of honest episodes that --detect may choose, 0 to 1 (default: 0.05)",
    )  # fmt: skip
    parser.add_argument(
        "--trusted", nargs="*", action="extend", default=[], metavar="BAG",
        help="bags that are known to be honest; they are retained, too",
    )  # fmt: skip
    parser.add_argument(
        "--forget-untrusted", action="store_true", help="forget all retained bags but the trusted ones"
    )
    parser.add_argument(
        "--method", default="safe_rule", metavar="NAME", help="safe_rule (default), retrain or finetune"
    )
    parser.add_argument(
        "--asked-by", default="", metavar="NAME", help="who asks, for card and history (default: user@host)"
    )
    add_cost_limit(parser)
    add_hyperparameters(parser)


def request(options: argparse.Namespace, **rules: Any) -> RepairRequest:
    """Return what `add_unlearning`, `add_reading` and `add_seed` gave; `rules`: further fields.

    Raises:
        DataError: a time is no number, or a hyperparameter is not NAME=VALUE.
    """
    from saferule_core.unlearning.request import Detecting, RepairRequest, TimeRange

    def ranges(given: list[list[str]], from_beginning: bool) -> list[TimeRange]:
        try:
            return [TimeRange(bag, float(start), float(end), from_beginning) for bag, start, end in given]
        except ValueError as error:
            raise DataError(f"time range: expected BAG FROM TO with two numbers of seconds, found: {error}") from error

    return RepairRequest(
        forget=tuple(options.forget), retain=tuple(options.retain), policy=options.policy, method=options.method,
        seed=options.seed, cost_limit=options.cost_limit, options=hyperparameters(options), asked_by=options.asked_by,
        reading=reading(options), suspects=options.suspects, trusted=tuple(options.trusted),
        ranges=(*ranges(options.forget_range, True), *ranges(options.forget_stamps, False)),
        detect=Detecting(options.max_share, options.false_alarm_rate) if options.detect else None,
        forget_untrusted=options.forget_untrusted, **rules,
    )  # fmt: skip


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add how bags are read."""
    group = parser.add_argument_group("reading bags")
    group.add_argument(
        "--tolerate-truncated", action="store_true",
        help="take what there is of bags that were cut off or lack messages, and note it on the policy's card",
    )  # fmt: skip
    group.add_argument(
        "--message-types", nargs="+", action="extend", default=[], metavar="PATH",
        help=".msg files, or packages with them, for types that the bags do not define themselves",
    )  # fmt: skip
    group.add_argument(
        "--bag-cache", metavar="DIR", help="keep what is read there, by content; a second reading takes seconds"
    )
    group.add_argument(
        "--bag-root", nargs="+", action="extend", default=[], metavar="DIR",
        help="read nothing outside of these directories, symbolic links followed (default: anything)",
    )  # fmt: skip


def reading(options: argparse.Namespace) -> ReadOptions:
    """Return what `add_reading` gave."""
    return ReadOptions(
        options.tolerate_truncated, tuple(options.message_types), options.bag_cache, tuple(options.bag_root)
    )


def add_gate(parser: argparse.ArgumentParser) -> None:
    """Add the gate's rules."""
    parser.add_argument(
        "--episodes", type=natural, default=20, metavar="N", help="simulated episodes per policy (default: 20)"
    )
    parser.add_argument(
        "--confidence", type=float, default=0.95, metavar="P", help="of the bounds, 0.5 to 1 (default: 0.95)"
    )
    parser.add_argument(
        "--min-reward-kept", type=float, default=0.85, metavar="SHARE",
        help="share of the reference reward that must be left, 0 to 1.5 (default: 0.85)",
    )  # fmt: skip


def add_cost_limit(parser: argparse.ArgumentParser) -> None:
    """Add the cost limit."""
    parser.add_argument(
        "--cost-limit", type=float, metavar="X", help="allowed cost per episode (default: the robot description's)"
    )


def add_hyperparameters(parser: argparse.ArgumentParser) -> None:
    """Add free hyperparameters."""
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="a hyperparameter; VALUE as in JSON"
    )


def hyperparameters(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `--option` gave.

    Raises:
        DataError: one is not NAME=VALUE.
    """
    found = {}
    for text in options.option:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise DataError(f"--option: expected NAME=VALUE, found {text!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def use_machine(options: argparse.Namespace) -> None:
    """Let torch use as many threads, and the device, that `add_threads` and `add_device` gave.

    Raises:
        SaferuleError: there is no such device.
    """
    from saferule_core.tensors import use_device, use_threads

    use_threads(options.threads)
    use_device(getattr(options, "device", "cpu"))


def new_directory(path: str | None, what: str) -> Path | None:
    """Return `path` if nothing is there yet, or an empty directory.

    Raises:
        DataError: something is there.
    """
    if path is None:
        return None
    directory = Path(path)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DataError(f"{path}: expected a new or empty directory for {what}, found something in it")
    return directory


def natural(text: str) -> int:
    """Parse an integer of at least 0."""
    return _integer(text, 0, None)


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    return _integer(text, 1, None)


def niceness(text: str) -> int:
    """Parse an integer from 0 to 19."""
    return _integer(text, 0, 19)


def _integer(text: str, low: int, high: int | None) -> int:
    wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}") from error
    if value < low or (high is not None and value > high):
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {value}")
    return value
