"""Hashes of what a policy came from: the same for the same bag, another one for anything else."""

import subprocess

import pytest
from point_logs import drive

from saferule_core.data.bags import read_bags, write_bags
from saferule_core.errors import DataError
from saferule_core.store.origin import asker, bag_origins, bag_sha256


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bags")


@pytest.fixture
def bags(folder, point_spec):
    """Two bags of three episodes each."""
    if not (folder / "bag_000").exists():
        write_bags(drive(point_spec, 6, seed=0), point_spec, folder, episodes_per_bag=3)
    return [folder / "bag_000", folder / "bag_001"]


def test_the_hash_of_a_bag_can_be_recomputed_with_coreutils(bags):
    command = "sha256sum $(ls | LC_ALL=C sort) | sha256sum"
    output = subprocess.run(["sh", "-c", command], cwd=bags[0], capture_output=True, text=True, check=True).stdout
    assert output.split()[0] == bag_sha256(bags[0])


def test_each_bag_has_its_own_origin(bags, point_spec):
    first, second = bag_origins(read_bags(bags, point_spec))
    assert (first.name, first.episodes, second.name) == ("bag_000", 3, "bag_001")
    assert first.sha256 == bag_sha256(bags[0]) != second.sha256 and first.episodes_sha256 != second.episodes_sha256
    assert bag_origins(read_bags(bags[1:], point_spec)) == (second,)


def test_a_copy_under_another_name_is_recognised_and_a_changed_one_is_not(bags, tmp_path):
    copy = tmp_path / "renamed"
    copy.mkdir()
    for file in bags[0].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert bag_sha256(copy) == bag_sha256(bags[0])
    (copy / "metadata.yaml").write_bytes(b"")
    assert bag_sha256(copy) != bag_sha256(bags[0])


def test_a_bag_that_is_gone_is_named(tmp_path):
    with pytest.raises(DataError, match="gone: expected a readable rosbag2 bag"):
        bag_sha256(tmp_path / "gone")


def test_who_asks_is_the_user_unless_somebody_is_named():
    assert asker("anna") == "anna" and "@" in asker()
