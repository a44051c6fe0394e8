"""Drive the simulated robot with varied behaviours and log it as rosbag2 bags.

saferule collect --spec config/ball_circle.yaml --episodes 500 --bags 10 --seed 0 --out logs/seed_0
"""

from __future__ import annotations

import argparse
import math

from saferule_core.cli import options as common
from saferule_core.cli.display import Display
from saferule_core.cli.folders import filled
from saferule_core.progress import within


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    common.add_spec(parser)
    parser.add_argument("--episodes", type=common.positive, required=True, metavar="N", help="episodes in all")
    parser.add_argument("--bags", type=common.positive, default=1, metavar="N", help="bags in all (default: 1)")
    parser.add_argument("--out", required=True, metavar="DIR", help="new directory for the bags")
    common.add_seed(parser)
    common.add_workers(parser)
    common.add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Log the episodes."""
    from saferule_core.data.bags import write_bags
    from saferule_core.sim.collect import collect_episodes
    from saferule_core.spec import load_spec

    spec = load_spec(options.spec)
    with filled(options.out, "bags") as (working, final):
        logs = collect_episodes(
            spec, options.episodes, options.seed,
            workers=options.workers, nice=options.nice, progress=within(display.progress, 0.0, 0.8),
        )  # fmt: skip
        bags = write_bags(
            logs, spec, working,
            episodes_per_bag=math.ceil(options.episodes / options.bags), progress=within(display.progress, 0.8, 1.0),
        )  # fmt: skip
    steps, paths = sum(log.steps for log in logs), [str(final / bag.name) for bag in bags]
    display.result(
        {"bags": paths, "episodes": len(logs), "steps": steps},
        f"{len(logs)} episodes ({steps} steps) in {len(paths)} bags in {final}",
    )
    return 0
