"""A request's message becomes the worker's command line, and that the request that the core works on."""

import math
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from saferule.msg import TimeRange, UnlearnRequest, UnlearnResult
from saferule_core.cli import _parser
from saferule_core.cli import options as common
from saferule_core.data.reading import ReadOptions
from saferule_core.errors import Cancelled, DataError
from saferule_core.unlearning import request as core
from saferule_ros.requests import Job, Settings, empty_result, feedback_message, fill, worker_arguments

FOLDER = Path("/repairs/0123456789ab")
SETTINGS = Settings("robot.yaml", "store", 3, 2, "cpu", ("/logs",), ("my_msgs",), "/cache", True)


def parsed(request, settings=SETTINGS):
    """Return the options of the worker that a message leads to."""
    job = Job(request, "0123456789ab", lambda _event: None)
    return _parser().parse_args(worker_arguments(job, "a" * 64, FOLDER, settings))


def asked(request):
    options = parsed(request)
    return common.request(
        options, min_reward_kept=options.min_reward_kept, confidence=options.confidence, episodes=options.episodes
    )


def test_everything_in_the_message_arrives():
    message = UnlearnRequest(
        forget_bags=["/logs/3"], retain_bags=["/logs/1", "/logs/2"], trusted_bags=["/logs/0"], method="retrain", seed=5,
        forget_ranges=[
            TimeRange(bag="/logs/1", start=1.5, end=2.25, from_beginning=True),
            TimeRange(bag="/logs/2", start=1.7e9, end=1.7e9 + 0.125),
        ],
        suspects_file="/logs/suspects.json", detect=True, detect_max_share=0.2, detect_false_alarm_rate=0.1,
        forget_untrusted=True, cost_limit=4.0, min_reward_kept=0.5, confidence=0.9, validation_episodes=7,
    )  # fmt: skip
    assert asked(message) == core.RepairRequest(
        forget=("/logs/3",), retain=("/logs/1", "/logs/2"), policy="a" * 64, method="retrain", seed=5, cost_limit=4.0,
        min_reward_kept=0.5, confidence=0.9, episodes=7, asked_by="unlearning_server, request 0123456789ab",
        reading=ReadOptions(True, ("my_msgs",), "/cache", ("/logs",)),
        ranges=(core.TimeRange("/logs/1", 1.5, 2.25), core.TimeRange("/logs/2", 1.7e9, 1.7e9 + 0.125, False)),
        suspects="/logs/suspects.json", detect=core.Detecting(0.2, 0.1), trusted=("/logs/0",), forget_untrusted=True,
    )  # fmt: skip


def test_what_is_left_out_takes_the_usual_values():
    found = asked(UnlearnRequest(forget_bags=["a"], retain_bags=["b"], method=""))
    assert (found.method, found.cost_limit, found.detect, found.suspects, found.ranges) == (
        "safe_rule", None, None, None, ()
    )  # fmt: skip
    plain = parsed(UnlearnRequest(), Settings("robot.yaml", "store", 1, 1))
    assert common.reading(plain) == ReadOptions() and (plain.workers, plain.threads) == (1, 1)


def test_no_name_of_a_bag_is_taken_for_an_option():
    bags = ["--activate", "-x", "--bag-root=/"]
    message = UnlearnRequest(
        forget_bags=bags, retain_bags=bags, forget_ranges=[TimeRange(bag="--activate", start=-1.0, end=1.0)]
    )
    options, found = parsed(message), asked(message)
    assert not options.activate and found.reading.roots == ("/logs",)
    assert found.forget == found.retain == ("./--activate", "./-x", "./--bag-root=/")
    assert found.ranges == (core.TimeRange("./--activate", -1.0, 1.0, False),)


def test_a_bag_without_a_name_is_refused():
    with pytest.raises(DataError, match="found an empty text"):
        parsed(UnlearnRequest(forget_bags=[""]))


def test_one_that_goes_on_keeps_its_own_rules_and_the_servers_settings():
    options = parsed(UnlearnRequest(resume="0123456789ab", method="retrain", seed=9))
    assert options.resume == str(FOLDER) and options.work is None and options.seed == 0
    assert common.reading(options).roots == ("/logs",) and options.workers == 3


def test_a_stopped_job_ends_and_keeps_its_first_reason():
    job = Job(UnlearnRequest(), "0123456789ab", lambda _event: None)
    job.check()
    job.stop("cancelled")
    job.stop("deactivated")
    with pytest.raises(Cancelled, match="cancelled"):
        job.check()


def test_feedback_has_phase_losses_and_what_is_forgotten():
    event = {"phase": "detecting", "fraction": 0.25, "losses": {"a": 1.0, "b": None}, "detected": ["bag: e: why"]}
    message = feedback_message(event)
    assert (message.phase, message.progress) == (message.PHASE_DETECTING, 0.25)
    assert (list(message.loss_names), list(message.detected)) == (["a"], ["bag: e: why"])


def test_a_result_has_the_figures_that_there_are():
    result = empty_result()
    fill(result, {"message": "done", "candidate_cost": 1.5, "incumbent_cost": None, "detected": ["x"]})
    assert isinstance(result, UnlearnResult) and result.candidate_cost == 1.5 and math.isnan(result.incumbent_cost)
    assert (result.message, list(result.detected), result.candidate_id) == ("done", ["x"], "")
