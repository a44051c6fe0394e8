"""Simulation in worker processes: results depend on policy and seed alone, and failures are told."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from saferule_core import agents
from saferule_core.data.episode_log import transitions_of
from saferule_core.errors import Cancelled, SimulationError
from saferule_core.sim.collect import collect_episodes, reset_seed
from saferule_core.sim.rollout import run_episodes
from saferule_core.spec import load_spec, parse_spec
from saferule_core.store import Card, bundle

BALL = Path(__file__).parents[1] / "config" / "ball_circle.yaml"


@pytest.fixture
def spec(point_yaml):
    return parse_spec(point_yaml + "\nsimulation: {robot: point_robot:PointRobot}\n", "point.yaml")


def test_records_come_in_the_order_of_the_seeds(spec):
    records = run_episodes(spec, "drivers:go_right", [5, 3, 9], workers=2)
    assert [record.seed for record in records] == [5, 3, 9]
    for record in records:
        assert record.steps == 20 and record.path.shape == (20, 2)
        assert record.reward == pytest.approx(10.0)
        assert record.cost == np.sum(record.path[:, 0] > 6.0) > 0


def test_the_number_of_workers_and_other_seeds_do_not_matter():
    spec = load_spec(BALL)
    one = run_episodes(spec, "drivers:push", range(4), workers=1)
    two = run_episodes(spec, "drivers:push", [3, 2, 1, 0], workers=2)[::-1]
    for a, b in zip(one, two, strict=True):
        assert (a.seed, a.reward, a.cost) == (b.seed, b.reward, b.cost)
        np.testing.assert_array_equal(a.path, b.path)


def test_progress_goes_from_nothing_to_all(spec):
    seen = []
    run_episodes(
        spec,
        "drivers:go_right",
        range(4),
        workers=2,
        nice=19,
        progress=lambda phase, fraction, message="": seen.append((phase, fraction, message)),
        phase="checking",
    )
    fractions = [fraction for _, fraction, _ in seen]
    assert fractions == sorted(fractions) and (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert seen[-1] == ("checking", 1.0, "4 of 4 episodes")


def test_cancelling_ends_the_workers_at_once(spec):
    calls = []

    def cancel(phase, fraction, message=""):
        calls.append(time.monotonic())
        if len(calls) > 3:
            raise Cancelled("stop")

    began = time.monotonic()
    with pytest.raises(Cancelled):
        run_episodes(spec, "drivers:dawdles", range(4), workers=2, progress=cancel)
    assert time.monotonic() - began < 30.0


def test_a_worker_that_is_slow_to_end_does_no_harm(spec):
    assert [record.seed for record in run_episodes(spec, "drivers:lingers", [5, 3], workers=2)] == [5, 3]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("drivers:fails", "ended with status 1.*LookupError: the sensor of the month"),
        ("drivers:dies", "ended with status 3"),
        ("drivers:nothing", "expected module:function, found 'drivers:nothing'"),
        ("no/such/bundle", "no/such/bundle: expected a policy bundle"),
    ],
)
def test_a_worker_that_fails_says_why(spec, policy, message):
    with pytest.raises(SimulationError, match="(?s)" + message):
        run_episodes(spec, policy, [0])


def test_requests_that_make_no_sense(spec, point_spec):
    with pytest.raises(SimulationError, match="expected at least one seed"):
        run_episodes(spec, "drivers:go_right", [])
    with pytest.raises(SimulationError, match="workers: expected at least 1, found 0"):
        run_episodes(spec, "drivers:go_right", [0], workers=0)
    with pytest.raises(SimulationError, match="simulation: expected a section"):
        run_episodes(point_spec, "drivers:go_right", [0])
    with pytest.raises(SimulationError, match="simulation.behaviour: expected the name of a behaviour"):
        collect_episodes(spec, 3, seed=0)
    with pytest.raises(SimulationError, match="episodes: expected at least 1, found 0"):
        collect_episodes(spec, 0, seed=0)


def test_collected_episodes_depend_on_seed_and_number_only():
    spec = load_spec(BALL)
    four = transitions_of(collect_episodes(spec, 4, seed=3, workers=2), spec)
    two = transitions_of(collect_episodes(spec, 2, seed=3, workers=1), spec)
    other = transitions_of(collect_episodes(spec, 2, seed=4, workers=1), spec)
    assert four.select_episodes([0, 1]).digest() == two.digest() != other.digest()
    assert len({reset_seed(s, e) for s in range(20) for e in range(50)}) == 1000


def test_logs_hold_what_was_sensed_commanded_and_judged():
    spec = load_spec(BALL)
    (log,) = collect_episodes(spec, 1, seed=0)
    data = transitions_of([log], spec)
    assert log.name == "episode_0" and log.steps == len(data) == 200 and not log.terminated
    assert log.state(0)["nav_msgs/msg/Odometry"]["child_frame_id"] == "odom"
    assert {"reckless", "speed", "noise"} <= set(log.style)
    assert max(np.abs(values).max() for values in log.commands.values()) <= 3.5
    np.testing.assert_array_equal(spec.relabel(data).costs, data.costs)
    state, following = spec.physical(data.observations), spec.physical(data.next_observations)
    rewards = spec.step_reward(following, state, spec.command(data.actions))
    np.testing.assert_allclose(rewards, data.rewards, atol=1e-4)


def test_a_policy_with_a_memory_forgets_between_episodes(spec, tmp_path):
    torch.manual_seed(0)
    agent = agents.build("decision_transformer", spec.obs_dim, spec.action_dim, {})
    bundle.save(tmp_path / "policy", agent, spec, Card(seed=0))
    alone = run_episodes(spec, tmp_path / "policy", [5])
    after_another = run_episodes(spec, tmp_path / "policy", [3, 5])
    np.testing.assert_array_equal(alone[0].path, after_another[1].path)
