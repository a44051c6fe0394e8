"""The folder of a server belongs to one, and tells which requests broke off; requests are served in turn."""

import os

import pytest

from saferule_core.checkpoints import FAILED, PHASE, REQUEST, RESULT, SCRATCH
from saferule_core.errors import SpecError
from saferule_core.turns import Turns
from saferule_core.work_folder import WorkFolder, asked_to_swap, note_asked


def begun(work, request_id, age=0, **files):
    """Make the folder of a request that has begun."""
    folder = work.open(request_id)
    for name, text in {REQUEST: "{}", PHASE: "validating", **files}.items():
        (folder / name).write_text(text)
    os.utime(folder, (1e9 - age, 1e9 - age))
    return folder


@pytest.fixture
def work(tmp_path):
    return WorkFolder(tmp_path / "work")


def test_two_servers_do_not_share_it(work):
    work.claim()
    other = WorkFolder(work.root)
    with pytest.raises(SpecError, match="no other unlearning_server uses"):
        other.claim()
    work.release()
    other.claim()
    other.release()


def test_requests_that_have_not_ended_are_found_oldest_first(work):
    new = begun(work, "0" * 12)
    old = begun(work, "1" * 12, age=60)
    begun(work, "2" * 12, **{RESULT: "{}"})
    (work.root / "notes").mkdir()
    assert work.broken_off() == [old, new] and work.broken_off(but=[old.name]) == [new]
    assert [work.can_resume(name) for name in ("0" * 12, "2" * 12, "3" * 12, "../x", "")] == [True, *[False] * 4]


def test_after_a_crash_it_says_why_they_broke_off_and_removes_what_is_half_written(work):
    told = begun(work, "0" * 12, **{FAILED: '{"phase": "unlearning", "message": "out of memory"}'})
    silent = begun(work, "1" * 12)
    (silent / ".data.json-01234567").write_text("half")
    found = work.tidy()
    assert (found[told.name].phase, found[told.name].message) == ("unlearning", "out of memory")
    assert (found[silent.name].phase, "stopped or killed" in found[silent.name].message) == ("validating", True)
    assert not (silent / SCRATCH).exists() and {path.name for path in silent.iterdir()} == {REQUEST, PHASE, FAILED}


def test_a_request_that_never_began_leaves_nothing(work):
    folder = work.open("0" * 12)
    note_asked(folder, True)
    work.close(folder)
    assert not folder.exists()


def test_whether_the_policy_is_to_drive_is_known_after_a_restart(work):
    folder = work.open("0" * 12)
    assert not asked_to_swap(folder)
    note_asked(folder, True)
    assert asked_to_swap(folder)
    (folder / "asked.json").write_text("[1]")
    assert not asked_to_swap(folder)


def test_one_is_served_others_wait_and_more_are_turned_away():
    turns = Turns(waiting=1)
    first, second = turns.join(), turns.join()
    assert (first.ahead, second.ahead, turns.join()) == (0, 1, None)
    first.leave()
    first.leave()
    third = turns.join()
    assert (second.ahead, third.ahead) == (0, 1)
    third.leave()
    assert turns.join().ahead == 1


def test_without_room_to_wait_only_one_is_taken():
    turns = Turns()
    turn = turns.join()
    assert turns.join() is None
    turn.leave()
    assert turns.join() is not None
