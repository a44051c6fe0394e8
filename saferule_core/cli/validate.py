"""Drive candidate and incumbent from the same starts on simulated robots, and judge the candidate.

    saferule validate --spec config/ball_circle.yaml --store store --candidate 3f9a12 --out runs/1

Exit status 0: accepted, 3: refused. Nothing is activated; see `saferule policies activate`.
"""

from __future__ import annotations

import argparse

from saferule_core.cli import options as common
from saferule_core.cli.display import Display
from saferule_core.cli.figures import REFUSED, verdict_facts, verdict_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    common.add_spec(parser)
    common.add_store(parser)
    parser.add_argument("--candidate", required=True, metavar="ID", help="the policy to judge")
    parser.add_argument(
        "--incumbent", default="active", metavar="ID", help="the policy to compare with (default: active)"
    )
    parser.add_argument(
        "--safe-return", type=float, metavar="X",
        help="reference reward where the incumbent is unsafe (default: the one on the candidate's card)",
    )  # fmt: skip
    common.add_gate(parser)
    common.add_cost_limit(parser)
    parser.add_argument("--out", metavar="DIR", help="write a report there")
    common.add_seed(parser)
    common.add_workers(parser)
    common.add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Validate and show the verdict."""
    from saferule_core.repair import validate
    from saferule_core.repair_report import validation_report, write_repair_report
    from saferule_core.spec import load_spec
    from saferule_core.store import PolicyStore
    from saferule_core.validation.gate import GateRules

    spec, store = load_spec(options.spec), PolicyStore(options.store, create=False)
    limit = spec.cost.limit if options.cost_limit is None else options.cost_limit
    rules = GateRules(limit, options.min_reward_kept, options.confidence, options.episodes)
    candidate, incumbent = store.resolve(options.candidate), store.resolve(options.incumbent)
    validation = validate(
        spec, store, candidate, incumbent, rules, options.seed,
        safe_return=options.safe_return, workers=options.workers, nice=options.nice, progress=display.progress,
    )  # fmt: skip
    page = None
    if options.out is not None:
        data = validation_report(spec, limit, incumbent, candidate, validation)
        page = write_repair_report(data, options.out, store, None)
    verdict = validation.verdict
    display.result(
        {
            "candidate_id": candidate,
            "incumbent_id": incumbent,
            **verdict_facts(verdict),
            "validation_seconds": validation.seconds,
            "report_path": None if page is None else str(page),
        },
        verdict_text(verdict, page),
    )
    return 0 if verdict.accepted else REFUSED
