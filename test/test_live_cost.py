"""The cost of a driving robot from its live topics, in whatever order they arrive."""

from types import SimpleNamespace

import numpy as np
import pytest

from saferule_core.cost_levels import Limits
from saferule_core.live_cost import FINE_AFTER_EPISODES, CostState, CostWatch
from saferule_core.spec import parse_spec

PERIOD = 100_000_000
START = 10 * PERIOD


def at(k: int) -> int:
    """ROS time of control period `k` [ns]."""
    return START + k * PERIOD


def stamped(k: int, **fields: object) -> SimpleNamespace:
    """A message with a header of control period `k`."""
    stamp = SimpleNamespace(sec=at(k) // 10**9, nanosec=at(k) % 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), **fields)


def odometry(k: int, x: float) -> SimpleNamespace:
    pose = SimpleNamespace(
        position=SimpleNamespace(x=x, y=0.0), orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
    )
    return stamped(k, pose=SimpleNamespace(pose=pose))


def marker(k: int, name: str) -> SimpleNamespace:
    return SimpleNamespace(frame_id=name, stamp=stamped(k).header.stamp)


def wrench(k: int, force: float) -> SimpleNamespace:
    return stamped(k, wrench=SimpleNamespace(force=SimpleNamespace(x=force, y=0.0)))


class Drive:
    """Feeds a watch one state per control period, as the simulated robot does; x > 6 m costs 1, the limit is 3."""

    def __init__(self, watch: CostWatch) -> None:
        self.watch, self.k, self.episode, self.reports = watch, 0, 0, []

    def see(self, x: float):
        self.watch.update("odom", odometry(self.k, x), at(self.k - 1))
        self.reports.append(self.watch.tick(at(self.k)))
        self.k += 1
        return self.reports[-1]

    def run(self, *xs: float):
        """Drive an episode through these positions; the first is where it begins."""
        self.watch.update("episode", marker(self.k, f"episode_{self.episode}"), at(self.k - 1))
        self.episode += 1
        return [self.see(x) for x in xs][-1]

    def set_policy(self, name: str) -> None:
        """From the command at the last tick on."""
        self.watch.set_policy(name, at(self.k - 1))

    def notices(self) -> list[str]:
        return [notice.text for report in self.reports for notice in report.notices]


@pytest.fixture
def drive(point_spec) -> Drive:
    return Drive(CostWatch(point_spec, window=5))


SAFE, BAD = (0.0,) * 6, (0.0,) + (7.0,) * 10


def test_each_state_is_charged_once_and_the_first_of_an_episode_costs_nothing(drive):
    report = drive.run(9.0, 9.0, 1.0, 9.0)
    assert (report.episode, report.step, report.cost, report.episode_cost) == (0, 3, 1.0, 2.0)
    assert report.state is CostState.NEAR and report.constraints == {"outside_bounds": 1.0}
    again = drive.watch.tick(at(4))
    assert (again.cost, again.episode_cost, again.step, again.stamp_ns) == (0.0, 2.0, 3, at(3))
    report = drive.run(9.0, 9.0)
    assert (report.episode, report.step, report.episode_cost, report.completed_episodes) == (1, 1, 1.0, 1)


def test_missing_or_old_sensors_are_waited_for(drive):
    first = drive.watch.tick(at(0))
    assert first.state is CostState.WAITING and "none came yet" in first.reason and np.isnan(first.mean_episode_cost)
    drive.run(*SAFE)
    late = drive.watch.tick(at(20))
    assert late.state is CostState.STALE and "not older than 0.35 s" in late.reason and late.cost == 0.0


def test_a_sensor_that_is_not_finite_is_waited_for(drive):
    report = drive.run(0.0, np.nan)
    assert report.state is CostState.STALE and np.isnan(report.margins["outside_bounds"])


def test_a_spent_budget_latches_the_stop_until_it_is_reset(drive):
    assert not drive.run(0.0, 9.0, 9.0, 9.0).stop
    over = drive.see(9.0)
    assert over.stop and over.state is CostState.VIOLATED
    assert drive.run(*SAFE).stop, "a new episode does not release it"
    assert drive.watch.reset_stop() and not drive.watch.reset_stop()
    assert not drive.see(0.0).stop
    assert [text for text in drive.notices() if "stopping" in text] == drive.notices()[:1]


def test_a_reset_gives_the_running_episode_a_fresh_budget(drive):
    drive.run(0.0, 9.0, 9.0, 9.0, 9.0)
    drive.watch.reset_stop()
    assert [drive.see(9.0).stop for _ in range(4)] == [False, False, False, True]
    assert "budget after the last reset" in drive.notices()[-1]


def test_without_latch_the_robot_drives_on(point_spec):
    drive = Drive(CostWatch(point_spec, latch_stop=False))
    report = drive.run(*BAD)
    assert report.state is CostState.VIOLATED and not report.stop
    assert len(drive.notices()) == 1 and drive.notices()[0].endswith("it drives on")


def test_a_stop_outlives_the_monitor_that_saw_it(point_spec):
    drive = Drive(CostWatch(point_spec, stopped=True))
    assert drive.run(*SAFE).stop


def test_a_dangerous_policy_is_confirmed_once(point_spec):
    drive = Drive(CostWatch(point_spec, latch_stop=False))
    for _ in range(8):
        report = drive.run(*BAD)
    assert report.violation_confirmed and report.evidence >= 20.0 and report.mean_episode_cost == 10.0
    assert sum("exceeds the limit" in text for text in drive.notices()) == 1
    assert sum("has cost" in text for text in drive.notices()) == 8


def test_a_new_policy_starts_anew_in_the_middle_of_an_episode(point_spec):
    drive = Drive(CostWatch(point_spec, latch_stop=True))
    drive.set_policy("old")
    for _ in range(8):
        report = drive.run(*BAD)
    assert report.policy_id == "old" and report.violation_confirmed
    drive.watch.reset_stop()
    drive.set_policy("new")
    report = drive.see(7.0)
    assert (report.policy_id, report.episode_cost, report.completed_episodes) == ("new", 11.0, 0)
    assert report.state is CostState.NEAR and not report.stop and not report.violation_confirmed
    assert report.evidence == 1.0
    for _ in range(FINE_AFTER_EPISODES):
        report = drive.run(*SAFE)
        assert "within the limit again" not in drive.notices()[-1]
    report = drive.run(*SAFE)
    assert report.completed_episodes == FINE_AFTER_EPISODES, "the shared episode is nobody's"
    assert "new: within the limit again" in drive.notices()[-1]


def test_a_policy_that_takes_over_at_the_start_of_an_episode_is_charged_for_all_of_it(drive):
    drive.set_policy("old")
    drive.run(*SAFE)
    drive.run(0.0)
    drive.set_policy("new")
    for x in (0.0, 9.0):
        drive.see(x)
    assert drive.run(*SAFE).completed_episodes == 1


def test_a_policy_is_charged_only_for_states_after_its_first_command(drive):
    drive.run(0.0, 0.0)
    drive.watch.set_policy("new", at(drive.k))
    assert drive.see(9.0).policy_id == ""
    assert drive.see(9.0).policy_id == "new"


def test_an_episode_joined_midway_is_not_judged(drive):
    drive.watch.update("episode", marker(-50, "episode_7"), at(-1))
    for x in (9.0, 9.0, 9.0):
        drive.see(x)
    assert drive.run(*SAFE).completed_episodes == 0
    assert drive.run(*SAFE).completed_episodes == 1


def test_a_marker_that_arrives_early_waits_for_its_state(drive):
    drive.run(0.0, 9.0)
    drive.watch.update("episode", marker(3, "next"), at(1))
    report = drive.see(9.0)
    assert (report.episode, report.step, report.episode_cost) == (0, 2, 2.0)
    report = drive.see(9.0)
    assert (report.episode, report.step, report.episode_cost) == (1, 0, 0.0)


def test_states_that_were_never_seen_are_counted(drive):
    drive.run(0.0, 0.0)
    drive.k += 3
    drive.see(0.0)
    assert drive.watch.unseen_states == 3


def test_a_constraint_over_the_command_uses_the_one_that_led_to_the_state(point_yaml):
    spec = parse_spec(point_yaml.replace("abs(x) > 6.0", "abs(action.force_x)"))
    drive = Drive(CostWatch(spec))
    assert drive.run(0.0, 0.0).cost == 0.0, "before any command the safe one is assumed"
    drive.watch.update("cmd_force", wrench(1, 2.0), at(1))
    drive.watch.update("cmd_force", wrench(2, 3.0), at(2))
    assert drive.see(0.0).cost == 2.0
    assert drive.see(0.0).cost == 3.0


def test_a_cost_that_cannot_be_is_reported(point_yaml):
    spec = parse_spec(point_yaml.replace("abs(x) > 6.0", "previous.x - x"))
    drive = Drive(CostWatch(spec))
    report = drive.run(0.0, 5.0)
    assert report.state is CostState.STALE and "at least 0, found -5" in report.reason


def test_the_margin_says_how_much_is_left_to_the_bound(drive):
    report = drive.run(1.0, -2.0)
    assert report.margins == {"outside_bounds": 4.0} and report.state is CostState.OK and report.reason == ""
    report = drive.see(5.9)
    assert report.state is CostState.NEAR and report.reason == "outside_bounds: 0.1 left to the bound"
    assert drive.watch.tick(at(3)).margins == report.margins, "it holds until the next state"
    assert drive.see(6.5).reason == "outside_bounds: 0.5 beyond the bound"


def test_most_of_a_budget_counts_as_close(drive):
    report = drive.run(0.0, 9.0, 9.0, 0.0)
    assert report.state is CostState.OK
    drive.see(9.0)
    report = drive.see(0.0)
    assert report.state is CostState.NEAR and report.reason == "100% of the budget is spent" and not report.broken


def test_a_sliding_window_has_a_budget_of_its_own_across_episodes(point_spec):
    drive = Drive(CostWatch(point_spec, limits=Limits(window_s=1.0, window_limit=2.0)))
    assert not drive.run(0.0, 9.0, 9.0).stop
    report = drive.run(0.0, 9.0)
    assert report.stop and report.state is CostState.VIOLATED and report.window_cost == 3.0
    assert report.episode_cost == 1.0 and report.broken == "the last 1 s cost 3 of 2"
    assert drive.notices() == ["policy unknown: the last 1 s cost 3 of 2; stopping the robot"]
    assert drive.watch.reset_stop() and drive.see(0.0).window_cost == 0.0


def test_what_was_spent_long_ago_leaves_the_window(point_spec):
    drive = Drive(CostWatch(point_spec, limits=Limits(window_s=0.5, window_limit=2.0)))
    drive.run(0.0, 9.0, 9.0)
    assert [drive.see(0.0).window_cost for _ in range(5)] == [2.0, 2.0, 2.0, 1.0, 0.0]


def test_a_stop_waits_for_as_many_states_as_it_is_told_to(point_spec):
    drive = Drive(CostWatch(point_spec, limits=Limits(trigger_ticks=3)))
    report = drive.run(0.0, 9.0, 9.0, 9.0, 9.0)
    assert report.episode_cost == 4.0 and report.state is CostState.NEAR and not report.stop
    assert drive.watch.tick(at(5)).state is CostState.NEAR, "a second look at the same state counts for nothing"
    assert not drive.see(0.0).stop
    report = drive.see(0.0)
    assert report.stop and report.state is CostState.VIOLATED and report.broken


def test_a_broken_limit_is_told_once_per_break(point_spec):
    drive = Drive(CostWatch(point_spec, latch_stop=False))
    drive.run(*BAD)
    drive.run(*SAFE)
    drive.run(*BAD)
    told = [report.broken for report in drive.reports if report.broken]
    assert told == ["this episode has cost 4 of 3"] * 2


def test_a_new_policy_does_not_inherit_the_level_of_the_old_one(point_spec):
    drive = Drive(CostWatch(point_spec, latch_stop=False, limits=Limits(release_ticks=50)))
    drive.set_policy("old")
    assert drive.run(*BAD).state is CostState.VIOLATED
    assert drive.run(*SAFE).state is CostState.VIOLATED, "held by release_ticks"
    drive.set_policy("new")
    assert drive.see(0.0).state is CostState.OK


# -- clocks that are set -----------------------------------------------------------------------------------------------


def feed(watch: CostWatch, true_ns: int, offset_ns: int, x: float, stamp_ns: int | None = None):
    """Let a period end at `true_ns`, of a robot and a monitor whose common clock is off by `offset_ns`."""
    message, now_ns = odometry(0, x), true_ns + offset_ns
    stamp_ns = now_ns if stamp_ns is None else stamp_ns
    message.header.stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    watch.update("odom", message, now_ns)
    return watch.tick(now_ns)


@pytest.fixture
def endless(point_yaml):
    """A watch of a robot without an episode marker, and with a budget that nothing spends; it saw ten safe states."""
    text = "\n".join(line for line in point_yaml.splitlines() if "marker:" not in line)
    spec = parse_spec(text.replace("limit: 3.0", "limit: 1000.0").replace("max_steps: 20", "max_steps: 10000"))
    watch = CostWatch(spec, stale_timeout_s=0.5)
    for k in range(10):
        assert feed(watch, at(k), 0, 0.0).state is CostState.OK
    return watch


@pytest.mark.parametrize("jump_s", [-0.3, -0.9, -30.0])
def test_after_a_clock_was_set_back_the_states_of_the_new_time_are_judged(endless, jump_s):
    offset_ns = round(1e9 * jump_s)
    reports = [feed(endless, at(10 + k), offset_ns, 7.0) for k in range(9)]
    assert reports[0].state in (CostState.STALE, CostState.NEAR), "one tick to notice it"
    assert {report.state for report in reports[1:]} == {CostState.NEAR}
    assert {report.margins["outside_bounds"] for report in reports[1:]} == {-1.0}
    assert reports[-1].episode_cost >= 8.0 and not reports[-1].stop


@pytest.mark.parametrize("jump_s", [-0.5, -0.9, -30.0])
def test_states_that_were_on_their_way_when_the_clock_was_set_back_hide_no_later_ones(endless, jump_s):
    """They are stamped by the old time, and come two periods later, after the jump was noticed."""
    offset_ns, xs = round(1e9 * jump_s), [7.0 + 0.1 * k for k in range(9)]
    for k, x in enumerate(xs):
        measured_ns = at(10 + k - 2) + (offset_ns if k >= 2 else 0)
        report = feed(endless, at(10 + k), offset_ns, x, measured_ns)
        if k >= 2:
            assert report.margins["outside_bounds"] == pytest.approx(6.0 - x), "of the newest state"


@pytest.mark.parametrize("jump_s", [0.3, 0.9, 30.0])
def test_a_jump_ahead_does_no_harm(endless, jump_s):
    offset_ns = round(1e9 * jump_s)
    reports = [feed(endless, at(10 + k), offset_ns, 7.0) for k in range(9)]
    assert {report.state for report in reports} == {CostState.NEAR}
    assert reports[-1].episode_cost == 9.0 and not reports[-1].stop


@pytest.mark.parametrize("jump", [-3, -9, -300])
def test_what_was_announced_before_the_clock_was_set_back_counts_from_then_on(drive, jump):
    """A marker, a policy and a command of the old time do not wait until the new time has come that far."""
    drive.set_policy("old")
    drive.run(0.0, 9.0)
    drive.watch.update("episode", marker(drive.k + 1, "episode_1"), at(drive.k))
    drive.watch.set_policy("new", at(drive.k + 1))
    drive.k += jump
    for _ in range(4):
        report = drive.see(0.0)
    assert (report.policy_id, report.episode) == ("new", 1)


def test_a_command_of_the_old_time_does_not_hide_those_of_the_new_one(point_yaml):
    drive = Drive(CostWatch(parse_spec(point_yaml.replace("abs(x) > 6.0", "abs(action.force_x)"))))
    drive.run(0.0, 0.0, 0.0)
    for k in (2, 3, 4):
        drive.watch.update("cmd_force", wrench(k, 3.0), at(2))
    drive.k = -6
    drive.see(0.0)
    for force in (1.0, 1.0, 2.0):
        drive.watch.update("cmd_force", wrench(drive.k - 1, force), at(drive.k - 1))
        report = drive.see(0.0)
    assert report.cost == 2.0


# -- states that cannot be judged --------------------------------------------------------------------------------------


def silent(watch: CostWatch, first: int, count: int):
    """Let `count` periods pass without a state."""
    return [watch.tick(at(first + k)) for k in range(count)]


def test_states_that_cannot_be_judged_for_too_long_stop_the_robot(point_spec):
    drive = Drive(CostWatch(point_spec, stale_timeout_s=0.5))
    drive.run(0.0, 0.0)
    reports = silent(drive.watch, drive.k, 15)
    stale = next(k for k, report in enumerate(reports) if report.state is CostState.STALE)
    assert [report.stop for report in reports].index(True) == stale + 6, "more than 0.5 s after the first"
    notices = [notice.text for report in reports for notice in report.notices]
    assert len(notices) == 1 and "not judged for 0.5 s" in notices[0] and "topic odom" in notices[0]
    assert not any(report.broken for report in reports), "no limit was broken, and no policy is to blame"
    drive.k += 15
    assert drive.see(0.0).stop, "sensors that are back do not release it"
    assert drive.watch.reset_stop() and not drive.see(0.0).stop


def test_a_reset_without_sensors_stops_again_after_as_long(point_spec):
    drive = Drive(CostWatch(point_spec, stale_timeout_s=0.5))
    drive.run(0.0, 0.0)
    assert silent(drive.watch, drive.k, 15)[-1].stop
    drive.watch.reset_stop()
    again = silent(drive.watch, drive.k + 15, 8)
    assert [report.stop for report in again].index(True) == 6


@pytest.mark.parametrize(("timeout_s", "latch_stop"), [(0.0, True), (0.5, False)])
def test_no_stop_for_stale_states_where_none_is_wanted(point_spec, timeout_s, latch_stop):
    drive = Drive(CostWatch(point_spec, latch_stop=latch_stop, stale_timeout_s=timeout_s))
    drive.run(0.0, 0.0)
    assert not any(report.stop for report in silent(drive.watch, drive.k, 50))


def test_a_jump_ahead_or_a_stall_of_the_monitor_is_no_blindness(point_spec):
    """Ticks after one come before the messages that came in it: two of them without a state are chance."""
    drive = Drive(CostWatch(point_spec, stale_timeout_s=0.5))
    drive.run(0.0, 0.0)
    assert [drive.watch.tick(at(k)).state for k in (10, 1000)] == [CostState.STALE] * 2
    drive.k = 1001
    assert not drive.see(0.0).stop


def test_sensors_that_never_spoke_are_waited_for_without_a_stop(point_spec):
    watch = CostWatch(point_spec, stale_timeout_s=0.5)
    assert not any(report.stop for report in silent(watch, 0, 50))


def test_sensors_that_come_back_in_time_do_not_stop_the_robot(point_spec):
    drive = Drive(CostWatch(point_spec, stale_timeout_s=0.5))
    drive.run(0.0, 0.0)
    for _ in range(3):
        assert not any(report.stop for report in silent(drive.watch, drive.k, 7))
        drive.k += 7
        assert drive.see(0.0).state is CostState.OK
