"""The options of reading bags mean the same in every command that reads some, and reach the reader."""

import json
import sqlite3
from pathlib import Path

import pytest
from conftest import POINT_SPEC
from point_logs import SIMULATION, drive

from saferule_core.cli import _parser, main
from saferule_core.cli import options as common
from saferule_core.data.bags import write_bags
from saferule_core.data.reading import ReadOptions
from saferule_core.spec import parse_spec

VERBS = {
    "train": ["--bags", "logs"],
    "unlearn": ["--store", "store", "--forget", "a", "--retain", "logs"],
    "repair": ["--store", "store", "--forget", "a", "--retain", "logs"],
    "inspect": ["logs"],
}
OWN = "geometry_msgs/msg/WrenchStamped", "own_msgs/msg/Wrench"


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """A folder with description and bag; runs `saferule train` on it and returns (exit status, card or words)."""
    monkeypatch.chdir(tmp_path)
    Path("point.yaml").write_text(POINT_SPEC + SIMULATION)
    spec = parse_spec(POINT_SPEC + SIMULATION, "point.yaml")
    write_bags(drive(spec, 3, seed=0), spec, tmp_path / "logs", episodes_per_bag=3, storage="sqlite3")

    def train(out, *more, spec="point.yaml"):
        words = ["train", "--spec", spec, "--bags", "logs/bag_000", "--agent", "return_conditioned", "--steps", "1"]
        status = main([*words, "--option", "hidden=[4]", "--out", out, "--progress", "none", *map(str, more)])
        words = capsys.readouterr().err
        return status, json.loads((Path(out) / "card.json").read_text()) if status == 0 else words

    return train


def database():
    return sqlite3.connect(next(Path("logs/bag_000").glob("*.db3")))


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_that_reads_bags_takes_them(verb):
    given = ["--tolerate-truncated", "--message-types", "my_msgs", "x.msg"]
    given += ["--bag-cache", "cache", "--bag-root", "logs"]
    options = _parser().parse_args([verb, "--spec", "point.yaml", *VERBS[verb], *given])
    assert common.reading(options) == ReadOptions(True, ("my_msgs", "x.msg"), "cache", ("logs",))
    plain = _parser().parse_args([verb, "--spec", "point.yaml", *VERBS[verb]])
    assert common.reading(plain) == ReadOptions()


def test_a_bag_that_lacks_messages_is_read_where_that_is_tolerated_and_the_card_says_so(here):
    with database() as changed:
        changed.execute("DELETE FROM messages WHERE id > (SELECT max(id) FROM messages) - 40")
    status, words = here("refused")
    assert status == 2 and "it is not complete (--tolerate-truncated" in words
    status, card = here("taken", "--tolerate-truncated")
    assert status == 0 and any("as its metadata says, found" in note for note in card["details"]["bags"][0]["notes"])


def test_types_that_a_bag_does_not_define_come_from_files(here):
    """The commands get a type of the robot's own, which an old bag names without defining it."""
    Path("own.yaml").write_text((POINT_SPEC + SIMULATION).replace(*OWN))
    with database() as changed:
        changed.execute("UPDATE topics SET type = ? WHERE type = ?", OWN[::-1])
        changed.execute("DELETE FROM message_definitions")
    metadata = Path("logs/bag_000/metadata.yaml")
    metadata.write_text(metadata.read_text().replace(*OWN))
    status, words = here("refused", spec="own.yaml")
    assert status == 2 and "found no definition of own_msgs/msg/Wrench; name its .msg file" in words
    definition = Path("share/own_msgs/msg/Wrench.msg")
    definition.parent.mkdir(parents=True)
    definition.write_text("std_msgs/Header header\ngeometry_msgs/Wrench wrench\n")
    for place in (definition, "share"):
        status, card = here(f"with_{Path(place).name}", "--message-types", place, spec="own.yaml")
        assert status == 0 and card["details"]["bags"][0]["steps"] == 60


def test_what_was_read_is_kept_and_taken_from_there(here):
    first = here("first", "--bag-cache", "cache")[1]["data"]
    (entry,) = Path("cache").iterdir()
    written = (entry / "entry.json").stat().st_mtime_ns
    assert here("second", "--bag-cache", "cache")[1]["data"] == first == here("without")[1]["data"]
    assert [path.name for path in Path("cache").iterdir()] == [entry.name]
    assert (entry / "entry.json").stat().st_mtime_ns == written


def test_bags_outside_of_the_allowed_folders_are_refused(here):
    assert here("inside", "--bag-root", "elsewhere", "logs")[0] == 0
    status, words = here("outside", "--bag-root", "elsewhere")
    assert status == 2 and "logs/bag_000: expected a path inside elsewhere" in words
