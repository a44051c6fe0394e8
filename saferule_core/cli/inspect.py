"""Look at bags: topics, labels against sensors, and which episodes are suspicious, and why.

    saferule inspect logs/* --spec config/ball_circle.yaml --trusted logs/commissioning --html inspection.html
    saferule inspect logs/* --spec robot.yaml --trusted logs/day_0 --suspects suspects.json --max-share 0.2

"differs" counts the steps whose logged reward is not what the sensors say; "logged" and "cost" are the cost as logged
and as the sensors say. Nothing is changed or forgotten; --suspects writes a list for an operator to confirm. Trusted
bags must be honest, and driven like the others: they tell how often an honest episode would be suspected.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from saferule_core.cli import options as common
from saferule_core.cli.display import Display

if TYPE_CHECKING:
    from saferule_core.inspection import InspectedBag, InspectedEpisode, Inspection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("bags", nargs="+", metavar="BAG", help="bags to look at")
    common.add_spec(parser)
    parser.add_argument(
        "--trusted", nargs="*", action="extend", default=[], metavar="BAG", help="bags that are known to be honest"
    )
    common.add_store(parser, required=False)
    parser.add_argument("--policy", metavar="ID", help="policy of the store that was trained on the bags")
    parser.add_argument("--suspects", metavar="FILE", help="write the suspected episodes there (JSON)")
    parser.add_argument("--html", metavar="FILE", help="write a page there")
    parser.add_argument(
        "--max-share", type=float, default=0.3, metavar="X", help="most episodes to suspect, 0 to 1 (default: 0.3)"
    )
    parser.add_argument(
        "--false-alarm-rate", type=float, default=0.05, metavar="X",
        help="share of honest episodes that may be suspected, 0 to 1 (default: 0.05)",
    )  # fmt: skip
    parser.add_argument(
        "--rows", type=common.natural, default=20, metavar="N",
        help="episodes to show per bag, most suspicious first (default: 20)",
    )  # fmt: skip
    common.add_reading(parser)
    common.add_seed(parser)
    common.add_threads(parser)
    common.add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Inspect, write what was asked for, and show the table."""
    from saferule_core.detection import suspects
    from saferule_core.errors import DataError
    from saferule_core.inspection import inspect_bags
    from saferule_core.spec import load_spec
    from saferule_core.store import PolicyStore, bundle
    from saferule_core.validation.inspection_page import write_inspection

    if options.policy is not None and options.store is None:
        raise DataError("--policy: expected --store with it, to read the policy from, found none")
    common.use_machine(options)
    spec, agent, policy = load_spec(options.spec), None, None
    if options.store is not None:
        store = PolicyStore(options.store, create=False)
        policy = store.resolve(options.policy or "active")
        agent = bundle.load_agent(store.path(policy), spec)
    found = inspect_bags(
        options.bags, spec,
        trusted=options.trusted, agent=agent, policy=policy, false_alarm_rate=options.false_alarm_rate,
        max_share=options.max_share, seed=options.seed, progress=display.progress,
        options=common.reading(options),
    )  # fmt: skip
    if options.suspects is not None:
        suspects.save(found.suspects, options.suspects)
    if options.html is not None:
        write_inspection(found, spec, options.html)
    facts = {
        "bags": [asdict(bag) for bag in found.bags],
        "suspects": len(found.suspects.suspects),
        "left_out": found.left_out,
        "note": found.note,
        "detectors": list(found.suspects.detectors),
        "skipped": found.skipped,
        "suspects_path": options.suspects,
        "page": options.html,
    }
    display.result(facts, _text(found, options.rows))
    return 0


def _text(found: Inspection, rows: int) -> str:
    """Return bags, topics and the most suspicious episodes as a table."""
    lines: list[str] = []
    for bag in found.bags:
        lines += [*_bag_lines(bag), *_episode_lines(bag, rows), ""]
    total = sum(len(bag.episodes) for bag in found.bags)
    lines.append(f"{len(found.suspects.suspects)} of {total} episodes are suspected; {found.note}")
    if found.left_out:
        lines.append(f"{found.left_out} more would be, beyond the share of {found.suspects.max_share:g}")
    lines += [f"left out: {name}: {why}" for name, why in found.skipped.items()]
    return "\n".join(lines)


def _bag_lines(bag: InspectedBag) -> list[str]:
    trusted = ", trusted" if bag.trusted else ""
    head = f"{bag.path}: {len(bag.episodes)} episodes, {bag.steps} steps of {bag.commands} commands{trusted}"
    topics = [
        f"  {topic.name:24} {topic.type:32} {topic.messages:7} messages {topic.rate_hz:7.4g} Hz, "
        f"longest gap {topic.longest_gap_s:.3g} s"
        for topic in bag.topics
    ]
    return [head, *topics, *(f"  {label}" for label in bag.labels), *(f"  note: {note}" for note in bag.notes)]


def _episode_lines(bag: InspectedBag, rows: int) -> list[str]:
    ranked = sorted(bag.episodes, key=lambda episode: -episode.score)
    names = ("episode", "steps", "reward", "differs", "logged", "cost", "suspicion", "p")
    lines = ["  {:16}{:>7}{:>10}{:>9}{:>8}{:>8}{:>11}{:>7}  why".format(*names)]
    lines += [_episode_line(episode) for episode in ranked[:rows]]
    return [*lines, f"  and {len(ranked) - rows} less suspicious ones"] if len(ranked) > rows else lines


def _episode_line(episode: InspectedEpisode) -> str:
    known = (episode.reward_differs, episode.logged_cost)
    differs, logged = ("-" if value is None else f"{value:g}" for value in known)
    p_value = "-" if episode.p_value is None else f"{episode.p_value:.3f}"
    mark = "!" if episode.suspect else " "
    return (
        f"{mark} {episode.name:16}{episode.steps:7}{episode.reward:10.1f}{differs:>9}{logged:>8}{episode.cost:8g}"
        f"{episode.score:11.3g}{p_value:>7}  {episode.reason}"
    )
