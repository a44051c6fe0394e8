"""What a policy came from, as hashes that anyone who has the bags can compute again.

    contents = read_bags(request.forget, spec)
    origin = Origin(asked_by=asker(request.asked_by), used=..., forgotten=bag_origins(contents))

The hash of a bag is that of the list of its files: `cd BAG && sha256sum $(ls | LC_ALL=C sort) | sha256sum` (a bag that
is a single file: `cd FOLDER && sha256sum FILE | sha256sum`). The hash of its episodes is over one line per episode,
"<digest of observations and actions>  <name>".
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from pathlib import Path

from saferule_core.data.bags import BagContents
from saferule_core.errors import DataError
from saferule_core.store.card import BagOrigin

_BLOCK = 1 << 20


def asker(name: str = "") -> str:
    """Return who asks: the name that was given, else user@host of this process."""
    if name:
        return name
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def bag_origins(contents: BagContents) -> tuple[BagOrigin, ...]:
    """Return the hashes of the bags that were read, and of the episodes that came from each.

    Raises:
        DataError: a file of a bag cannot be read any more.
    """
    found = []
    for bag in contents.bags:
        part = contents.transitions.select_episodes(list(bag.episodes))
        lines = (
            f"{hashlib.sha256(part.observations[rows].tobytes() + part.actions[rows].tobytes()).hexdigest()}  {name}\n"
            for rows, name in zip(part.episodes(), bag.episode_names, strict=True)
        )
        episodes = hashlib.sha256("".join(lines).encode()).hexdigest()
        found.append(BagOrigin(Path(bag.path).name, bag_sha256(bag.path), part.episode_count, episodes))
    return tuple(found)


def bag_sha256(path: str | Path) -> str:
    """Return the hash of a bag, a folder or a single file, over names and content of its files.

    Raises:
        DataError: there is nothing, or a file cannot be read.
    """
    bag = Path(path)
    try:
        files = sorted(file for file in bag.iterdir() if file.is_file()) if bag.is_dir() else [bag]
        lines = "".join(f"{_file_sha256(file)}  {file.name}\n" for file in files)
    except OSError as error:
        raise DataError(f"{bag}: expected a readable rosbag2 bag, found: {error.strerror}") from error
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()
