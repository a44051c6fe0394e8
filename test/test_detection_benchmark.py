"""The detection benchmark measures what it says, resumes, and shows bad detectors too."""

import argparse
import json

import numpy as np
import pytest
from point_mass import drive, relabel

from benchmarks import detection
from saferule_core.attacks.trajectory import poison
from saferule_core.detection import MEMBERS, Case


def test_auroc_counts_pairs_and_halves_ties():
    assert detection.auroc(np.array([2.0, 3.0]), np.array([1.0, 0.0])) == 1.0
    assert detection.auroc(np.array([1.0, 0.0]), np.array([1.0, 2.0])) == pytest.approx(0.125)


def test_detection_is_taken_where_one_percent_of_honest_episodes_pass():
    honest = np.arange(200.0)
    assert detection.detection(np.array([197.0, 198.5, 250.0]), honest) == pytest.approx(2 / 3)
    assert detection.detection(np.zeros(3), np.zeros(50)) == 0.0


def line_of(attack="trajectory", trusted="20", auroc=0.9, seed=40, false_alarms=0.04):
    key = dict(zip(detection.KEY, ("car_run", 40, attack, 0.1, seed, trusted), strict=True))
    every = {name: auroc for name in detection.SHOWN}
    calibrated = {name: {"false_alarms": false_alarms, "detected": 0.8} for name in ("ensemble", detection.BLIND)}
    return key | {"auroc": every, "detected": every, "calibrated": calibrated}


def test_the_table_shows_every_detector_and_what_was_not_possible():
    text = detection.table([line_of(), line_of(trusted="10%"), line_of("backdoor") | {"error": "too few"}])
    assert all(f"| {name} | 0.900 / 0.90 |" in text for name in detection.SHOWN)
    assert "0.040 / 0.80" in text and "Not possible, car_run, rate 10%, seed 40: too few" in text


def test_the_table_has_no_rows_of_what_was_not_run():
    text = detection.table([line_of()])
    assert "| 20 | 0.040 / 0.80 |" in text and "10% | -" not in text


def test_the_worst_run_and_false_alarms_are_said_in_figures_of_the_data():
    lines = [line_of(false_alarms=0.02), line_of("backdoor", false_alarms=0.04, auroc=0.8)]
    lines += [line_of(seed=41, false_alarms=0.06), line_of("backdoor", seed=41, false_alarms=0.1)]
    text = " ".join(detection.table(lines).split())
    assert "AUROC is at least 0.800 (backdoor, rate 10%, data seed 40)" in text
    assert "0.055 of the honest episodes, over 4 runs; 0.040 to 0.070 by attack" in text
    assert "0.030 to 0.080 by data seed, 0.020 to 0.100 in single runs" in text


def test_the_page_is_made_of_the_recorded_lines():
    begin, end = detection.MARKS
    written = detection.PAGE.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    assert written == detection.table(detection.read())


def test_an_unfinished_line_is_passed_over(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps(line_of()) + '\n{"task": "car')
    assert len(detection.read(path)) == 1 and detection.read(tmp_path / "none.jsonl") == []


def test_a_case_is_judged_by_every_detector():
    data = drive(np.random.default_rng(0).uniform(0.1, 1.9, 60), 0)
    lies, chosen = poison(data, fraction=0.2, cost_threshold=10.0)
    costs = data.costs.copy()
    costs[np.isin(data.episode_index, chosen)] = 0.0
    trusted = np.setdiff1d(np.arange(60), chosen)[:20]
    line = detection.judged(Case(data.replace(costs=costs), trusted, relabel(data).costs), chosen)
    assert set(line["auroc"]) == {*MEMBERS, "ensemble", detection.BLIND}
    assert line["auroc"]["label_disagreement"] == line["detected"]["label_disagreement"] == 1.0
    assert line["calibrated"]["ensemble"]["detected"] == 1.0 and not lies.costs.any()


def test_what_is_there_is_not_measured_again(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps(line_of()) + "\n")
    options = argparse.Namespace(
        lines=path, cache=tmp_path, seeds=[40], tasks=["car_run"], attacks=["trajectory"], rates=[0.1], trusted=["20"],
        episodes=40,
    )  # fmt: skip
    detection.run(options)
    assert len(detection.read(path)) == 1
