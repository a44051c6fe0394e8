"""Changes a policy store without end, in children that a test kills: python store_writer.py STORE.

For each line on stdin a child is forked, which says its number on stdout and works until it is killed; then "ended" is
said. The fork spares each child the import of torch.
"""

import contextlib
import os
import random
import sys

import torch
from conftest import POINT_SPEC

from saferule_core import agents
from saferule_core.errors import StoreError
from saferule_core.spec import parse_spec
from saferule_core.store import Card, PolicyStore
from saferule_core.store.upkeep import prune


def work(root, seed):
    """Change the store at random until the process dies."""
    store, spec, draw = PolicyStore(root), parse_spec(POINT_SPEC, "point.yaml"), random.Random(seed)
    torch.manual_seed(seed)
    while True:
        with contextlib.suppress(StoreError):  # nothing to roll back to, and the like
            action = draw.choice(["add", "activate", "activate", "rollback", "report", "prune"])
            if action == "add":
                agent = agents.build("return_conditioned", 5, 2, {"hidden": (4,)})
                store.add(agent, spec, Card(seed=seed))
            elif action == "activate":
                store.activate(draw.choice(store.ids()), force=True)
            elif action == "rollback":
                store.rollback(reject=draw.random() < 0.5, force=True)
            elif action == "report":
                store.add_report(draw.choice(store.ids()), bytes(draw.randrange(2000)))
            else:
                prune(store, 4)


def main():
    for seed, _ in enumerate(sys.stdin):
        child = os.fork()
        if child == 0:
            work(sys.argv[1], seed)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
