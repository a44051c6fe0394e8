"""Files of DSRL: written here as it lays them out, and read as transitions."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from saferule_core.cli import main
from saferule_core.data import dsrl
from saferule_core.data.dsrl import read_dsrl
from saferule_core.errors import DataError
from saferule_core.spec import load_spec

CONFIG = Path(__file__).parents[1] / "config"
BALL = load_spec(CONFIG / "ball_run.yaml")
LENGTHS = (100, 40, 100, 17)


@pytest.fixture
def rows():
    """Two episodes that ran out of time, one that terminated between them, and one that was cut off."""
    rng = np.random.default_rng(0)
    total = sum(LENGTHS)
    states = [rng.normal(size=(length + 1, 7)).astype(np.float32) for length in LENGTHS]
    terminals, timeouts = np.zeros((2, total), bool)
    timeouts[[99, 239]], terminals[139] = True, True
    return {
        "observations": np.concatenate([state[:-1] for state in states]),
        "next_observations": np.concatenate([state[1:] for state in states]),
        "actions": rng.uniform(-1.0, 1.0, (total, 2)).astype(np.float32),
        "rewards": rng.normal(size=total).astype(np.float32),
        "costs": rng.integers(0, 2, total).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }


@pytest.fixture
def written(tmp_path):
    """Writes rows to a file and returns its path."""

    def write(rows):
        path = tmp_path / "SafetyBallRun-v0-80-940.hdf5"
        with h5py.File(path, "w") as file:
            for key, values in rows.items():
                file.create_dataset(key, data=values, compression="gzip" if np.ndim(values) else None)
        return path

    return write


def test_rows_become_episodes(rows, written):
    data = read_dsrl(written(rows), BALL)
    assert np.diff(data.episode_bounds).tolist() == list(LENGTHS)
    np.testing.assert_array_equal(np.flatnonzero(data.terminated), [139])
    for key in ("observations", "next_observations", "actions", "rewards", "costs"):
        np.testing.assert_array_equal(getattr(data, key), rows[key])


def test_costs_can_be_recomputed_from_a_file(rows, written):
    data = BALL.relabel(read_dsrl(written(rows), BALL))
    x, y, vx, vy, *_ = (BALL.physical(rows["next_observations"])[name] for name in BALL.feature_names)
    np.testing.assert_array_equal(data.costs, (np.abs(y) > 2.0) | (np.hypot(vx, vy) > 2.5))


def test_columns_may_be_tables_of_one_column(rows, written):
    plain = read_dsrl(written(rows), BALL)
    tables = {key: values[:, None] if values.ndim == 1 else values for key, values in rows.items()}
    assert read_dsrl(written(tables), BALL).digest() == plain.digest()


def test_unmarked_ends_are_recovered_from_breaks_and_from_the_episodes_length(rows, written):
    blank = np.zeros(sum(LENGTHS))
    unmarked = {**rows, "terminals": blank, "timeouts": blank}
    assert np.diff(read_dsrl(written(unmarked), BALL).episode_bounds).tolist() == list(LENGTHS)
    joined = np.zeros_like(rows["observations"])
    unmarked |= {"observations": joined, "next_observations": joined}
    assert np.diff(read_dsrl(written(unmarked), BALL).episode_bounds).tolist() == [100, 100, 57]


def test_actions_a_little_beyond_their_bounds_are_clipped(rows, written):
    rows["actions"][3] = 1.0 + 1e-3
    assert np.abs(read_dsrl(written(rows), BALL).actions).max() == 1.0


def changed(key, value=None, row=None):
    """A change of one key: to a value, in one row, or away with it."""

    def change(rows):
        if value is None:
            del rows[key]
        elif row is None:
            rows[key] = value(rows[key])
        else:
            rows[key] = rows[key].astype(float)
            rows[key][row] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("costs"), "expected the keys observations, .*; missing costs: actions, next_observations"),
        (changed("actions", 7.5, row=4), r"actions: row 4: expected values in \[-1, 1\], found 7.5"),
        (changed("rewards", np.nan, row=9), "rewards: row 9: expected finite numbers, found nan"),
        (changed("timeouts", 3, row=2), r"timeouts: row 2: expected 0 or 1, found 3"),
        (changed("costs", lambda v: v[:-1]), r"costs: expected the shape \(257,\) .*, found \(256,\)"),
        (changed("actions", lambda v: v[:, 0]), r"actions: expected the shape \(257, n\) .*, found \(257,\)"),
        (changed("rewards", lambda v: v[0]), r"rewards: expected the shape \(257,\) .*, found \(\)"),
        (changed("costs", lambda v: v.astype("S8")), "costs: expected numbers, found .S8"),
        (changed("observations", lambda v: v[:, :5]), "observations: expected 7 columns for .*ball_run.yaml, found 5"),
        (changed("actions", lambda v: np.c_[v, v]), "actions: expected 2 columns for .*ball_run.yaml, found 4"),
        (changed("timeouts", lambda v: v & False), "episodes of at most 100 steps for .*, found episode 0 of 140"),
    ],
)
def test_files_that_do_not_fit_say_why(rows, written, change, message):
    change(rows)
    path = written(rows)
    with pytest.raises(DataError, match=f"{path}: .*{message}"):
        read_dsrl(path, BALL)


def test_damaged_empty_and_missing_files_say_so(rows, written, tmp_path):
    path = written(rows)
    path.write_bytes(path.read_bytes()[:3000])
    for broken in (path, tmp_path / "nothing.hdf5"):
        with pytest.raises(DataError, match=f"{broken}: expected a readable HDF5 file of DSRL, found"):
            read_dsrl(broken, BALL)
    none = {key: values[:0] for key, values in rows.items()}
    with pytest.raises(DataError, match=r"observations: expected the shape .* with at least a row, found \(0, 7\)"):
        read_dsrl(written(none), BALL)


def test_train_learns_from_a_file(rows, written, tmp_path, capsys):
    words = ["--spec", str(CONFIG / "ball_run.yaml"), "--dsrl", str(written(rows)), "--out", str(tmp_path / "policy")]
    assert main(["train", *words, "--agent", "return_conditioned", "--steps", "5", "--progress", "json"]) == 0
    assert '"episodes":4' in capsys.readouterr().out.replace(" ", "")


@pytest.mark.parametrize("name", ["half_cheetah_velocity", "point_circle"])
def test_what_the_environment_shows_is_translated(name, written, tmp_path):
    """Rows as DSRL would have logged them give the transitions that the simulated robot gives."""
    pytest.importorskip("mujoco")
    from saferule_core.sim.robots import make_robot

    spec = load_spec(CONFIG / f"{name}.yaml")
    robot, rng, log, own = make_robot(spec), np.random.default_rng(1), {key: [] for key in dsrl.KEYS}, []
    environment = robot.environment
    show = environment._get_obs if name == "half_cheetah_velocity" else environment.task.obs
    for seed in (3, 4):
        observation = robot.reset(seed)
        for step in range(60):
            action, before = rng.uniform(-1.0, 1.0, spec.action_dim), show()
            taken = robot.step(action)
            control = action * robot._useful
            for key, value in zip(
                dsrl.KEYS, (before, show(), control, taken.reward, taken.cost, False, step == 59), strict=True
            ):
                log[key].append(value)
            own.append((observation, action, taken.observation))
            observation = taken.observation
    robot.close()
    data = read_dsrl(written({key: np.array(values, dtype=np.float32) for key, values in log.items()}), spec)
    for found, wanted in zip((data.observations, data.actions, data.next_observations), zip(*own, strict=True),
                             strict=True):  # fmt: skip
        np.testing.assert_allclose(found, np.array(wanted), rtol=1e-4, atol=1e-4)
    assert data.episode_count == 2
