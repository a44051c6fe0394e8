"""See, check and change the policies of a store: which one drives, where each comes from, what speaks against it.

    saferule policies list --store store
    saferule policies show active --card --store store
    saferule policies diff previous active --store store
    saferule policies adopt policy.onnx --spec robot.yaml --store store
    saferule policies activate 3f9a12 --store store --reason "tested by hand"
    saferule policies verify --store store
    saferule policies attest active --key signing_key.pem --out claim.json --store store

A running robot is not told: use the node's services ~/swap_policy and ~/rollback for that.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from saferule_core.cli import options as common
from saferule_core.cli import policy_changes as changes
from saferule_core.cli import policy_views as views
from saferule_core.cli.display import Display

if TYPE_CHECKING:
    from saferule_core.store import PolicyStore

Outcome = tuple[dict[str, Any], str]
ACTIONS: dict[str, tuple[str, Callable[[PolicyStore, argparse.Namespace], Outcome]]] = {
    "list": ("all policies, oldest first", views.list_policies),
    "show": ("what a policy is, where it comes from, and what speaks against it", views.show),
    "diff": ("how one policy differs from another: origin, weights, actions", views.diff),
    "verify": ("check every bundle, signature, report and link, and the history", views.verify),
    "activate": ("let a policy drive", changes.activate),
    "rollback": ("let the previous policy drive again", changes.rollback),
    "reject": ("mark a policy as one that is not to drive any more", changes.reject),
    "prune": ("delete old policies; the history keeps what it knows of them", changes.prune),
    "export": ("copy a policy into a folder, to be taken elsewhere", changes.export),
    "import": ("take in a policy that was exported or trained elsewhere", changes.import_bundle),
    "adopt": ("take in a policy of another tool: an ONNX file; it runs and is monitored", changes.adopt),
    "sign": ("vouch for policies with a private key", changes.sign),
    "attest": ("claim that a policy forgot data: one signed file with the evidence", changes.attest),
}
_WITH_REASON = ("activate", "rollback", "reject", "prune")
_ONE_POLICY = ("show", "activate", "reject", "export", "attest")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of each action."""
    actions = parser.add_subparsers(title="actions", metavar="action", dest="action", required=True)
    for name, (summary, _) in ACTIONS.items():
        action = actions.add_parser(name, help=summary, description=summary)
        _add_own(name, action)
        common.add_store(action)
        if name in _WITH_REASON:
            action.add_argument("--reason", default="", metavar="TEXT", help="to remember why")
            action.add_argument("--asked-by", default="", metavar="NAME", help="who asks (default: user@host)")
        common.add_common(action)
        action.set_defaults(run=run)


def _add_own(name: str, action: argparse.ArgumentParser) -> None:
    if name in _ONE_POLICY:
        action.add_argument("policy", metavar="ID", help="six or more digits of a policy's id, active or previous")
    if name == "show":
        action.add_argument("--card", action="store_true", help="show the model card (Markdown) instead")
    elif name == "diff":
        action.add_argument("policy", metavar="ID", help="the policy to compare with")
        action.add_argument("other", metavar="OTHER", help="the policy that is compared")
    elif name == "verify":
        action.add_argument("--head", metavar="HASH", help="a hash noted earlier; the history must still contain it")
    elif name in ("activate", "rollback"):
        action.add_argument("--force", action="store_true", help="even though the history speaks against the policy")
        if name == "rollback":
            action.add_argument("--reject", action="store_true", help="also mark the policy that is left as rejected")
    elif name == "prune":
        action.add_argument(
            "--keep", type=common.natural, required=True, metavar="N", help="how many of the newest stay"
        )
        action.add_argument("--dry-run", action="store_true", help="only show what would go")
    elif name == "export":
        action.add_argument("--out", required=True, metavar="DIR", help="new folder for the bundle")
    elif name == "import":
        action.add_argument("bundle", metavar="DIR", help="folder of a policy bundle")
    elif name == "adopt":
        action.add_argument("model", metavar="FILE", help="ONNX file: observations (N, obs_dim) -> actions in [-1, 1]")
        action.add_argument("--spec", required=True, metavar="FILE", help="robot description that it was trained for")
        action.add_argument("--bags", nargs="+", default=(), metavar="BAG", help="bags like those it was trained on: "
                            "the executor then tells observations that are unlike them")  # fmt: skip
    elif name == "sign":
        action.add_argument("policies", metavar="ID", nargs="+", help="policies to sign, or `all`")
        action.add_argument("--key", metavar="FILE", help="private key (default: the one SAFERULE_SIGNING_KEY names)")
    elif name == "attest":
        action.add_argument("--key", metavar="FILE", help="private key (default: the one SAFERULE_SIGNING_KEY names)")
        action.add_argument("--out", required=True, metavar="FILE", help="where the claim goes (JSON)")


def run(options: argparse.Namespace, display: Display) -> int:
    """Run the action."""
    from saferule_core.store import PolicyStore

    store = PolicyStore(options.store, create=options.action in ("import", "adopt"))
    display.result(*ACTIONS[options.action][1](store, options))
    return 0
