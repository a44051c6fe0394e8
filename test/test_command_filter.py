"""The command filter: commands that would break a bound are scaled or stopped, others pass unchanged."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saferule_core.command_filter import APPROACH_SCALES, CommandFilter, FilterMode
from saferule_core.errors import DataError, SpecError
from saferule_core.extrapolation import Extrapolation, parse_rates
from saferule_core.spec import parse_spec

PERIOD = 100_000_000
VELOCITY = ("x=action.force_x", "y=action.force_y")


def odometry(k: int, x: float, y: float = 0.0) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=(10 + k) * PERIOD // 10**9, nanosec=(10 + k) * PERIOD % 10**9)
    pose = SimpleNamespace(position=SimpleNamespace(x=x, y=y), orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0))
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), pose=SimpleNamespace(pose=pose))


def judge(spec, command, *xs, mode="approach", rates=VELOCITY, horizon=1.0):
    """Let the robot be at each x in turn, a control period apart, and judge (force_x, force_y) at the last."""
    guard = CommandFilter(spec, FilterMode(mode), horizon, parse_rates(spec, rates), slow_scale=0.25)
    for k, x in enumerate(xs):
        guard.update("odom", odometry(k, x), 0)
        verdict = guard.judge(dict(zip(("force_x", "force_y"), command, strict=True)), (10 + k) * PERIOD)
    return verdict


def test_a_command_far_from_the_bound_passes_unchanged(point_spec):
    verdict = judge(point_spec, (0.123456789, -0.2), 0.0)
    assert verdict.command == {"force_x": 0.123456789, "force_y": -0.2}
    assert (verdict.scale, verdict.constraint, verdict.reason) == (1.0, "", "")
    assert verdict.time_to_violation_s == math.inf


def test_approach_slows_down_the_nearer_the_bound_is(point_spec):
    """|x| <= 6 m, a commanded velocity of 3 m/s, 1 s ahead."""
    scales = [judge(point_spec, (3.0, 0.0), x).scale for x in (2.9, 4.0, 5.0, 5.9, 6.0)]
    assert scales == pytest.approx([1.0, 0.65, 0.3, 0.0, 0.0])
    verdict = judge(point_spec, (3.0, 1.0), 5.0)
    assert verdict.command == pytest.approx({"force_x": 0.9, "force_y": 0.3}), "the direction stays"
    assert verdict.constraint == "outside_bounds" and verdict.time_to_violation_s == pytest.approx(0.4)
    assert verdict.reason == "outside_bounds would be broken in 0.4 s: 30% of the command"


def test_stop_and_slow_do_one_thing(point_spec):
    assert judge(point_spec, (3.0, 0.0), 4.0, mode="stop").command == {"force_x": 0.0, "force_y": 0.0}
    assert judge(point_spec, (3.0, 0.0), 4.0, mode="slow").command["force_x"] == 0.75
    assert judge(point_spec, (3.0, 0.0), 2.0, mode="stop").scale == 1.0


def test_what_leads_back_inside_passes(point_spec):
    assert judge(point_spec, (-3.0, 0.0), 7.0).scale == 1.0
    assert judge(point_spec, (3.0, 0.0), 7.0).scale == 0.0
    assert judge(point_spec, (0.0, 3.0), 7.0).scale == 1.0, "along the bound"


def test_without_a_model_the_present_velocity_counts(point_spec):
    moving = (5.0, 5.2, 5.4, 5.6)
    verdict = judge(point_spec, (1.0, 0.0), *moving, rates=(), horizon=0.5)
    assert verdict.scale == 0.0 and verdict.time_to_violation_s == pytest.approx(0.3)
    assert judge(point_spec, (1.0, 0.0), *moving, rates=(), horizon=0.15).scale == 1.0
    assert judge(point_spec, (1.0, 0.0), *moving[::-1], rates=(), horizon=0.5).scale == 1.0


def test_where_nothing_helps_the_command_that_brakes_is_kept(point_yaml):
    """A mass that rolls outwards: no share of the force keeps it inside, the whole of it leads out least."""
    speed = "- {name: vx, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.y, max_age: 0.35}"
    spec = parse_spec(point_yaml.replace("  - {name: heading", f"  {speed}\n  - {{name: heading"))
    guard = CommandFilter(spec, FilterMode.APPROACH, 1.0, parse_rates(spec, ["x=vx", "vx=action.force_x"]))
    guard.update("odom", odometry(0, 5.8, 2.0), 0)
    assert guard.judge({"force_x": -3.0, "force_y": 0.0}, 10 * PERIOD).scale == 1.0
    assert guard.judge({"force_x": 3.0, "force_y": 0.0}, 10 * PERIOD).scale == 0.0


def test_a_bound_on_the_command_itself_is_kept(point_yaml):
    spec = parse_spec(point_yaml.replace("abs(x) > 6.0", "abs(action.force_x) > 1.0"))
    assert judge(spec, (2.0, 0.0), 0.0).command["force_x"] == pytest.approx(1.0)


def test_a_clearance_is_kept_from_the_bound_and_may_be_left_where_it_is_lost(point_spec):
    guard = CommandFilter(point_spec, FilterMode.APPROACH, 1.0, parse_rates(point_spec, VELOCITY), clearance=0.5)

    def scale(x, speed):
        state = {"x": x, "y": 0.0, "heading_sin": 0.0, "heading_cos": 1.0}
        return guard.judge_state(state, 0, {"force_x": speed, "force_y": 0.0}).scale

    assert scale(5.0, 1.0) == pytest.approx(0.5)
    guard.begin_episode()
    assert scale(5.8, 1.0) == 0.0 and scale(5.8, -1.0) == 1.0


def test_missing_old_or_impossible_input_stops(point_spec):
    guard = CommandFilter(point_spec, FilterMode.APPROACH, 1.0, {})
    safe, command = {"force_x": 0.0, "force_y": 0.0}, {"force_x": 1.0, "force_y": 0.0}
    verdict = guard.judge(command, 10 * PERIOD)
    assert verdict.command == safe and "none came yet" in verdict.reason
    guard.update("odom", odometry(0, 0.0), 0)
    assert guard.judge(command, 10 * PERIOD).command == command
    assert "not older than" in guard.judge(command, 20 * PERIOD).reason
    verdict = guard.judge({"force_x": math.nan, "force_y": 0.0}, 10 * PERIOD)
    assert verdict.command == safe and "expected a finite number" in verdict.reason


@pytest.mark.parametrize("jump", [-3, -9, -300])
def test_after_a_clock_was_set_back_commands_are_judged_by_states_of_the_new_time(point_spec, jump):
    guard = CommandFilter(point_spec, FilterMode.STOP, 1.0, parse_rates(point_spec, VELOCITY))
    scales = []
    for k in range(500, 520):
        shown = k + jump if k >= 510 else k
        guard.update("odom", odometry(shown, 0.0 if k < 510 else 5.9), (10 + shown) * PERIOD)
        scales.append(guard.judge({"force_x": 1.0, "force_y": 0.0}, (10 + shown) * PERIOD).scale)
    assert scales == [1.0] * 10 + [0.0] * 10


def test_a_robot_that_is_put_somewhere_else_did_not_drive_there(point_spec):
    guard = CommandFilter(point_spec, FilterMode.STOP, 1.0, {})
    for k, (x, episode) in enumerate([(0.0, "a"), (5.0, "b")]):
        guard.update("episode", SimpleNamespace(frame_id=episode), 0)
        guard.update("odom", odometry(k, x), 0)
        assert guard.judge({"force_x": 0.0, "force_y": 0.0}, (10 + k) * PERIOD).scale == 1.0


@given(st.floats(-5.9, 5.9), st.floats(-3.5, 3.5), st.floats(0.1, 2.0))
def test_what_passes_keeps_the_robot_inside_for_the_horizon(x, speed, horizon):
    from conftest import POINT_SPEC

    verdict = judge(parse_spec(POINT_SPEC), (speed, 0.0), x, horizon=horizon)
    assert abs(x + verdict.command["force_x"] * horizon) <= 6.0 + 1e-6
    larger = APPROACH_SCALES[verdict.scale + 1e-9 < APPROACH_SCALES]
    assert not len(larger) or abs(x + larger[0] * speed * horizon) > 6.0 - 1e-6, "no more than is needed is taken away"


def test_an_angle_goes_the_short_way_round(point_yaml):
    spec = parse_spec(point_yaml.replace("yaw_sin_cos", "yaw"))
    model = Extrapolation(spec, {})
    for k, heading in enumerate((3.1, -3.1)):
        model.see({"x": 0.0, "y": 0.0, "heading": heading}, k * PERIOD)
    (_, state, _), *_ = model.ahead({}, 0.1)
    assert state["heading"] == pytest.approx(-3.1 + 2 * (math.pi - 3.1))


def test_many_commands_at_once_are_the_same_as_each_alone(point_spec):
    model = Extrapolation(point_spec, parse_rates(point_spec, VELOCITY))
    model.see({"x": 1.0, "y": 2.0, "heading_sin": 0.0, "heading_cos": 1.0}, 0)
    forces = np.array([-1.0, 0.5])
    together = [s["radial_error"] for _, s, _ in model.ahead({"force_x": forces, "force_y": -forces}, 0.5)]
    for column, force in enumerate(forces):
        alone = [s["radial_error"] for _, s, _ in model.ahead({"force_x": force, "force_y": -force}, 0.5)]
        assert [values[column] for values in together] == pytest.approx(alone)


def test_what_cannot_be_guarded_is_named_or_refused(point_yaml):
    two = point_yaml.replace('"abs(x) > 6.0"}', '"abs(x) > 6.0"}\n    - {name: tilted, expression: "abs(heading_sin)"}')
    assert CommandFilter(parse_spec(two), FilterMode.STOP, 1.0, {}).not_guarded == ("tilted",)
    with pytest.raises(DataError, match="expected one with a margin"):
        CommandFilter(parse_spec(point_yaml.replace("abs(x) > 6.0", "abs(x)")), FilterMode.STOP, 1.0, {})
    with pytest.raises(DataError, match="horizon: expected a positive number"):
        CommandFilter(parse_spec(point_yaml), FilterMode.STOP, 0.0, {})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("x", "expected signal=expression"), ("z=1.0", "expected signal=expression"), ("radial_error=1.0", "signal="),
     ("x=action.speed", "found action.speed"), ("x=__import__('os')", "not allowed")],
)  # fmt: skip
def test_rates_that_make_no_sense_are_refused(point_spec, text, complaint):
    with pytest.raises(SpecError, match=complaint):
        parse_rates(point_spec, [text])
