"""Every tick gives a command; a swap happens between two ticks; stops, holds and bad input give the safe command."""

import threading
from types import SimpleNamespace as Message

import numpy as np
import pytest
import torch

from saferule_core import agents
from saferule_core.agents.memory import LONGEST_MEMORY, Memory
from saferule_core.control import Controller, ControlSettings, ControlState, ProbationTerms, ResumeRefused, Shadow
from saferule_core.data.ranges import ObservationRanges

TICK = 100_000_000


class Constant:
    """A policy that always does the same."""

    def __init__(self, value):
        self.value = value

    def act(self, observations, memory):
        return np.full((len(observations), 2), self.value, dtype=np.float32)


class Listener(Constant):
    """The same, and keeps what the controller remembers before each of its ticks."""

    def __init__(self, value):
        super().__init__(value)
        self.told = []

    def act(self, observations, memory):
        known = memory.known[0]
        self.told.append(
            (memory.observations[0, memory.steps - known :, 0].copy(), memory.actions[0, memory.steps - known :].copy())
        )
        return super().act(observations, memory)


def odometry(x=0.0, sec=1.0):
    stamp = Message(sec=int(sec), nanosec=round((sec % 1) * 1e9))
    orientation = Message(x=0.0, y=0.0, z=0.0, w=1.0)
    pose = Message(position=Message(x=x, y=0.0, z=0.0), orientation=orientation)
    return Message(header=Message(stamp=stamp), pose=Message(pose=pose))


@pytest.fixture
def controller(point_spec):
    controller = Controller(point_spec, Constant(1.0), "first")
    controller.update("odom", odometry(), 0)
    return controller


def test_the_policy_drives_in_command_units(controller):
    tick = controller.tick(1_000_000_000)
    assert tick.state is ControlState.RUNNING
    assert tick.command["force_x"] == 3.5


def test_the_tick_after_a_swap_is_the_new_policys(controller):
    controller.tick(1_000_000_000)
    assert controller.swap(Constant(-1.0), "second") == "first"
    tick = controller.tick(1_000_000_000 + TICK)
    assert tick.command["force_x"] == -3.5
    assert (controller.policy_id, controller.statistics.swaps, controller.statistics.last_swap_tick) == ("second", 1, 2)
    assert controller.statistics.missed_ticks == 0


def test_stale_input_gives_the_safe_command_and_is_counted(controller):
    tick = controller.tick(2_000_000_000)
    assert (tick.state, tick.command) == (ControlState.WAITING, {"force_x": 0.0, "force_y": 0.0})
    assert "odom" in tick.reason and "(x, y, heading)" in tick.reason
    assert controller.statistics.stale_ticks == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_action_never_reaches_the_robot_and_stops_it_for_good(controller, value):
    controller.swap(Constant(value), "broken")
    tick = controller.tick(1_000_000_000)
    assert (tick.state, tick.command["force_x"]) == (ControlState.STOPPED, 0.0)
    assert "broken" in tick.reason
    controller.swap(Constant(1.0), "sound")
    assert controller.tick(1_000_000_000 + TICK).state is ControlState.STOPPED
    controller.resume()
    assert controller.tick(1_000_000_000 + 2 * TICK).state is ControlState.RUNNING
    assert controller.statistics.refused_actions == 1


class Failing(Constant):
    """A policy that answers with an exception, or with an action of the wrong shape."""

    def act(self, observations, memory):
        if self.value is None:
            raise RuntimeError("no such layer")
        return np.zeros(self.value, dtype=np.float32)


@pytest.mark.parametrize("value", [None, (1, 3), (2,), (2, 2)])
def test_a_policy_that_fails_or_answers_in_another_shape_stops_the_robot(controller, value):
    controller.swap(Failing(value), "odd")
    tick = controller.tick(1_000_000_000)
    assert (tick.state, tick.command["force_x"]) == (ControlState.STOPPED, 0.0)
    assert controller.stop_reason.startswith("policy odd: expected")


def test_actions_beyond_the_bounds_and_rates_are_limited_and_counted(controller):
    controller.tick(1_000_000_000)  # force_y may move by 1 N per tick and is asked for 3.5 N
    assert controller.statistics.limited_ticks == 1
    controller.swap(Constant(50.0), "greedy")
    tick = controller.tick(1_000_000_000 + TICK)
    assert tick.command == {"force_x": 3.5, "force_y": 2.0}
    assert controller.statistics.limited_ticks == 2


def test_rates_count_from_the_safe_command_after_a_stop(controller):
    for number in range(3):
        controller.tick(1_000_000_000 + number * TICK)
    controller.hold("operator")
    controller.tick(1_000_000_000 + 3 * TICK)
    controller.resume()
    controller.update("odom", odometry(sec=1.4), 0)
    assert controller.tick(1_000_000_000 + 4 * TICK).command["force_y"] == 1.0


def test_hold_and_resume(controller):
    controller.hold("operator")
    assert controller.tick(1_000_000_000).state is ControlState.HOLDING
    controller.resume()
    assert controller.tick(1_000_000_000 + TICK).state is ControlState.RUNNING


def test_the_monitors_stop_latches_and_its_release_does_not_rearm(controller):
    controller.set_monitor_stop(True)
    assert controller.tick(1_000_000_000).state is ControlState.STOPPED
    with pytest.raises(ResumeRefused, match="reset_stop"):
        controller.resume()
    controller.set_monitor_stop(False)
    assert controller.tick(1_000_000_000 + TICK).state is ControlState.STOPPED
    controller.resume()
    assert controller.tick(1_000_000_000 + 2 * TICK).state is ControlState.RUNNING


@pytest.mark.parametrize(("still_asked_for", "state"), [(True, ControlState.STOPPED), (False, ControlState.RUNNING)])
def test_a_new_activation_rearms_unless_the_monitor_still_asks_for_a_stop(controller, still_asked_for, state):
    controller.set_monitor_stop(True)
    controller.set_monitor_stop(still_asked_for)
    controller.restart()
    controller.update("odom", odometry(), 0)
    assert controller.tick(1_000_000_000).state is state


def test_inputs_that_stay_unusable_latch_the_stop(controller):
    run(controller, [0.0])
    late = [controller.tick(1_000_000_000 + number * TICK).state for number in range(4, 11)]
    assert set(late[:6]) == {ControlState.WAITING}  # the message may be 0.35 s old, the timeout is 0.5 s
    assert late[6] is ControlState.STOPPED
    run(controller, [0.0], first=11)
    assert controller.tick(1_000_000_000 + 11 * TICK).state is ControlState.STOPPED
    controller.resume()
    assert controller.tick(1_000_000_000 + 11 * TICK).state is ControlState.RUNNING


def test_a_short_gap_in_the_inputs_does_not_latch(controller):
    run(controller, [0.0])
    assert controller.tick(1_000_000_000 + 4 * TICK).state is ControlState.WAITING
    controller.update("odom", odometry(0.0, 1.5), 0)
    assert controller.tick(1_000_000_000 + 5 * TICK).state is ControlState.RUNNING


def test_before_the_first_input_the_loop_only_waits(point_spec):
    controller = Controller(point_spec, Constant(1.0), "first")
    states = {controller.tick(1_000_000_000 + number * TICK).state for number in range(20)}
    assert states == {ControlState.WAITING}
    controller.update("odom", odometry(0.0, 3.0), 0)
    assert controller.tick(3_000_000_000).state is ControlState.RUNNING


def test_a_sensor_value_that_is_not_finite_gives_the_safe_command(controller):
    controller.update("odom", odometry(float("nan"), 1.1), 0)
    tick = controller.tick(1_000_000_000 + TICK)
    assert (tick.state, tick.command["force_x"]) == (ControlState.WAITING, 0.0)
    assert "x" in tick.reason


def test_ticks_without_a_new_message_are_counted_as_starved(controller):
    run(controller, [0.0, 0.0])
    controller.tick(1_000_000_000 + 2 * TICK)
    assert controller.statistics.starved_ticks == 1
    assert controller.ages(1_000_000_000 + 3 * TICK)["x"] == pytest.approx(0.2)


# -- the clock -----------------------------------------------------------------------------------------------------


def test_after_a_jump_back_old_stamps_count_no_longer(controller):
    run(controller, [1.0] * 30)
    assert controller.tick(1_000_000_000).state is ControlState.WAITING
    controller.update("odom", odometry(1.0, 1.1), 0)
    tick = controller.tick(1_000_000_000 + TICK)
    assert tick.state is ControlState.RUNNING
    assert tick.timing.missed == 0
    assert controller.statistics.clock_jumps == 1


def test_a_small_jump_back_is_noticed_by_the_nodes_clock_alone(controller):
    """On a robot the timer is steady, and the clock of the stamps is what somebody sets."""
    for number in range(3):
        controller.update("odom", odometry(0.0, 1.0 + number / 10), 0)
        controller.tick(1_000_000_000 + number * TICK, schedule_ns=number * TICK)
    tick = controller.tick(1_000_000_000 - 4 * TICK, schedule_ns=3 * TICK)
    assert tick.state is ControlState.WAITING
    controller.update("odom", odometry(0.0, 0.7), 0)
    tick = controller.tick(1_000_000_000 - 3 * TICK, schedule_ns=4 * TICK)
    assert tick.state is ControlState.RUNNING
    assert (controller.statistics.missed_ticks, controller.statistics.clock_jumps) == (0, 1)


def test_after_a_jump_back_nothing_is_remembered(announced):
    controller, policy = announced
    run(controller, [3.0, 3.0, 3.0], first=-5)  # the first is taken for one that is late: the jump shows in the tick
    assert [len(observations) for observations, _ in policy.told] == [0, 1, 0, 1]


# -- observations unlike the training data -------------------------------------------------------------------------


class Trained(Constant):
    """A policy that saw x within [-5, 5] m, and everything else."""

    ranges = ObservationRanges((-0.5, -9.0, -2.0, -2.0, -9.0), (0.5, 9.0, 2.0, 2.0, 9.0))


def trained(point_spec, ood, margin=0.1):
    return Controller(point_spec, Trained(1.0), "trained", ControlSettings(ood=ood, ood_margin=margin))


@pytest.mark.parametrize(
    ("ood", "state", "count"),
    [("off", ControlState.RUNNING, 0), ("warn", ControlState.RUNNING, 1), ("hold", ControlState.WAITING, 1)],
)
def test_an_observation_beyond_the_training_data(point_spec, ood, state, count):
    controller = trained(point_spec, ood)
    run(controller, [0.0])
    controller.update("odom", odometry(7.0, 1.1), 0)
    tick = controller.tick(1_000_000_000 + TICK)
    assert (tick.state, controller.statistics.ood_ticks) == (state, count)
    assert ("x 0.7" in tick.warning) == (ood != "off")


def test_the_margin_is_a_share_of_the_range(point_spec):
    controller = trained(point_spec, "hold", margin=0.2)
    run(controller, [6.9, 7.1])
    assert controller.statistics.ood_ticks == 1


def test_an_excursion_that_lasts_holds_the_robot_until_it_is_resumed(point_spec):
    controller = trained(point_spec, "hold")
    run(controller, [0.0] + [7.0] * 8 + [0.0])
    assert controller.tick(1_000_000_000 + 9 * TICK).state is ControlState.HOLDING
    controller.resume()
    assert controller.tick(1_000_000_000 + 9 * TICK).state is ControlState.RUNNING


def test_a_policy_without_ranges_is_not_checked(point_spec):
    controller = Controller(point_spec, Constant(1.0), "old", ControlSettings(ood="hold"))
    run(controller, [1000.0])
    assert controller.statistics.ood_ticks == 0 and not controller.checks_ranges


# -- the cost monitor ----------------------------------------------------------------------------------------------


class Wall:
    """A steady clock that a test sets [s]."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return round(1e9 * self.seconds)


@pytest.fixture
def watched(point_spec):
    """A controller that has heard its monitor, with the steady clock that it reads."""
    wall = Wall()
    controller = Controller(point_spec, Constant(1.0), "first", wall_ns=wall)
    controller.take_cost("first", 0, 0, 0.0, False)
    return controller, wall


def test_a_silent_monitor_stops_the_robot_and_refuses_resume_until_it_is_heard(watched):
    controller, wall = watched
    for number in range(6):
        run(controller, [0.0], first=number)
        wall.seconds += 0.1
    wall.seconds += 0.1
    controller.update("odom", odometry(0.0, 1.6), 0)
    tick = controller.tick(1_000_000_000 + 6 * TICK)
    assert tick.state is ControlState.STOPPED and "cost monitor" in tick.reason
    with pytest.raises(ResumeRefused, match="silent"):
        controller.resume()
    controller.take_cost("first", 0, 0, 0.0, False)
    controller.resume()
    assert controller.tick(1_000_000_000 + 6 * TICK).state is ControlState.RUNNING


def test_a_pause_of_the_clock_is_no_silence(watched):
    controller, wall = watched
    run(controller, [0.0])
    wall.seconds += 3600.0
    controller.update("odom", odometry(0.0, 1.1), 0)
    tick = controller.tick(1_000_000_000 + TICK)
    assert tick.state is ControlState.RUNNING and tick.timing.missed == 0


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


# -- swapping ------------------------------------------------------------------------------------------------------


def test_actions_are_blended_linearly(controller):
    controller.tick(1_000_000_000)
    controller.swap(Constant(-1.0), "second", blend_ticks=3)
    forces = []
    for number in range(1, 6):
        controller.update("odom", odometry(sec=1.0 + number / 10), 0)
        forces.append(controller.tick(1_000_000_000 + number * TICK).command["force_x"] / 3.5)
    np.testing.assert_allclose(forces, [0.5, 0.0, -0.5, -1.0, -1.0], atol=1e-6)


def test_an_incumbent_that_breaks_while_it_is_blended_is_left_out(controller):
    incumbent = Constant(1.0)
    controller.swap(incumbent, "breaking")
    controller.swap(Constant(-1.0), "second", blend_ticks=3)
    incumbent.value = float("nan")
    assert controller.tick(1_000_000_000).command["force_x"] == -3.5


def test_a_shadow_sees_what_the_incumbent_sees_and_drives_nothing(controller):
    candidate = Listener(0.5)
    controller.begin_shadow(Shadow(candidate, "second", ticks=3, threshold=0.6, period_s=0.1))
    incumbent = Listener(1.0)
    controller.swap(incumbent, "first again")
    run(controller, [1.0, 2.0, 3.0])
    controller.settle()
    assert controller.shadow.finished and not controller.shadow.refusal
    assert controller.shadow.difference == pytest.approx(0.5)
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
    assert (on_trial.policy_id, on_trial.rejected_id, on_trial.statistics.reverts) == ("first", "second", 1)
    assert step(on_trial, 3).reverted is None


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


def run(controller, positions, first=0):
    """Tick once at each position x [m]; the observation of x is a tenth of it."""
    for tick, x in enumerate(positions, start=first):
        controller.update("odom", odometry(x, 1.0 + tick / 10), 0)
        controller.tick(1_000_000_000 + tick * TICK)


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


@pytest.fixture
def announced(controller):
    """A controller whose robot marks its episodes, and the policy in it."""
    policy = Listener(1.0)
    controller.swap(policy, "second")
    controller.update("episode", Message(stamp=Message(sec=1, nanosec=0), frame_id="episode_0"), 0)
    run(controller, [1.0, 2.0])
    return controller, policy


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


def test_a_restart_forgets(announced):
    controller, policy = announced
    controller.restart()
    run(controller, [3.0], first=2)
    assert len(policy.told[-1][0]) == 0


def test_the_memory_does_not_grow(announced):
    controller, policy = announced
    run(controller, np.linspace(0.0, 1.0, 50), first=2)
    assert len(policy.told[-1][0]) == LONGEST_MEMORY
