"""Ed25519 signatures: who vouches for a bundle or a claim, and whose word counts here.

    key = generate("signing_key.pem")               # and signing_key.pub.pem beside it
    signature = sign(key, POLICY, content_id)
    trust = trusted_keys(bundle_directory)          # None where no key is configured
    trust.check(POLICY, content_id, signatures, path)

Private key: the file that SAFERULE_SIGNING_KEY names. Trusted public keys: the file or folder that
SAFERULE_TRUSTED_KEYS names, else the folder `trusted_keys` of the store that a bundle lies in. As soon as a key is
trusted, nothing unsigned is loaded. A signature is over its purpose and the content id, so one made for a bundle
cannot be passed off as one for a claim.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from saferule_core.errors import StoreError

SIGNING_KEY, TRUSTED_KEYS = "SAFERULE_SIGNING_KEY", "SAFERULE_TRUSTED_KEYS"
TRUSTED_FOLDER, POLICIES_FOLDER = "trusted_keys", "policies"
POLICY, CLAIM = "saferule policy", "saferule claim"


@dataclass(frozen=True)
class Signature:
    """public_key: 32 bytes, signature: 64 bytes, both in hex."""

    public_key: str
    signature: str

    @property
    def key_id(self) -> str:
        """Short name of the key that signed."""
        return key_id(bytes.fromhex(self.public_key))

    def verify(self, purpose: str, subject: str, source: str | Path) -> None:
        """Raise StoreError if this is no signature of `subject` by its own key; `source` names it in the error."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))
            key.verify(bytes.fromhex(self.signature), _message(purpose, subject))
        except (InvalidSignature, ValueError) as error:
            raise StoreError(
                f"{source}: expected a signature of {subject[:12]} by key {self.public_key[:12]}, found one that is "
                "not valid; the file was changed or belongs to something else"
            ) from error


@dataclass(frozen=True)
class _SignatureFile:
    signatures: tuple[Signature, ...]
    algorithm: str = "Ed25519"


@dataclass(frozen=True)
class Trust:
    """The public keys (32 bytes each) whose signatures count; source: where they come from."""

    keys: tuple[bytes, ...]
    source: str

    def check(self, purpose: str, subject: str, signatures: Sequence[Signature], what: str | Path) -> str:
        """Return the id of a trusted key that signed `subject`, named `what` in errors.

        Raises:
            StoreError: there is no signature by a trusted key, or one that is not valid.
        """
        for signature in signatures:
            signature.verify(purpose, subject, what)
        by = [signature for signature in signatures if bytes.fromhex(signature.public_key) in self.keys]
        if by:
            return by[0].key_id
        found = ", ".join(f"one by {signature.key_id}" for signature in signatures) or "none"
        raise StoreError(f"{what}: expected a signature by a key of {self.source}, found {found}")


def key_id(public_key: bytes) -> str:
    """Return the first 16 hex digits of a public key's SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of the public key that belongs to `key`."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def generate(path: str | Path) -> Ed25519PrivateKey:
    """Make a key pair: the private key in `path`, readable by its owner alone, the public one in `….pub.pem`.

    Raises:
        StoreError: one of them exists or cannot be written.
    """
    private, public = Path(path), public_path(path)
    if public.exists():
        raise StoreError(f"{public}: expected to write a new key file, found: File exists")
    key = Ed25519PrivateKey.generate()
    for target, mode, data in (
        (private, 0o600, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        (public, 0o644, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
    ):
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        except OSError as error:
            raise StoreError(f"{target}: expected to write a new key file, found: {error.strerror}") from error
    return key


def public_path(private: str | Path) -> Path:
    """Return where `generate` puts the public key of a private one."""
    return Path(private).with_suffix(".pub.pem")


def load_private(path: str | Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        StoreError: it is missing, no Ed25519 key in PEM without a password, or others may read it.
    """
    data = _read(path)
    if os.stat(path).st_mode & 0o077:
        raise StoreError(f"{path}: expected a private key that only its owner can read, found others may; chmod 600 it")
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StoreError(f"{path}: expected an Ed25519 private key (PEM, no password), found: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"{path}: expected an Ed25519 private key, found another kind")
    return key


def load_public(path: str | Path) -> bytes:
    """Read a public key; returns its 32 bytes.

    Raises:
        StoreError: it is missing, or no Ed25519 key in PEM.
    """
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise StoreError(f"{path}: expected an Ed25519 public key (PEM), found: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise StoreError(f"{path}: expected an Ed25519 public key, found another kind")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def public_of(path: str | Path) -> bytes:
    """Return the 32 bytes of the public key in a file that holds a private or a public one. Raises as `load_public`."""
    return public_bytes(load_private(path)) if b"PRIVATE KEY" in _read(path) else load_public(path)


def configured_key() -> Ed25519PrivateKey | None:
    """Return the private key that the environment names, None if it names none. Raises as `load_private`."""
    path = os.environ.get(SIGNING_KEY)
    return load_private(path) if path else None


def load_trust(path: str | Path) -> Trust:
    """Return the keys of a PEM file, or of all PEM files in a folder.

    Raises:
        StoreError: there is no key, or one is damaged; an empty folder does not switch verification off.
    """
    place = Path(path)
    files = sorted(place.glob("*.pem")) if place.is_dir() else [place]
    if not files:
        raise StoreError(f"{place}: expected at least one trusted public key (*.pem), found none")
    return Trust(tuple(load_public(file) for file in files), str(place))


def trusted_keys(bundle_directory: Path) -> Trust | None:
    """Return whose signatures count for a bundle, None where nobody configured a key. Raises as `load_trust`."""
    if named := os.environ.get(TRUSTED_KEYS):
        return load_trust(named)
    parent = bundle_directory.resolve().parent
    folder = parent.parent / TRUSTED_FOLDER
    return load_trust(folder) if parent.name == POLICIES_FOLDER and folder.is_dir() else None


def sign(key: Ed25519PrivateKey, purpose: str, subject: str) -> Signature:
    """Sign `subject`, for example a content id, for a purpose."""
    return Signature(public_bytes(key).hex(), key.sign(_message(purpose, subject)).hex())


def encode_signatures(signatures: Sequence[Signature]) -> bytes:
    """Return the content of `signature.json`."""
    return msgspec.json.format(msgspec.json.encode(_SignatureFile(tuple(signatures))), indent=2) + b"\n"


def decode_signatures(data: bytes, path: Path) -> tuple[Signature, ...]:
    """Return what `encode_signatures` wrote. Raises StoreError if it is something else."""
    try:
        file = msgspec.json.decode(data, type=_SignatureFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: expected signatures of a policy, found: {error}") from error
    if file.algorithm != "Ed25519":
        raise StoreError(f"{path}: algorithm: expected Ed25519, found {file.algorithm!r}")
    return file.signatures


def _message(purpose: str, subject: str) -> bytes:
    return f"{purpose}\n{subject}\n".encode()


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: expected a key file, found: {error.strerror}") from error
