"""Every tick gives a command; a swap happens between two ticks; stops, holds and bad input give the safe command."""

import threading
from types import SimpleNamespace as Message

import numpy as np
import pytest

from saferule_core.agents.memory import LONGEST_MEMORY
from saferule_core.control import Controller, ControlState, TickSchedule

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
    assert (tick.state, tick.command) == (ControlState.STOPPED, {"force_x": 0.0, "force_y": 0.0})
    assert "odom" in tick.reason
    assert controller.statistics.stale_ticks == 1


def test_a_non_finite_action_never_reaches_the_robot(controller):
    controller.swap(Constant(float("nan")), "broken")
    tick = controller.tick(1_000_000_000)
    assert (tick.state, tick.command["force_x"]) == (ControlState.STOPPED, 0.0)
    assert "broken" in tick.reason


def test_hold_and_resume(controller):
    controller.hold("operator")
    assert controller.tick(1_000_000_000).state is ControlState.HOLDING
    controller.resume()
    assert controller.tick(1_000_000_000 + TICK).state is ControlState.RUNNING


def test_a_latched_stop_outlasts_resume(controller):
    controller.set_stop("budget spent")
    controller.resume()
    assert controller.tick(1_000_000_000).reason == "budget spent"


def test_missed_periods_are_counted():
    schedule = TickSchedule(TICK)
    assert [schedule.tick(n * TICK)[0] for n in (1, 2, 3, 6, 7)] == [0, 0, 0, 2, 0]


def test_jitter_below_half_a_period_is_no_missed_tick():
    schedule = TickSchedule(TICK)
    schedule.tick(0)
    missed, lateness = schedule.tick(round(1.4 * TICK))
    assert missed == 0
    assert lateness == pytest.approx(0.04)


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
