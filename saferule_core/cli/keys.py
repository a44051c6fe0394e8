"""Make, show and trust the keys that vouch for policies (Ed25519).

    saferule keys generate signing_key.pem               # and signing_key.pub.pem
    saferule keys show signing_key.pub.pem
    saferule keys trust signing_key.pub.pem --store store

As soon as a store trusts a key, nothing is loaded from it that a trusted key has not signed. To sign what a command
adds, name the private key: export SAFERULE_SIGNING_KEY=signing_key.pem. Keep it off the robot.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from saferule_core.cli import options as common
from saferule_core.cli.display import Display


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of each action."""
    actions = parser.add_subparsers(title="actions", metavar="action", dest="action", required=True)
    for name, summary, metavar in (
        ("generate", "make a key pair", "FILE"),
        ("show", "name keys, private or public, by their public key's id", "FILE"),
        ("trust", "trust public keys in a store", "FILE"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        if name == "generate":
            action.add_argument("file", metavar=metavar, help="new file for the private key; FILE.pub.pem is beside it")
        else:
            action.add_argument("files", nargs="+", metavar=metavar, help="key files (PEM)")
        if name == "trust":
            common.add_store(action)
        common.add_common(action)
        action.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Run the action."""
    {"generate": _generate, "show": _show, "trust": _trust}[options.action](options, display)
    return 0


def _generate(options: argparse.Namespace, display: Display) -> None:
    from saferule_core.store import signing

    key_id = signing.key_id(signing.public_bytes(signing.generate(options.file)))
    public = str(signing.public_path(options.file))
    display.result(
        {"key_id": key_id, "private": options.file, "public": public},
        f"key {key_id}: private {options.file} (keep it secret), public {public}",
    )


def _show(options: argparse.Namespace, display: Display) -> None:
    from saferule_core.store import signing

    keys = {file: signing.key_id(signing.public_of(file)) for file in options.files}
    display.result({"keys": keys}, "\n".join(f"{key_id}  {file}" for file, key_id in keys.items()))


def _trust(options: argparse.Namespace, display: Display) -> None:
    from saferule_core.store import PolicyStore, signing
    from saferule_core.store.files import replace_file

    store = PolicyStore(options.store)
    keys = {file: signing.key_id(signing.load_public(file)) for file in options.files}
    folder = store.root / signing.TRUSTED_FOLDER
    folder.mkdir(exist_ok=True)
    for file, key_id in keys.items():
        replace_file(folder / f"{key_id}.pem", Path(file).read_bytes(), beside=store.root / "key")
    store.record("keys trusted", key_ids=list(keys.values()))
    unsigned = _not_accepted(store)
    text = f"{store.root} trusts {', '.join(keys.values())}"
    if unsigned:
        text += f"; not signed by them, so not loaded any more: {', '.join(name[:12] for name in unsigned)}"
    display.result({"keys": keys, "not_accepted": unsigned}, text)


def _not_accepted(store: object) -> list[str]:
    from saferule_core.errors import StoreError
    from saferule_core.store import bundle

    found = []
    for policy_id in store.ids():
        try:
            bundle.verify(store.path(policy_id))
        except StoreError:
            found.append(policy_id)
    return found
