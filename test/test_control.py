"""Every tick gives a command: stops, holds, clocks and bad input give the safe one, and stops latch."""

import numpy as np
import pytest
from control_bench import TICK, Constant, odometry, run

from saferule_core.control import Controller, ControlSettings, ControlState, ResumeRefused
from saferule_core.data.ranges import ObservationRanges


@pytest.fixture
def controller(point_spec):
    controller = Controller(point_spec, Constant(1.0), "first")
    controller.update("odom", odometry(), 0)
    return controller


def test_the_policy_drives_in_command_units(controller):
    tick = controller.tick(1_000_000_000)
    assert tick.state is ControlState.RUNNING
    assert tick.command["force_x"] == 3.5


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
        if self.value == "words":
            return [["left", "right"]]
        if self.value is None:
            raise RuntimeError("no such layer")
        return np.zeros(self.value, dtype=np.float32)


@pytest.mark.parametrize("value", [None, (1, 3), (2,), (2, 2), "words"])
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
