"""A policy on disk with a wrong byte, a missing piece, or a disk that was full: refused by name, and never driven.

The short form takes positions of every class of each file: first, last, and inside; the header of the weights, a
tensor, a digit of the card, a hash. The long form takes every byte.
"""

import json
import os
import random
import resource
import shutil
import signal
import struct

import pytest
import torch
from figures import LONG, record

from saferule_core import agents
from saferule_core.errors import StoreError
from saferule_core.store import Card, PolicyStore, bundle
from saferule_core.store.checking import check_store

FILES = ("SHA256SUMS", "card.json", "probes.safetensors", "spec.yaml", "weights.safetensors")


@pytest.fixture
def store(tmp_path, point_spec):
    store = PolicyStore(tmp_path / "store")
    torch.manual_seed(0)
    agent = agents.build("filtered_cloning", point_spec.obs_dim, point_spec.action_dim, {"hidden": (4,)})
    store.activate(store.add(agent, point_spec, Card(seed=0)))
    return store


@pytest.fixture
def policy(store, tmp_path):
    """A writable copy of the active policy, under its own name."""
    copy = tmp_path / store.active()
    shutil.copytree(store.path("active"), copy)
    for file in copy.iterdir():
        file.chmod(0o644)
    return copy


def positions(name, data):
    """Return positions in a file: of every class, and some at random; in the long form all."""
    if LONG:
        return range(len(data))
    found = {0, 1, 7, 8, 9, len(data) // 2, len(data) - 2, len(data) - 1}
    if name.endswith(".safetensors"):
        header = 8 + struct.unpack("<Q", data[:8])[0]
        found |= {header - 1, header, header + 3, (header + len(data)) // 2}
    if name == "card.json":
        found |= {data.index(word) + 2 for word in (b"spec_hash", b"tensors", b"hyperparameters", b"format")}
    return sorted(found | set(random.Random(name).sample(range(len(data)), 12)))


def refused(directory, spec):
    """Return whether a bundle is refused as it should be; anything but a StoreError is a defect of the reader."""
    try:
        bundle.load_policy(directory, spec)
    except StoreError as error:
        assert directory.name[:12] in str(error) or str(directory) in str(error), error
        return True
    return False


@pytest.mark.parametrize("name", FILES)
def test_a_bit_that_flipped_anywhere_is_noticed(policy, point_spec, name):
    path, draw, driven = policy / name, random.Random(1), []
    data = path.read_bytes()
    tried = positions(name, data)
    for position in tried:
        broken = bytearray(data)
        broken[position] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        if not refused(policy, point_spec):
            driven.append(position)
    path.write_bytes(data)
    bundle.load_policy(policy, point_spec)
    record("flipped bits", {"file": name, "positions": len(tried), "of_bytes": len(data), "driven": len(driven)})
    assert driven == []


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_short_or_too_long_is_noticed(policy, point_spec, name):
    path = policy / name
    data = path.read_bytes()
    pieces = [b"", data[:1], data[: len(data) // 2], data[:-1], data + b"\0", data + data, bytes(len(data))]
    for piece in pieces:
        path.write_bytes(piece)
        assert refused(policy, point_spec), f"{name} of {len(piece)} bytes instead of {len(data)}"
    path.unlink()
    assert refused(policy, point_spec), f"without {name}"


def test_a_store_that_is_full_says_so_and_keeps_what_it_had(store, point_spec):
    """The kernel refuses each write beyond a size, as a full disk does, at every place in turn."""
    torch.manual_seed(1)
    agent = agents.build("filtered_cloning", point_spec.obs_dim, point_spec.action_dim, {"hidden": (64, 64)})
    before, largest = store.active(), max(file.stat().st_size for file in store.path("active").iterdir())
    outcomes = {}
    for limit in [1, 200, 1000, largest, 10_000, 18_000, 1_000_000]:
        outcomes[limit] = in_child(lambda: store.activate(store.add(agent, point_spec, Card(seed=0))), limit)
        store.record("looked at")  # any change tidies up
        check = check_store(store)
        assert check.policies == len(store.ids()) and not list(store.root.glob("policies/.*"))
        bundle.load_policy(store.path("active"), point_spec)
        assert (store.active() == before) == (outcomes[limit] != "")
    record("full store", {"limits": len(outcomes), "refused": sum(map(bool, outcomes.values()))})
    assert outcomes[1_000_000] == "", "with room it works"
    assert [limit for limit, words in outcomes.items() if words.startswith("defect")] == []
    assert all("File too large" in words for limit, words in outcomes.items() if limit <= 1000)


def in_child(work, file_limit):
    """Run `work` in a process that may not write larger files; return what a StoreError said, "" for success."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        try:
            work()
            words = ""
        except StoreError as error:
            words = str(error)
        except BaseException as error:
            words = f"defect: {type(error).__name__}: {error}"
        os.write(writing, json.dumps(words).encode())  # a pipe is no file
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        words = json.loads(answer.read())
    os.waitpid(child, 0)
    return words
