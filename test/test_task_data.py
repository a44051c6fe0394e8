"""The table of what each task's drivers log."""

from pathlib import Path

import numpy as np

from benchmarks import task_data
from benchmarks.unlearning.presets import TASKS
from saferule_core.spec import load_spec

CONFIG = Path(task_data.__file__).parents[1] / "config"


def test_every_task_of_the_benchmark_is_measured():
    assert set(task_data.TASKS) == {task.name for task in TASKS}


def test_a_row_counts_what_it_says():
    spec = load_spec(CONFIG / "ball_run.yaml")
    reward, cost = np.array([0.2, 0.3, 0.4, 0.9, 0.8]), np.array([0.0, 5.0, 10.0, 30.0, 60.0])
    cells = task_data.Figures(spec, reward, cost, 1234.5).row("ball_run").strip("| ").split(" | ")
    assert cells[:-1] == ["ball_run", "7 / 2 / 100", "1,234", "0.40", "0.90", "40%", "40%", "0.25", "0.85"]


def test_nothing_safe_is_said_so():
    spec = load_spec(CONFIG / "ball_run.yaml")
    row = task_data.Figures(spec, np.array([0.2]), np.array([40.0]), 1.0).row("ball_run")
    assert "| none | 0.20 | 0% | 100% | none | 0.20 |" in row


def test_measured_episodes_depend_on_their_seed_only():
    spec = load_spec(CONFIG / "ball_run.yaml")
    both = task_data.measure(spec, (10, 11), 2)
    np.testing.assert_array_equal(task_data.measure(spec, (11,), 2).reward, both.reward[2:])
    low, high = spec.normalisation.reward_min, spec.normalisation.reward_max
    assert len(both.cost) == 4 and both.steps_per_second > 0.0 and (both.reward * (high - low) + low).max() > low
