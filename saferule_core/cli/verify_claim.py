"""Check a signed claim that a policy forgot data, without the robot or its store.

    saferule verify-claim claim.json --key robot.pub.pem
    saferule verify-claim claim.json --key robot.pub.pem --bag logs/day_3 --bundle exported_policy

Exit status 0: signature and evidence are sound, and what was given is what the claim is about. 2: they are not.
"""

from __future__ import annotations

import argparse

from saferule_core.cli import options as common
from saferule_core.cli.display import Display
from saferule_core.errors import StoreError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("claim", metavar="FILE", help="claim (JSON), from `saferule policies attest`")
    parser.add_argument("--key", required=True, metavar="FILE", help="trusted public key (PEM), or a folder of them")
    parser.add_argument(
        "--bag", action="append", default=[], metavar="BAG", help="a bag that has to be among the forgotten ones"
    )
    parser.add_argument("--bundle", metavar="DIR", help="a bundle that has to be the policy of the claim")
    common.add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Check the claim and show what it says."""
    import msgspec

    from saferule_core.store import bundle, signing
    from saferule_core.store.claim import verify_claim
    from saferule_core.store.origin import bag_sha256

    claim = verify_claim(options.claim, signing.load_trust(options.key))
    forgotten = {bag.sha256: bag.name for bag in claim.forgotten}
    for path in options.bag:
        if (found := bag_sha256(path)) not in forgotten:
            raise StoreError(f"{path}: expected a bag that the claim says was forgotten, found another ({found[:12]})")
    if options.bundle and (found := bundle.content_id(options.bundle)) != claim.policy_id:
        raise StoreError(f"{options.bundle}: expected policy {claim.policy_id[:12]} of the claim, found {found[:12]}")
    measures = claim.measures
    lines = [
        f"sound: policy {claim.policy_id} ({claim.robot})",
        f"was made from {claim.parent_id} by {claim.method}, seed {claim.seed}, on {claim.made}, asked by "
        f"{claim.asked_by}",
        *(f"forgot {bag.name}: {bag.episodes} episodes, SHA-256 {bag.sha256}" for bag in claim.forgotten),
    ]
    for name, pair in measures.distances.items():
        lines.append(f"{name.replace('_', ' ')}: {pair['before']:.4g} before, {pair['after']:.4g} after")
    if claim.after is not None:
        lines += [
            f"mean episode cost: {measures.cost_before:.4g} before, {measures.cost_after:.4g} after, limit "
            f"{measures.cost_limit:g}, over {len(claim.after.costs)} simulated episodes",
            f"mean reward: {measures.reward_before:.4g} before, {measures.reward_after:.4g} after",
        ]
    verdict = {True: "accepted", False: "refused", None: "not validated"}[claim.accepted]
    lines += [f"verdict: {verdict} {claim.message}".rstrip(), claim.statement]
    facts = {
        "sound": True, "policy_id": claim.policy_id, "parent_id": claim.parent_id, "method": claim.method,
        "accepted": claim.accepted, "forgotten": msgspec.to_builtins(claim.forgotten),
        "measures": msgspec.to_builtins(measures), "head": claim.head,
    }  # fmt: skip
    display.result(facts, "\n".join(lines))
    return 0
