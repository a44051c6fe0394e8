"""The files of a policy bundle: which there may be, what their hashes are, and the id that follows from these.

    content = read_content("store/policies/3f9a…")
    content.content_id, content.card, content.files["weights.safetensors"]

`SHA256SUMS` lists the files that make up the content as sha256sum does, and the content id is the SHA-256 of that
list: `sha256sum --check SHA256SUMS && sha256sum SHA256SUMS` in a bundle recomputes it. (In format 1 there is no such
file, and the id is that of the list that it would have.) What comes later, a report and signatures, is not content.
A directory with anything else in it is no bundle.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from saferule_core.errors import StoreError
from saferule_core.store.card import Card, decode_card

CARD, SPEC, WEIGHTS, PROBES = "card.json", "spec.yaml", "weights.safetensors", "probes.safetensors"
SUMS, REPORT, SIGNATURE = "SHA256SUMS", "report.json", "signature.json"
CONTENT_FILES = (CARD, PROBES, SPEC, WEIGHTS)
LATER_FILES = (REPORT, SIGNATURE)
_FILES_OF_FORMAT = {1: (CARD, SPEC, WEIGHTS), 2: (*CONTENT_FILES, SUMS)}
_CONTENT_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Content:
    """The files of a bundle as they were read once: what was checked is what is used."""

    directory: Path
    content_id: str
    card: Card
    files: Mapping[str, bytes]


def read_content(directory: str | Path) -> Content:
    """Read a bundle and check its files against each other and against the directory's name.

    Raises:
        StoreError: a file is missing, damaged or unknown, or the content does not match its hashes or the name.
    """
    path = Path(directory).resolve()  # once: `active` may be pointed elsewhere between two files
    present = _listed(path)
    card_bytes = read_file(path / CARD)
    card = decode_card(card_bytes, path / CARD)
    wanted = _FILES_OF_FORMAT[card.format]
    if unknown := sorted(present - {*wanted, *LATER_FILES}):
        raise StoreError(f"{path / unknown[0]}: expected nothing in a policy bundle but its own files, found this one")
    files = {CARD: card_bytes, **{name: read_file(path / name) for name in wanted if name != CARD}}
    sums = files.pop(SUMS, None)
    listed = sum_lines(files)
    found, name = hashlib.sha256(listed).hexdigest(), path.name
    if _CONTENT_ID.fullmatch(name) and name != found:
        raise StoreError(f"{path}: content: expected the SHA-256 {name}, found {found}; the bundle was changed")
    if sums is not None and sums != listed:
        raise StoreError(f"{path / SUMS}: expected the hashes of the bundle's files, found others; it was changed")
    return Content(path, found, card, files)


def sum_lines(files: Mapping[str, bytes]) -> bytes:
    """Return what sha256sum prints for some files, in the order of their names."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


def read_file(path: Path) -> bytes:
    """Return a file of a bundle. Raises StoreError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: expected a file of a policy bundle, found: {error.strerror}") from error


def _listed(directory: Path) -> set[str]:
    """Return the names in a bundle; links and folders are refused, they could lead anywhere."""
    if not directory.is_dir():
        raise StoreError(f"{directory}: expected a policy bundle (a directory), found none")
    with os.scandir(directory) as entries:
        present = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    if odd := sorted(name for name, regular in present.items() if not regular):
        raise StoreError(f"{directory / odd[0]}: expected a regular file, found a link or a folder")
    return set(present)
