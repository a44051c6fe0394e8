"""A short run of the fuzzer; `python -m benchmarks.fuzz_bags` is the long one."""

from dataclasses import replace

import pytest

from benchmarks.fuzz_bags import REQUESTS, Fuzzer, fuzz, rows_of
from saferule_core.data.bag_file import read_topics
from saferule_core.data.bag_reader import read_bag
from saferule_core.errors import DataError


def test_damaged_bags_are_refused_or_read_right():
    findings, outcomes = fuzz(runs=150, seed=0)
    assert findings == []
    assert outcomes["refused"] > 30 and outcomes["read as before"] > 5


def test_the_judge_finds_wrong_numbers(tmp_path, monkeypatch):
    fuzzer = Fuzzer(tmp_path)

    def wrong(path, requests, options):
        found = read_topics(path, requests, options=options)
        found["odom"].columns["pose.pose.position.x"] = found["odom"].columns["pose.pose.position.x"] + 1.0
        return found

    monkeypatch.setattr("benchmarks.fuzz_bags.read_topics", wrong)
    assert any("other messages" in (fuzzer.run(seed) or "") for seed in range(30))
    assert rows_of(read_topics(tmp_path / "bag_0", REQUESTS))["odom"][0][0] == 1_000_000_000


@pytest.mark.parametrize("refuses", [True, False])
def test_the_judge_finds_wrong_steps(tmp_path, monkeypatch, refuses):
    fuzzer = Fuzzer(tmp_path)

    def wrong(path, spec, options):
        if refuses:
            raise DataError("too few")
        part = read_bag(path, spec, options=options)
        return replace(part, transitions=part.transitions.replace(rewards=part.transitions.rewards + 1.0))

    monkeypatch.setattr("benchmarks.fuzz_bags.read_bag", wrong)
    words = "no steps of the messages that it had before: too few" if refuses else "other steps of the messages"
    assert any(words in (fuzzer.run(seed) or "") for seed in range(30))
