"""Remove the influence of named bags from a policy; the candidate goes into the store, it does not drive.

    saferule unlearn --spec config/ball_circle.yaml --store store --forget logs/poisoned_* --retain logs/honest_*

Costs are recomputed from the sensors; logged costs are not trusted. `saferule validate` judges the candidate.
"""

from __future__ import annotations

import argparse

from saferule_core.cli import options as common
from saferule_core.cli.display import Display
from saferule_core.cli.figures import REFUSED, candidate_facts, candidate_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    common.add_spec(parser)
    common.add_store(parser)
    common.add_unlearning(parser)
    common.add_reading(parser)
    parser.add_argument("--out", metavar="DIR", help="write a report of the unlearning there")
    parser.add_argument(
        "--activate", action="store_true", help="let the candidate drive without validation; for experiments only"
    )
    common.add_seed(parser)
    common.add_threads(parser)
    common.add_device(parser)
    common.add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Unlearn and keep the candidate."""
    from saferule_core.candidate import make_candidate
    from saferule_core.repair_report import repair_report, write_repair_report
    from saferule_core.spec import load_spec
    from saferule_core.store import PolicyStore

    common.use_machine(options)
    spec, store = load_spec(options.spec), PolicyStore(options.store, create=False)
    request = common.request(options)
    candidate = make_candidate(request, spec, store, progress=display.progress)
    facts = candidate_facts(candidate)
    if options.out is not None:
        data = repair_report(request, spec, candidate, None)
        facts["report_path"] = str(write_repair_report(data, options.out, store, candidate.policy_id))
    if candidate.policy_id is not None and options.activate:
        reason = "activated by saferule unlearn, not validated"
        store.activate(candidate.policy_id, reason=reason, asked_by=options.asked_by)
    display.result(facts, candidate_text(candidate))
    return 0 if candidate.policy_id is not None else REFUSED
