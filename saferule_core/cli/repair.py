"""The whole loop on files: unlearn, store the candidate, validate it, write the report.

    saferule repair --spec config/ball_circle.yaml --store store --forget logs/poisoned_* --retain logs/honest_* \\
        --out runs/1 --activate

Exit status 0: accepted, 3: refused. An accepted candidate drives only with --activate. With --work, a repair whose
process died goes on with --resume from the last phase, or episode of validation, that it had finished.
"""

from __future__ import annotations

import argparse

from saferule_core.cli import options as common
from saferule_core.cli.display import Display
from saferule_core.cli.figures import REFUSED, candidate_facts, candidate_text, verdict_facts, verdict_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    common.add_spec(parser)
    common.add_store(parser)
    common.add_unlearning(parser)
    common.add_reading(parser)
    common.add_gate(parser)
    parser.add_argument("--out", metavar="DIR", help="write report.json and report.html there")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--work", metavar="DIR", help="keep the results of all phases in this new directory, to resume")
    kept.add_argument(
        "--resume", metavar="DIR", help="go on with the repair that broke off there; it was asked then, not now"
    )
    parser.add_argument("--activate", action="store_true", help="let the candidate drive if it is accepted")
    common.add_seed(parser)
    common.add_workers(parser)
    common.add_threads(parser)
    common.add_device(parser)
    common.add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Repair and show the verdict."""
    from saferule_core.checkpoints import Checkpoints
    from saferule_core.repair import repair, resume
    from saferule_core.spec import load_spec
    from saferule_core.store import PolicyStore

    common.use_machine(options)
    spec, store = load_spec(options.spec), PolicyStore(options.store, create=False)
    keep = Checkpoints(options.resume or options.work)
    how = {
        "out": options.out or options.resume or options.work, "workers": options.workers, "nice": options.nice,
        "progress": display.progress,
    }  # fmt: skip
    if options.resume is not None:
        outcome = resume(spec, store, keep, reading=common.reading(options), **how)
    else:
        request = common.request(
            options, min_reward_kept=options.min_reward_kept, confidence=options.confidence, episodes=options.episodes
        )
        outcome = repair(request, spec, store, keep=keep, **how)
    candidate, validation = outcome.candidate, outcome.validation
    if outcome.accepted and options.activate:
        store.activate(candidate.policy_id, reason="passed validation", asked_by=options.asked_by)
    facts, text = candidate_facts(candidate), candidate_text(candidate)
    if validation is not None:
        facts |= {**verdict_facts(validation.verdict), "validation_seconds": validation.seconds}
        text += f"\n\n{verdict_text(validation.verdict, outcome.report)}"
    facts |= {
        "accepted": outcome.accepted,
        "message": outcome.message,
        "cost_limit": outcome.cost_limit,
        "report_path": None if outcome.report is None else str(outcome.report),
    }
    keep.finish(facts)
    display.result(facts, text)
    return 0 if outcome.accepted else REFUSED
