"""What a request forgets and keeps: whole bags, episodes by time, by a list of suspects, or by detection."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import POINT_SPEC
from point_logs import SIMULATION, drive

from saferule_core import agents
from saferule_core.attacks.bags import poison_bags
from saferule_core.data.bags import read_bags, write_bags
from saferule_core.data.reading import ReadOptions
from saferule_core.detection import suspects
from saferule_core.errors import DataError, UnlearningError
from saferule_core.inspection import inspect_bags
from saferule_core.spec import RobotSpec, parse_spec
from saferule_core.store import Card, PolicyStore
from saferule_core.unlearning.base import episode_digests
from saferule_core.unlearning.request import Detecting, RepairRequest, TimeRange, check_bag_names, check_request
from saferule_core.unlearning.selection import read_sets


@dataclass(frozen=True)
class Logs:
    """Bags of one robot: honest ones that are trusted, others, and some whose labels lie, with a trained policy."""

    spec: RobotSpec
    trusted: str
    honest: str
    poisoned: str
    folder: Path
    agent: agents.Agent


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    spec = parse_spec(POINT_SPEC + SIMULATION, "point.yaml")
    (trusted,) = write_bags(drive(spec, 24, seed=1), spec, folder / "trusted", episodes_per_bag=24)
    clean = write_bags(drive(spec, 30, seed=0), spec, folder / "clean", episodes_per_bag=30)
    split = poison_bags(clean, spec, folder / "split", fraction=0.2, cost_threshold=5.0)
    data = read_bags([*split.poisoned, *split.honest], spec, cost="logged").transitions
    agent = agents.train("return_conditioned", data, cost_limit=3.0, seed=0, steps=50)
    return Logs(spec, str(trusted), str(split.honest[0]), str(split.poisoned[0]), folder, agent)


def digests(contents):
    return {digest.hex() for digest in episode_digests(contents.transitions)}


def of_bag(logs, path):
    return digests(read_bags([path], logs.spec))


def read(logs, **request):
    return read_sets(RepairRequest(**request), logs.spec, logs.agent)


@pytest.fixture(scope="module")
def listed(logs):
    """A list of suspects in the two bags, as `saferule inspect --suspects` writes it."""
    found = inspect_bags([logs.poisoned, logs.honest], logs.spec, trusted=[logs.trusted], max_share=0.5).suspects
    path = logs.folder / "suspects.json"
    suspects.save(found, path)
    return str(path), {each.digest for each in found.suspects}


def test_whole_bags_are_forgotten(logs):
    sets = read(logs, forget=(logs.poisoned,), retain=(logs.honest,))
    assert digests(sets.forget) == of_bag(logs, logs.poisoned) and digests(sets.retain) == of_bag(logs, logs.honest)
    assert sets.detected == () and not any(bag.partial for bag in (*sets.forget.bags, *sets.retain.bags))


@pytest.mark.parametrize("from_beginning", [True, False])
def test_episodes_in_a_time_range_are_forgotten_and_the_others_kept(logs, from_beginning):
    (bag,) = read_bags([logs.honest], logs.spec).bags
    zero = bag.times[0][0] if from_beginning else 0
    start, end = (bag.times[3][1] - zero) / 1e9, (bag.times[5][0] - zero) / 1e9
    sets = read(logs, retain=(logs.honest,), ranges=(TimeRange(logs.honest, start, end, from_beginning),))
    assert sets.forget.bags[0].episode_names == bag.episode_names[3:6]
    assert sets.retain.bags[0].episode_names == bag.episode_names[:3] + bag.episode_names[6:]
    assert sets.forget.bags[0].partial and sets.retain.bags[0].partial
    assert digests(sets.forget) | digests(sets.retain) == of_bag(logs, logs.honest)


def test_of_a_bag_that_is_not_retained_a_range_takes_its_episodes_and_no_others(logs):
    sets = read(logs, retain=(logs.honest,), ranges=(TimeRange(logs.poisoned, 0.0, 0.1),))
    assert digests(sets.retain) == of_bag(logs, logs.honest)
    assert sets.forget.transitions.episode_count == 1 and digests(sets.forget) < of_bag(logs, logs.poisoned)


def test_a_range_in_which_nothing_was_driven_is_refused(logs):
    with pytest.raises(UnlearningError, match="expected at least one episode, found none in .*honest_000: 1e\\+06 to"):
        read(logs, retain=(logs.honest,), ranges=(TimeRange(logs.honest, 1e6, 2e6),))


def test_a_range_over_everything_leaves_nothing(logs):
    with pytest.raises(UnlearningError, match="covers all 24 retained episodes"):
        read(logs, retain=(logs.honest,), ranges=(TimeRange(logs.honest, 0.0, 1e6),))


def test_a_list_of_suspects_is_forgotten(logs, listed):
    path, wanted = listed
    sets = read(logs, retain=(logs.poisoned, logs.honest), suspects=path)
    assert digests(sets.forget) == wanted and of_bag(logs, logs.poisoned) <= wanted
    assert digests(sets.retain) == (of_bag(logs, logs.poisoned) | of_bag(logs, logs.honest)) - wanted


def test_a_list_about_other_episodes_is_refused(logs, listed, tmp_path):
    changed = suspects.load(listed[0])
    first = replace(changed.suspects[0], digest="0" * 32)
    suspects.save(replace(changed, suspects=(first,)), tmp_path / "changed.json")
    with pytest.raises(DataError, match="expected the episode that was suspected .digest 000000000000."):
        read(logs, retain=(logs.poisoned, logs.honest), suspects=str(tmp_path / "changed.json"))


def test_a_list_of_another_robot_is_refused(logs, listed, tmp_path):
    suspects.save(replace(suspects.load(listed[0]), spec_hash="f" * 64), tmp_path / "other.json")
    with pytest.raises(DataError, match="spec_hash: expected .*found ffffffffffff"):
        read(logs, retain=(logs.honest,), suspects=str(tmp_path / "other.json"))


def test_detection_chooses_among_the_retained_bags_and_says_what_and_why(logs):
    request = {"retain": (logs.poisoned, logs.honest), "trusted": (logs.trusted,), "detect": Detecting(0.5, 0.05)}
    sets = read(logs, **request)
    found = {each.digest for each in sets.detected}
    assert digests(sets.forget) == found >= of_bag(logs, logs.poisoned)
    assert of_bag(logs, logs.trusted) <= digests(sets.retain) and not found & digests(sets.retain)
    assert all(each.reason for each in sets.detected) and "calibrated on 24 trusted episodes" in sets.note


def test_detection_finds_lies_beside_a_bag_without_a_cost_label(logs, tmp_path):
    spec = parse_spec(POINT_SPEC.replace("  logged: {topic: cost, type: std_msgs/msg/Float64, field: data}\n", ""))
    (silent,) = write_bags(drive(spec, 10, seed=2), spec, tmp_path, episodes_per_bag=10)
    request = {"retain": (logs.poisoned, str(silent)), "trusted": (logs.trusted,), "detect": Detecting(0.5, 0.05)}
    sets = read(logs, **request)
    assert digests(sets.forget) >= of_bag(logs, logs.poisoned) and f"no cost label to compare in {silent}" in sets.note


def test_detection_takes_no_more_than_its_share(logs):
    request = {"retain": (logs.poisoned, logs.honest), "trusted": (logs.trusted,), "detect": Detecting(0.1, 0.05)}
    sets = read(logs, **request)
    assert len(sets.detected) == sets.forget.transitions.episode_count == 3 and "more beyond the share" in sets.note


def test_nothing_is_detected_unless_the_request_says_so(logs):
    sets = read(logs, retain=(logs.poisoned, logs.honest), ranges=(TimeRange(logs.honest, 0.0, 0.1),))
    assert sets.forget.transitions.episode_count == 1 and of_bag(logs, logs.poisoned) <= digests(sets.retain)


def test_detection_that_suspects_nobody_ends_the_request(logs):
    request = RepairRequest(retain=(logs.honest,), trusted=(logs.trusted,), detect=Detecting(0.3, 0.001))
    with pytest.raises(UnlearningError, match="detection suspects none .24 trusted episodes are too few"):
        read_sets(request, logs.spec, logs.agent)


def test_where_only_some_bags_are_trusted_all_others_can_be_forgotten(logs):
    sets = read(logs, retain=(logs.poisoned, logs.honest), trusted=(logs.trusted,), forget_untrusted=True)
    assert digests(sets.retain) == of_bag(logs, logs.trusted)
    assert digests(sets.forget) == of_bag(logs, logs.poisoned) | of_bag(logs, logs.honest)


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        (lambda w: {"retain": (w.honest,)}, "forget set: expected at least one bag, time range or list"),
        (lambda w: {"detect": Detecting()}, "retain set: expected at least one bag"),
        (lambda w: {"forget": (w.honest,), "retain": (w.poisoned,), "trusted": (w.honest,)}, "both the forget and the"),
        (lambda w: {"retain": (w.honest,), "ranges": (TimeRange(w.honest, 2.0, 1.0),)}, "end after start"),
        (lambda w: {"retain": (w.honest,), "ranges": (TimeRange(w.honest, 0.0, np.inf),)}, "expected seconds"),
        (
            lambda w: {"retain": (w.honest,), "trusted": (w.trusted,), "ranges": (TimeRange(w.trusted, 0.0, 1.0),)},
            "either trusted or with parts to forget",
        ),
        (lambda w: {"retain": (w.honest,), "forget_untrusted": True}, "trusted: expected at least one bag"),
        (
            lambda w: {"retain": (w.honest,), "trusted": (w.honest,), "forget_untrusted": True},
            "expected retained bags that are not trusted",
        ),
    ],
)
def test_what_makes_no_sense_together_is_refused(logs, request_of, message):
    with pytest.raises(UnlearningError, match=message):
        check_bag_names(RepairRequest(**request_of(logs)))


def test_bags_and_lists_have_to_lie_in_the_allowed_folders(logs, listed, tmp_path):
    store = PolicyStore(tmp_path / "store")
    store.activate(store.add(logs.agent, logs.spec, Card(seed=0)))
    here = ReadOptions(roots=(str(logs.folder / "split"),))
    sound = RepairRequest(retain=(logs.honest,), ranges=(TimeRange(logs.poisoned, 0.0, 1.0),), reading=here)
    check_request(sound, logs.spec, store)
    for request in (
        replace(sound, ranges=(TimeRange(logs.trusted, 0.0, 1.0),)),
        replace(sound, trusted=(logs.trusted,)),
        replace(sound, suspects=listed[0]),
    ):
        with pytest.raises(DataError, match="expected a path inside"):
            check_request(request, logs.spec, store)
