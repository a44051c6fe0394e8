"""`saferule inspect` shows what bags hold, proposes suspects, and writes them down; it changes nothing."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import POINT_SPEC
from point_logs import drive
from test_bags import live, record

from saferule_core.attacks.bags import poison_bags
from saferule_core.cli import main
from saferule_core.cli.inspect import _text
from saferule_core.data.bags import read_bags, write_bags
from saferule_core.data.reading import ReadOptions
from saferule_core.data.topic_summary import topic_summaries
from saferule_core.detection import suspects
from saferule_core.errors import DataError
from saferule_core.inspection import inspect_bags
from saferule_core.spec import parse_spec
from saferule_core.validation.inspection_page import write_inspection


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A folder with a description, a trusted bag of 24 episodes, and bags of which one holds 6 poisoned episodes."""
    folder = tmp_path_factory.mktemp("logs")
    (folder / "point.yaml").write_text(POINT_SPEC)
    spec = parse_spec(POINT_SPEC, "point.yaml")
    write_bags(drive(spec, 24, seed=1), spec, folder / "trusted", episodes_per_bag=24)
    clean = write_bags(drive(spec, 30, seed=0), spec, folder / "clean", episodes_per_bag=30)
    split = poison_bags(clean, spec, folder / "split", fraction=0.2, cost_threshold=5.0)
    assert split.episodes == 6 and len(split.poisoned) == len(split.honest) == 1
    return folder


@pytest.fixture(scope="module")
def found(logs):
    spec = parse_spec(POINT_SPEC, "point.yaml")
    bags = [logs / "split" / "poisoned_000", logs / "split" / "honest_000"]
    return inspect_bags(bags, spec, trusted=[logs / "trusted" / "bag_000"], max_share=0.5)


def test_topics_are_counted_and_timed(logs):
    topics = {topic.name: topic for topic in topic_summaries(logs / "clean" / "bag_000")}
    odometry = topics["/odom"]
    assert odometry.type == "nav_msgs/msg/Odometry" and odometry.messages == 30 * 21
    assert odometry.rate_hz == pytest.approx(10.0) and odometry.longest_gap_s >= 0.1


def test_a_path_without_a_bag_has_no_topics(tmp_path):
    with pytest.raises(DataError, match="nothing: expected a rosbag2 bag"):
        topic_summaries(tmp_path / "nothing")


def test_poisoned_episodes_are_suspected_with_their_reason(found):
    poisoned = found.bags[0].episodes
    assert len(poisoned) == 6 and all(episode.suspect for episode in poisoned)
    assert all(episode.logged_cost == 0.0 and episode.cost >= 5.0 for episode in poisoned)
    assert all("cost is logged as 0" in episode.reason for episode in poisoned)
    assert all(episode.p_value == pytest.approx(1 / 25) for episode in poisoned)


def test_few_honest_episodes_are_suspected_and_no_trusted_one(found):
    honest, trusted = found.bags[1], found.bags[2]
    assert sum(episode.suspect for episode in honest.episodes) <= 4
    assert trusted.trusted and not any(episode.suspect for episode in trusted.episodes)
    assert [bag.trusted for bag in found.bags] == [False, False, True]


def test_suspects_name_bag_episode_and_content(found, logs):
    spec = parse_spec(POINT_SPEC, "point.yaml")
    named = [each for each in found.suspects.suspects if each.bag.endswith("poisoned_000")]
    episodes = found.bags[0].episodes
    assert {each.episode for each in named} == {episode.name for episode in episodes}
    assert {each.digest for each in named} == {episode.digest for episode in episodes}
    assert found.suspects.spec_hash == spec.hash and found.suspects.trusted_bags == (str(logs / "trusted" / "bag_000"),)


def test_bags_without_a_cost_label_are_judged_by_their_sensors(logs):
    spec = parse_spec(UNLABELLED)
    bag = inspect_bags([logs / "split" / "honest_000"], spec).bags[0]
    assert all(episode.logged_cost is None and episode.cost is not None for episode in bag.episodes)
    assert all(episode.p_value is None for episode in bag.episodes)


SIDE = "signals: [{name: side, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.x, max_age: 0.35}]\n"
UNREWARDED = POINT_SPEC.replace("  topic: {topic: reward, type: std_msgs/msg/Float64, field: data}\n", "").replace(
    "  logged: {topic: cost, type: std_msgs/msg/Float64, field: data}\n", ""
)
UNLABELLED = POINT_SPEC.replace("  logged: {topic: cost, type: std_msgs/msg/Float64, field: data}\n", "")


@pytest.fixture(scope="module")
def unlabelled(logs):
    """An honest bag whose recorder left out the cost."""
    spec = parse_spec(UNLABELLED, "point.yaml")
    return write_bags(drive(spec, 10, seed=2), spec, logs / "unlabelled", episodes_per_bag=10)[0]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_bag_without_a_cost_label_hides_no_lie_of_another(logs, unlabelled, trusted):
    spec = parse_spec(POINT_SPEC, "point.yaml")
    bags = [logs / "split" / "poisoned_000", unlabelled, logs / "split" / "honest_000"]
    believed = [logs / "trusted" / "bag_000"] if trusted else []
    found = inspect_bags(bags, spec, trusted=believed, max_share=0.5)
    poisoned, silent, honest = found.bags[:3]
    assert len(poisoned.episodes) == 6 and all(episode.suspect for episode in poisoned.episodes)
    assert not trusted or all("cost is logged as 0" in episode.reason for episode in poisoned.episodes)
    assert all(episode.logged_cost is None and episode.cost is not None for episode in silent.episodes)
    assert all(episode.logged_cost == pytest.approx(episode.cost) for episode in honest.episodes)
    assert "no cost label" in found.note and str(unlabelled) in found.note and "honest_000" not in found.note


def test_one_label_that_is_missing_hides_no_lie_and_drops_no_step(tmp_path):
    """The cost takes a signal that is not observed, so that it cannot be computed from the steps alone."""
    spec = parse_spec(POINT_SPEC.replace("abs(x) > 6.0", "abs(side) > 0.25") + SIDE, "point.yaml")
    messages = live(4, 5)
    first = next(number for number, message in enumerate(messages) if message[0] == "/cost")
    bag = record(tmp_path / "bag", messages[:first] + messages[first + 1 :])
    (found,) = inspect_bags([bag], spec).bags
    assert found.steps == len(read_bags([bag], spec).transitions)
    assert [episode.cost for episode in found.episodes] == [3.0, 5.0, 5.0, 5.0]
    assert all(episode.logged_cost == 0.0 for episode in found.episodes)


def test_the_page_shows_every_episode_and_a_path(found, tmp_path):
    write_inspection(found, parse_spec(POINT_SPEC, "point.yaml"), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    episodes = sum(len(bag.episodes) for bag in found.bags)
    assert page.count('<svg class="path"') == page.count("<polyline") == episodes
    assert page.count('<tr class="suspect">') == len(found.suspects.suspects)
    assert "No pictures" not in page
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page


@pytest.fixture(scope="module")
def noted(logs):
    """A bag without markers that logs other rewards than its sensors say, looked at with another."""
    messages = [m for m in live(2, 5) if m[0] != "/episode"]
    bag = record(logs / "noted", messages)
    return inspect_bags([bag, logs / "split" / "honest_000"], parse_spec(POINT_SPEC, "point.yaml"))


def test_what_reading_noticed_is_shown(noted, tmp_path):
    write_inspection(noted, parse_spec(POINT_SPEC), tmp_path / "page.html")
    for shown in (_text(noted, 20), (tmp_path / "page.html").read_text()):
        assert "no episode markers on topic episode" in shown
        assert "reward: 10 of 10 logged values are not what the sensors say" in shown
        assert "cost: 0 of 10 logged values are not what the sensors say" in shown
    first, other = noted.bags
    assert [episode.reward_differs for episode in first.episodes] == [5, 5]
    assert "no episode markers" in first.notes[-1] and len(other.notes) == len(first.notes) - 1


def test_a_damaged_bag_that_is_tolerated_is_named_as_such(logs, tmp_path):
    bag = shutil.copytree(logs / "split" / "honest_000", tmp_path / "cut")
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    options = ReadOptions(tolerate_truncated=True)
    found = inspect_bags([bag], parse_spec(POINT_SPEC, "point.yaml"), options=options)
    (note,) = [note for note in found.bags[0].notes if "found the end of the data" in note]
    assert f"  note: {note}\n" in _text(found, 20)


def test_a_detector_that_cannot_work_is_named_once(logs):
    found = inspect_bags([logs / "split" / "honest_000"], parse_spec(UNREWARDED, "point.yaml"))
    assert "left out: label_disagreement: expected recomputed costs or rewards" in _text(found, 20)


def test_a_page_without_paths_says_why(logs, tmp_path):
    spec = parse_spec(POINT_SPEC.replace("- {name: y,", "- {name: side,").replace("hypot(x, y)", "hypot(x, side)"))
    write_inspection(inspect_bags([logs / "split" / "honest_000"], spec), spec, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<svg" not in page and "<th>path</th>" not in page
    assert "No pictures of paths: they need observed features named x and y, and there is no y." in page


def test_what_a_bag_says_cannot_become_markup(found, tmp_path):
    bag = dataclasses.replace(found.bags[0], path="<b>logs</b>")
    other = dataclasses.replace(found, bags=(bag, *found.bags[1:]))
    write_inspection(other, parse_spec(POINT_SPEC), tmp_path / "p.html")
    assert "<b>logs</b>" not in (tmp_path / "p.html").read_text()


def test_the_command_writes_table_page_and_suspects(logs, monkeypatch, capsys):
    monkeypatch.chdir(logs)
    before = read_bags([logs / "split" / "poisoned_000"], parse_spec(POINT_SPEC)).transitions.digest()
    words = ["inspect", "split/poisoned_000", "split/honest_000", "--spec", "point.yaml", "--progress", "none"]
    words += ["--trusted", "trusted/bag_000", "--max-share", "0.1"]
    words += ["--suspects", "suspects.json", "--html", "page.html"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "/odom" in text and "split/poisoned_000: 6 episodes" in text and "3 of 54 episodes are suspected" in text
    assert text.count("\n! ") == 3 and "beyond the share of 0.1" in text
    written = suspects.load("suspects.json")
    assert len(written.suspects) == 3 and written.max_share == 0.1 and Path("page.html").is_file()
    assert read_bags([logs / "split" / "poisoned_000"], parse_spec(POINT_SPEC)).transitions.digest() == before


def test_programs_get_every_episode(logs, monkeypatch, capsys):
    monkeypatch.chdir(logs)
    words = ["inspect", "split/poisoned_000", "--spec", "point.yaml", "--trusted", "trusted/bag_000"]
    words += ["--progress", "json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [len(bag["episodes"]) for bag in result["bags"]] == [6, 24]
    scores = [episode["score"] for bag in result["bags"] for episode in bag["episodes"]]
    assert np.isfinite(scores).all() and result["suspects"] >= 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--policy", "abc"], "expected --store with it"),
        (["--max-share", "2"], "max share: expected a number above 0, at most 1, found 2"),
        (["--trusted", "nowhere"], "nowhere: expected a rosbag2 bag"),
    ],
)
def test_what_makes_no_sense_is_said(logs, monkeypatch, capsys, more, message):
    monkeypatch.chdir(logs)
    assert main(["inspect", "split/honest_000", "--spec", "point.yaml", "--progress", "none", *more]) == 2
    assert message in capsys.readouterr().err
