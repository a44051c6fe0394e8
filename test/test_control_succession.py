"""A swap happens between two ticks: blended, after a shadow, on probation; and what was done is remembered."""

import threading
from types import SimpleNamespace as Message

import numpy as np
import pytest
import torch
from control_bench import TICK, Constant, Listener, odometry, run

from saferule_core import agents
from saferule_core.agents.memory import LONGEST_MEMORY, Memory
from saferule_core.control import Controller, ControlState, ProbationTerms, Shadow


@pytest.fixture
def controller(point_spec):
    controller = Controller(point_spec, Constant(1.0), "first")
    controller.update("odom", odometry(), 0)
    return controller


@pytest.fixture
def announced(controller):
    """A controller whose robot marks its episodes, and the policy in it."""
    policy = Listener(1.0)
    controller.swap(policy, "second")
    controller.update("episode", Message(stamp=Message(sec=1, nanosec=0), frame_id="episode_0"), 0)
    run(controller, [1.0, 2.0])
    return controller, policy


def test_the_tick_after_a_swap_is_the_new_policys(controller):
    controller.tick(1_000_000_000)
    assert controller.swap(Constant(-1.0), "second") == "first"
    tick = controller.tick(1_000_000_000 + TICK)
    assert tick.command["force_x"] == -3.5
    assert (controller.policy_id, controller.succession.swaps, controller.succession.last_swap_tick) == ("second", 1, 2)
    assert controller.statistics.missed_ticks == 0


@pytest.mark.parametrize("algorithm", agents.algorithms())
def test_every_agent_drives_and_is_swapped_with_the_memory_of_what_was_done(point_spec, algorithm):
    torch.manual_seed(0)
    small = {"context": 6} if algorithm == "decision_transformer" else {"hidden": (8, 8)}
    agent = agents.build(algorithm, point_spec.obs_dim, point_spec.action_dim, small)
    controller = Controller(point_spec, Constant(0.25), "first")
    run(controller, [1.0, 2.0, 3.0])
    controller.swap(agent, "second")
    memory = Memory(LONGEST_MEMORY, point_spec.obs_dim, point_spec.action_dim)
    for x in (1.0, 2.0, 3.0):
        memory.add(observed(point_spec, x), np.full((1, 2), 0.25, np.float32))
    controller.update("odom", odometry(4.0, 1.3), 0)
    tick = controller.tick(1_000_000_000 + 3 * TICK)
    expected = point_spec.command(agent.act(observed(point_spec, 4.0), memory)[0])["force_x"]
    assert tick.state is ControlState.RUNNING
    assert tick.command["force_x"] == pytest.approx(expected, abs=1e-5)


def observed(spec, x):
    """Return the observation (1, obs_dim) of a position x [m]."""
    return spec.observe(spec.derive({"x": x, "y": 0.0, "heading_sin": 0.0, "heading_cos": 1.0}))[None]


def test_actions_are_blended_linearly(controller):
    controller.tick(1_000_000_000)
    controller.swap(Constant(-1.0), "second", blend_ticks=3)
    forces = []
    for number in range(1, 6):
        controller.update("odom", odometry(sec=1.0 + number / 10), 0)
        forces.append(controller.tick(1_000_000_000 + number * TICK).command["force_x"] / 3.5)
    np.testing.assert_allclose(forces, [0.5, 0.0, -0.5, -1.0, -1.0], atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_candidate_that_breaks_while_it_is_blended_in_is_refused(controller, value):
    controller.swap(Constant(value), "second", blend_ticks=3)
    assert controller.tick(1_000_000_000).state is ControlState.STOPPED


def test_an_incumbent_that_breaks_while_it_is_blended_is_left_out(controller):
    incumbent = Constant(1.0)
    controller.swap(incumbent, "breaking")
    controller.swap(Constant(-1.0), "second", blend_ticks=3)
    incumbent.value = float("nan")
    assert controller.tick(1_000_000_000).command["force_x"] == -3.5


def test_a_shadow_sees_what_the_incumbent_sees_and_drives_nothing(controller):
    candidate = Listener(0.5)
    controller.succession.shadow = shadow = Shadow(candidate, "second", ticks=3, threshold=0.6, period_s=0.1)
    incumbent = Listener(1.0)
    controller.swap(incumbent, "first again")
    run(controller, [1.0, 2.0, 3.0])
    controller.settle()
    assert shadow.finished and not shadow.refusal
    assert shadow.difference == pytest.approx(0.5)
    for (seen, done), (seen_by_it, done_by_it) in zip(incumbent.told, candidate.told, strict=True):
        np.testing.assert_array_equal(seen, seen_by_it)
        np.testing.assert_array_equal(done, done_by_it)


@pytest.fixture
def on_trial(controller):
    """A controller whose second policy is on probation: 5 driven ticks, a cost of 2 per episode."""
    controller.tick(1_000_000_000)
    controller.swap(Constant(-1.0), "second", probation=ProbationTerms(ticks=5, limit=2.0))
    return controller


def step(controller, number):
    controller.update("odom", odometry(sec=1.0 + number / 10), 0)
    return controller.tick(1_000_000_000 + number * TICK)


def test_a_violation_on_probation_swaps_back_in_the_next_tick(on_trial):
    assert step(on_trial, 1).command["force_x"] == -3.5
    for number in range(3):
        on_trial.take_cost("second", 4, number, 1.0, False)
    tick = step(on_trial, 2)
    assert (tick.state, tick.command["force_x"]) == (ControlState.RUNNING, 3.5)
    assert (tick.reverted.policy_id, tick.reverted.previous_id) == ("second", "first")
    assert (on_trial.policy_id, on_trial.succession.rejected_id, on_trial.succession.reverts) == ("first", "second", 1)
    assert step(on_trial, 3).reverted is None


def test_asking_again_for_a_policy_on_probation_keeps_its_terms_and_the_way_back(on_trial):
    assert on_trial.swap(Constant(-1.0), "second") == "second"
    assert on_trial.swap(Constant(-1.0), "second", probation=ProbationTerms(ticks=9, limit=99.0)) == "second"
    on_trial.take_cost("second", 0, 0, 3.0, False)
    assert (step(on_trial, 1).command["force_x"], on_trial.policy_id) == (3.5, "first")


def test_an_action_that_is_none_on_probation_swaps_back_and_latches_nothing(controller):
    controller.swap(Constant(float("nan")), "second", probation=ProbationTerms(ticks=5, limit=2.0))
    tick = step(controller, 1)
    assert (tick.state, tick.command["force_x"]) == (ControlState.STOPPED, 0.0)
    tick = step(controller, 2)
    assert (tick.state, tick.command["force_x"], tick.reverted.policy_id) == (ControlState.RUNNING, 3.5, "second")


def test_where_the_previous_policy_is_no_better_the_robot_is_held(controller):
    controller.swap(Constant(-1.0), "second", probation=ProbationTerms(ticks=5, limit=2.0, hold=True))
    controller.take_cost("second", 0, 0, 3.0, False)
    tick = step(controller, 1)
    assert (tick.state, tick.command["force_x"], tick.reverted.previous_id) == (ControlState.HOLDING, 0.0, "")


def test_a_violation_that_was_there_before_a_policy_is_ended_by_the_safe_command(controller):
    controller.swap(Constant(-1.0), "second", probation=ProbationTerms(ticks=9, limit=2.0, grace=2))
    states = []
    for number, cost in enumerate([1.0] * 4 + [0.0], start=1):
        controller.take_cost("second", 0, number, cost, False)
        tick = step(controller, number)
        states.append((tick.state, tick.command["force_x"]))
    drives, waits = (ControlState.RUNNING, -3.5), (ControlState.WAITING, 0.0)
    assert states == [drives, drives, waits, waits, drives]
    assert controller.succession.probation is not None and not controller.succession.probation.failure


def test_a_failure_is_reported_even_where_another_policy_is_swapped_in_before_the_next_tick(on_trial):
    on_trial.take_cost("second", 0, 0, 3.0, False)
    assert on_trial.swap(Constant(0.0), "third") == "first"
    tick = step(on_trial, 1)
    assert (tick.reverted.policy_id, on_trial.policy_id) == ("second", "third")


def test_probation_goes_on_after_a_new_activation(on_trial):
    on_trial.restart()
    on_trial.take_cost("second", 0, 0, 3.0, False)
    assert step(on_trial, 1).reverted.previous_id == "first"


def test_probation_ends_after_its_driven_ticks(on_trial):
    on_trial.hold("operator")
    step(on_trial, 1)
    on_trial.resume()
    passed = [step(on_trial, number).passed for number in range(2, 8)]
    assert passed == ["", "", "", "", "second", ""]
    on_trial.take_cost("second", 0, 0, 3.0, False)
    assert step(on_trial, 8).reverted is None


def test_swapping_from_another_thread_gives_each_tick_one_whole_policy(controller):
    """The assignment is atomic: no tick sees half of each policy, however often one swaps."""
    stop = threading.Event()

    def swap_all_the_time():
        while not stop.is_set():
            controller.swap(Constant(-1.0), "second")
            controller.swap(Constant(1.0), "first")

    thread = threading.Thread(target=swap_all_the_time)
    thread.start()
    try:
        commands = [controller.tick(1_000_000_000).command["force_x"] for _ in range(2000)]
    finally:
        stop.set()
        thread.join()
    assert set(commands) <= {-3.5, 3.5}


def test_after_a_swap_the_new_policy_remembers_what_the_old_one_did(controller):
    run(controller, [1.0, 2.0])
    successor = Listener(-1.0)
    controller.swap(successor, "second")
    run(controller, [3.0, 4.0], first=2)
    observations, actions = successor.told[-1]
    np.testing.assert_allclose(observations, [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(actions[:, 0], [1.0, 1.0, -1.0])


def test_the_memory_holds_what_was_sent_and_not_what_the_policy_wanted(controller):
    policy = Listener(1.0)
    controller.swap(policy, "second")
    run(controller, [1.0, 2.0])
    controller.hold("operator")
    run(controller, [3.0], first=2)
    controller.resume()
    run(controller, [4.0], first=3)
    observations, actions = policy.told[-1]
    np.testing.assert_allclose(observations, [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(actions, [[1.0, 1.0 / 3.5], [1.0, 2.0 / 3.5], [0.0, 0.0]], rtol=1e-6)  # force_y: 10 N/s


def test_a_new_episode_marker_begins_the_memory_anew_and_a_repeated_one_does_not(announced):
    controller, policy = announced
    controller.update("episode", Message(stamp=Message(sec=1, nanosec=2 * TICK), frame_id="episode_0"), 0)
    run(controller, [3.0], first=2)
    assert len(policy.told[-1][0]) == 2
    controller.update("episode", Message(stamp=Message(sec=1, nanosec=3 * TICK), frame_id="episode_1"), 0)
    run(controller, [4.0, 5.0], first=3)
    assert [len(observations) for observations, _ in policy.told] == [0, 1, 2, 0, 1]


def test_a_marker_counts_from_the_state_that_it_is_stamped_with(announced):
    controller, policy = announced
    controller.update("episode", Message(stamp=Message(sec=1, nanosec=3 * TICK), frame_id="episode_1"), 0)
    run(controller, [3.0, 4.0, 5.0], first=2)
    assert [len(observations) for observations, _ in policy.told] == [0, 1, 2, 0, 1]


def test_after_a_gap_in_the_sensors_nothing_is_remembered(announced):
    controller, policy = announced
    controller.tick(2_000_000_000)
    run(controller, [3.0, 4.0], first=11)
    assert [len(observations) for observations, _ in policy.told] == [0, 1, 0, 1]


def test_after_a_jump_back_nothing_is_remembered(announced):
    controller, policy = announced
    run(controller, [3.0, 3.0, 3.0], first=-5)  # the first is taken for one that is late: the jump shows in the tick
    assert [len(observations) for observations, _ in policy.told] == [0, 1, 0, 1]


def test_a_restart_forgets(announced):
    controller, policy = announced
    controller.restart()
    run(controller, [3.0], first=2)
    assert len(policy.told[-1][0]) == 0


def test_the_memory_does_not_grow(announced):
    controller, policy = announced
    run(controller, np.linspace(0.0, 1.0, 50), first=2)
    assert len(policy.told[-1][0]) == LONGEST_MEMORY
