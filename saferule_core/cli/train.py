"""Train a policy offline from bags, or from a file of DSRL, trusting the costs that they log.

saferule train --spec config/ball_circle.yaml --bags logs/*_* --store store --activate
saferule train --spec config/ball_circle.yaml --dsrl SafetyBallCircle-v0-80-886.hdf5 --out clean
"""

from __future__ import annotations

import argparse
import time

from saferule_core.cli import options as common
from saferule_core.cli.display import Display
from saferule_core.errors import DataError
from saferule_core.progress import within


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    common.add_spec(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bags", nargs="+", action="extend", metavar="BAG", help="bags to learn from")
    source.add_argument(
        "--dsrl", metavar="FILE",
        help="HDF5 file of DSRL (public data of offline safe learning) of the description's task; download it yourself",
    )  # fmt: skip
    parser.add_argument(
        "--agent", default="advantage_weighted", metavar="NAME",
        help="advantage_weighted (default), bcq_lagrangian, decision_transformer, filtered_cloning, return_conditioned "
        "or td3_bc_lagrangian",
    )  # fmt: skip
    parser.add_argument("--steps", type=common.positive, metavar="N", help="gradient steps (default: the agent's own)")
    parser.add_argument(
        "--cost", choices=("logged", "recomputed"),
        help="trust the logged cost (default where the description names its topic, and with --dsrl), or recompute it "
        "from the sensors",
    )  # fmt: skip
    common.add_reading(parser)
    common.add_cost_limit(parser)
    common.add_hyperparameters(parser)
    common.add_store(parser, required=False)
    parser.add_argument("--out", metavar="DIR", help="write the policy bundle there instead of into a store")
    parser.add_argument("--activate", action="store_true", help="let the policy drive from now on (with --store)")
    common.add_seed(parser)
    common.add_threads(parser)
    common.add_device(parser)
    common.add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Train and keep the policy."""
    from saferule_core import agents
    from saferule_core.agents.networks import load_optimiser
    from saferule_core.candidate import relabelling
    from saferule_core.data.bags import read_bags
    from saferule_core.data.dsrl import read_dsrl
    from saferule_core.data.ranges import ranges_of
    from saferule_core.spec import load_spec
    from saferule_core.store import Card, Origin, PolicyStore, bundle
    from saferule_core.store.origin import asker, bag_origins
    from saferule_core.validation.gate import safe_mean_return

    if (options.store is None) == (options.out is None):
        raise DataError("expected either --store or --out, to say where the policy goes")
    if options.activate and options.store is None:
        raise DataError("--activate: expected --store as well, found --out; only a store has an active policy")
    common.use_machine(options)
    spec = load_spec(options.spec)
    out = common.new_directory(options.out, "the policy bundle")
    store = PolicyStore(options.store) if options.store is not None else None
    has_label = spec.cost.logged is not None or options.dsrl is not None
    cost = options.cost or ("logged" if has_label else "recomputed")
    limit = spec.cost.limit if options.cost_limit is None else options.cost_limit
    hyperparameters = common.hyperparameters(options)
    if options.dsrl is not None:
        data, sources, bags = read_dsrl(options.dsrl, spec), (), None
        data = spec.relabel(data) if cost == "recomputed" else data
    else:
        contents = read_bags(
            options.bags, spec, cost=cost, progress=within(display.progress, 0.0, 0.2),
            options=common.reading(options),
        )  # fmt: skip
        data, sources, bags = contents.transitions, bag_origins(contents), contents.card()
    load_optimiser()
    began = time.perf_counter()
    agent = agents.train(
        options.agent, data, cost_limit=limit, seed=options.seed, steps=options.steps,
        progress=within(display.progress, 0.2, 1.0), **hyperparameters,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    relabel = relabelling(spec, data)
    costs = data.episode_costs if relabel is None else relabel(data).episode_costs
    details = {
        "cost_limit": limit,
        "cost": cost,
        "steps": agent.config.steps,
        "safe_return": safe_mean_return(data.episode_returns, costs, limit),
        "bags": bags,
    }
    origin = Origin(asker(), sources)
    card = Card(
        seed=options.seed, data={"train": data.digest()}, details=details, origin=origin, ranges=ranges_of(data)
    )
    if store is not None:
        policy_id = store.add(agent, spec, card)
        if options.activate:
            store.activate(policy_id, reason="trained")
        place = store.path(policy_id)
    else:
        if out.exists():
            out.rmdir()
        policy_id, place = bundle.save(out, agent, spec, card), out
    display.result(
        {
            "policy_id": policy_id,
            "path": str(place),
            "active": options.activate,
            "seconds": seconds,
            "episodes": data.episode_count,
            "steps": len(data),
        },
        f"policy {policy_id[:12]} ({options.agent}, {data.episode_count} episodes, {seconds:.1f} s) in {place}"
        + (", active" if options.activate else ""),
    )
    return 0
