"""The table of attacks says what its lines say."""

import json

from benchmarks.attack_strength import CASES, read, table


def line(seed, attack="trajectory", case=CASES[0], **stages):
    return {"case": case, "attack": attack, "rate": 0.1, "seed": seed, **stages}


def test_the_table_gives_means_over_seeds_and_the_trigger_after_a_slash():
    rows = [
        line(10, poisoned=[[2.0, 100.0]], finetune_800=[[1.0, 1.0]]),
        line(11, poisoned=[[1.0, 50.0]]),
        line(10, "backdoor", CASES[1], clean=[[0.8, 0.0], [0.7, 2.0]], poisoned=[[0.8, 0.5], [0.9, 90.0]]),
    ]
    text = table(rows).splitlines()
    assert text[2] == "| car_run return_conditioned | trajectory | 10% | 10, 11 | - | 1.50, 75.0 | 1.00, 1.0 | - |"
    assert "| 0.80, 0.0 / 0.70, 2.0 | 0.80, 0.5 / 0.90, 90.0 | - | - |" in text[3]


def test_lines_are_read_back(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert read(path) == []
    path.write_text("".join(json.dumps(line(seed)) + "\n" for seed in (10, 11)))
    assert read(path) == [line(10), line(11)]
