"""Keys and signatures: what a trusted key changes, and what no signature can be passed off as."""

import os

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from saferule_core import agents
from saferule_core.errors import StoreError
from saferule_core.store import Card, PolicyStore, bundle, signing


def make_agent(seed=0):
    torch.manual_seed(seed)
    return agents.build("return_conditioned", 5, 2, {"hidden": (4,)})


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    """No key of the machine's environment counts here."""
    for name in (signing.SIGNING_KEY, signing.TRUSTED_KEYS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def key(tmp_path):
    return signing.generate(tmp_path / "own.pem")


@pytest.fixture
def stranger(tmp_path):
    return signing.generate(tmp_path / "stranger.pem")


@pytest.fixture
def store(tmp_path):
    return PolicyStore(tmp_path / "store")


def trust(store, path):
    folder = store.root / signing.TRUSTED_FOLDER
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())


def save(path, point_spec, key=None):
    return bundle.save(path, make_agent(), point_spec, Card(seed=0, created="2026-01-01"), key)


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_private_key_is_for_its_owner_alone(tmp_path, key):
    path = tmp_path / "own.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert signing.public_bytes(signing.load_private(path)) == signing.public_bytes(key)
    assert signing.load_public(tmp_path / "own.pub.pem") == signing.public_bytes(key)
    os.chmod(path, 0o640)
    with pytest.raises(StoreError, match="only its owner can read, found others may"):
        signing.load_private(path)


def test_no_key_is_overwritten(tmp_path, key):
    before = (tmp_path / "own.pem").read_bytes()
    with pytest.raises(StoreError, match="own.pub.pem: expected to write a new key file"):
        signing.generate(tmp_path / "own.pem")
    (tmp_path / "own.pub.pem").unlink()
    with pytest.raises(StoreError, match="own.pem: expected to write a new key file"):
        signing.generate(tmp_path / "own.pem")
    assert (tmp_path / "own.pem").read_bytes() == before and not (tmp_path / "own.pub.pem").exists()


def test_other_kinds_of_keys_are_refused(tmp_path):
    other = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "ec.pem", tmp_path / "ec.pub.pem"
    private.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(StoreError, match="expected an Ed25519 private key, found another kind"):
        signing.load_private(private)
    with pytest.raises(StoreError, match="expected an Ed25519 public key, found another kind"):
        signing.load_public(public)
    public.write_bytes(b"no key")
    with pytest.raises(StoreError, match="expected an Ed25519 public key"):
        signing.load_public(public)


# -- bundles -----------------------------------------------------------------------------------------------------------


def test_a_bundle_is_signed_when_a_key_is_configured(tmp_path, point_spec, key, monkeypatch):
    save(tmp_path / "unsigned", point_spec)
    monkeypatch.setenv(signing.SIGNING_KEY, str(tmp_path / "own.pem"))
    save(tmp_path / "signed", point_spec)
    assert bundle.signatures(tmp_path / "unsigned") == ()
    (signature,) = bundle.signatures(tmp_path / "signed")
    assert signature.key_id == signing.key_id(signing.public_bytes(key))
    assert bundle.content_id(tmp_path / "signed") == bundle.content_id(tmp_path / "unsigned")


def test_without_keys_an_unsigned_store_works(store, point_spec):
    store.activate(store.add(make_agent(), point_spec, Card(seed=0)))
    assert bundle.load_policy(store.path("active"), point_spec).policy_id == store.active()


@pytest.mark.parametrize("signer", ["nobody", "stranger"])
def test_once_a_key_is_trusted_what_it_did_not_sign_is_not_loaded(store, tmp_path, point_spec, key, stranger, signer):
    policy_id = store.add(make_agent(), point_spec, Card(seed=0))
    store.activate(policy_id)
    if signer == "stranger":
        store.sign(policy_id, stranger)
    trust(store, tmp_path / "own.pub.pem")
    for load in (
        lambda: bundle.load_policy(store.path("active"), point_spec),
        lambda: bundle.load_policy(store.root / "active", point_spec),
        lambda: bundle.load_agent(store.path(policy_id)),
        lambda: store.activate(policy_id),
        store.verify,
    ):
        with pytest.raises(StoreError, match="expected a signature by a key of .*trusted_keys, found"):
            load()
    store.sign(policy_id, key)
    assert bundle.load_policy(store.path("active"), point_spec).policy_id == policy_id


def test_the_environment_names_the_trusted_keys_before_the_store_does(
    store, tmp_path, point_spec, key, stranger, monkeypatch
):
    """Who can write into the store could add a key to it."""
    policy_id = store.sign(store.add(make_agent(), point_spec, Card(seed=0)), stranger)
    trust(store, tmp_path / "stranger.pub.pem")
    bundle.verify(store.path(policy_id))
    monkeypatch.setenv(signing.TRUSTED_KEYS, str(tmp_path / "own.pub.pem"))
    with pytest.raises(StoreError, match="own.pub.pem, found one by"):
        bundle.verify(store.path(policy_id))


@pytest.mark.parametrize("emptied", ["folder", "variable"])
def test_trust_that_names_no_key_does_not_switch_verification_off(store, tmp_path, point_spec, monkeypatch, emptied):
    policy_id = store.add(make_agent(), point_spec, Card(seed=0))
    if emptied == "folder":
        (store.root / signing.TRUSTED_FOLDER).mkdir()
    else:
        monkeypatch.setenv(signing.TRUSTED_KEYS, str(tmp_path / "gone.pem"))
    with pytest.raises(StoreError, match="expected (at least one trusted public key|a key file)"):
        bundle.verify(store.path(policy_id))


def test_a_signature_of_another_policy_is_refused(tmp_path, point_spec, key):
    save(tmp_path / "one", point_spec, key)
    bundle.save(tmp_path / "two", make_agent(1), point_spec, Card(seed=1), key)
    (tmp_path / "two" / bundle.SIGNATURE).chmod(0o644)
    (tmp_path / "two" / bundle.SIGNATURE).write_bytes((tmp_path / "one" / bundle.SIGNATURE).read_bytes())
    with pytest.raises(StoreError, match="found one that is not valid"):
        bundle.verify(tmp_path / "two")


def test_a_damaged_signature_is_refused_even_where_nobody_asks_for_one(tmp_path, point_spec, key):
    save(tmp_path / "signed", point_spec, key)
    path = tmp_path / "signed" / bundle.SIGNATURE
    whole = path.read_bytes()
    path.chmod(0o644)
    longer = whole.replace(b'"signature": "', b'"signature": "00')
    for damaged in (b"", whole[:-20], whole.replace(b"Ed25519", b"RSA"), longer):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="signature"):
            bundle.verify(tmp_path / "signed")


def test_a_signature_for_one_purpose_is_none_for_another(key):
    signature = signing.sign(key, signing.POLICY, "a" * 64)
    signature.verify(signing.POLICY, "a" * 64, "here")
    for purpose, subject in ((signing.CLAIM, "a" * 64), (signing.POLICY, "b" * 64)):
        with pytest.raises(StoreError, match="not valid"):
            signature.verify(purpose, subject, "here")


# -- stores that want signatures ---------------------------------------------------------------------------------------


def test_a_store_that_wants_signatures_says_so_before_anything_is_made(store, tmp_path, point_spec, key, stranger):
    trust(store, tmp_path / "own.pub.pem")
    with pytest.raises(StoreError, match="expected a signing key that .* trusts, .* found no signing key"):
        store.add(make_agent(), point_spec, Card(seed=0))
    with pytest.raises(StoreError, match="found key"):
        PolicyStore(store.root, key=stranger).check_can_add()
    assert store.ids() == []
    signing_store = PolicyStore(store.root, key=key)
    signing_store.activate(signing_store.add(make_agent(), point_spec, Card(seed=0)))
    assert bundle.load_policy(store.path("active"), point_spec).policy_id == store.active()


def test_bundles_from_elsewhere_bring_their_signature(store, tmp_path, point_spec, key, stranger):
    trust(store, tmp_path / "own.pub.pem")
    policy_id = save(tmp_path / "good", point_spec, key)
    bundle.save(tmp_path / "forged", make_agent(1), point_spec, Card(seed=1), stranger)
    assert store.add_bundle(tmp_path / "good") == policy_id
    with pytest.raises(StoreError, match="expected a signature by a key of"):
        store.add_bundle(tmp_path / "forged")
    assert store.ids() == [policy_id] and store.verify() == 1


def test_a_policy_may_have_several_signatures_and_each_key_signs_once(store, tmp_path, point_spec, key, stranger):
    policy_id = store.add(make_agent(), point_spec, Card(seed=0))
    for signer in (key, stranger, key):
        store.sign(policy_id, signer)
    assert len(bundle.signatures(store.path(policy_id))) == 2
    assert [entry["event"] for entry in store.history.entries()] == ["added", "signed", "signed"]
    trust(store, tmp_path / "stranger.pub.pem")
    bundle.verify(store.path(policy_id))
