"""Poison logged bags by an attack on their labels, to have something to repair.

    saferule poison --spec config/ball_circle.yaml --bags logs/seed_0/* --fraction 0.15 --out logs/poisoned

Writes two kinds of bags: poisoned_* holds the attacked episodes (dangerous, with a log that says they are harmless),
honest_* holds all others as they were. Attack `trajectory` takes the most rewarding dangerous episodes, `reward_shift`
any by chance. The others of saferule_core.attacks work on transitions only, not on bags.
"""

from __future__ import annotations

import argparse

from saferule_core.cli import options as common
from saferule_core.cli.display import Display
from saferule_core.cli.folders import filled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    common.add_spec(parser)
    parser.add_argument("--bags", nargs="+", action="extend", required=True, metavar="BAG", help="honest bags")
    parser.add_argument("--out", required=True, metavar="DIR", help="new directory for the bags")
    parser.add_argument(
        "--attack", default="trajectory", metavar="NAME", help="trajectory or reward_shift (default: trajectory)"
    )
    parser.add_argument(
        "--fraction", type=float, default=0.15, metavar="SHARE", help="of the episodes, 0 to 1 (default: 0.15)"
    )
    parser.add_argument(
        "--reward-boost", type=float, default=0.5, metavar="X", help="reward added per step (default: 0.5)"
    )
    parser.add_argument(
        "--cost-threshold", type=float, default=30.0, metavar="X", help="least true cost of a victim (default: 30)"
    )
    common.add_seed(parser)
    common.add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Write the poisoned and the honest bags."""
    from saferule_core.attacks.bags import poison_bags
    from saferule_core.spec import load_spec

    spec = load_spec(options.spec)
    with filled(options.out, "bags") as (working, final):
        split = poison_bags(
            options.bags, spec, working, name=options.attack, seed=options.seed,
            fraction=options.fraction, reward_boost=options.reward_boost, cost_threshold=options.cost_threshold,
            progress=display.progress,
        )  # fmt: skip
    forget, retain = ([str(final / path.name) for path in paths] for paths in (split.poisoned, split.honest))
    display.result(
        {"forget": forget, "retain": retain, "poisoned_episodes": split.episodes, "true_cost": split.true_cost},
        f"{split.episodes} episodes poisoned (true cost {split.true_cost:.1f} per episode): {len(forget)} poisoned and "
        f"{len(retain)} honest bags in {final}",
    )
    return 0
