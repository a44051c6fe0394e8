"""The ring of the flight recorder: what led to a snapshot, and no more."""

from hypothesis import given
from hypothesis import strategies as st
from test_recording import DEFINITIONS, SECOND, TOPICS, contents, name, number

from saferule_core.data.recording import Recording
from saferule_core.data.ring_buffer import SLICE, RingBuffer, RingRecording


def test_the_ring_keeps_the_last_seconds():
    ring = RingBuffer(max_seconds=3.0, max_bytes=0)
    for second in range(10):
        ring.add("odom", b"1234", second * SECOND)
    assert [stamp // SECOND for _, _, stamp in ring.take()] == [6, 7, 8, 9]
    assert ring.take() == [] and len(ring) == ring.size == 0


@given(st.lists(st.integers(0, 30), min_size=1), st.integers(10, 60))
def test_the_ring_never_holds_more_bytes_than_it_may(sizes, most):
    ring = RingBuffer(0.0, most)
    for size in sizes:
        ring.add("odom", bytes(size), 0)
        assert ring.size <= max(most, size)
    taken = [len(data) for _, data, _ in ring.take()]
    assert taken == sizes[-len(taken) :], "the newest are kept"


def test_what_a_late_reader_has_to_know_is_written_first():
    ring = RingBuffer(2.0, 0, latched=frozenset({"episode"}))
    ring.add("episode", b"one", 0)
    ring.add("episode", b"two", SECOND)
    for second in range(1, 9):
        ring.add("odom", b"", second * SECOND)
    assert ring.take() == [("episode", b"two", 6 * SECOND), *(("odom", b"", k * SECOND) for k in (6, 7, 8))]
    ring.add("episode", b"three", 9 * SECOND)
    ring.add("odom", b"", 10 * SECOND)
    assert [data for _, data, _ in ring.take()] == [b"two", b"three", b""]


def test_a_clock_that_is_set_back_empties_the_ring():
    ring = RingBuffer(2.0, 0)
    ring.add("odom", b"", 100 * SECOND)
    ring.add("odom", b"", SECOND)
    assert [stamp for _, _, stamp in ring.take()] == [SECOND]


def test_snapshots_are_bags_and_nothing_else_is_written(tmp_path):
    recording = Recording(tmp_path, TOPICS, DEFINITIONS.__getitem__)
    ring = RingRecording(recording, RingBuffer(2.0, 0, latched=frozenset({"/episode"})))
    ring.write("/episode", name("episode_0"), SECOND)
    for second in range(1, 6):
        ring.write("odom", number(float(second)), second * SECOND)
        ring.flush()
    assert not list(recording.folder.glob("bag_*"))
    assert ring.snapshot() == [recording.folder / "bag_000"]
    assert ring.snapshot() == []
    ring.write("odom", number(6.0), 6 * SECOND)
    assert ring.snapshot() == [recording.folder / "bag_001"]
    ring.write("odom", number(7.0), 7 * SECOND)
    ring.close()
    first, second = contents(recording)
    assert first == [("/episode", "episode_0"), ("/odom", 3.0), ("/odom", 4.0), ("/odom", 5.0)]
    assert second == [("/episode", "episode_0"), ("/odom", 6.0)]


def test_a_large_ring_is_written_in_slices_and_takes_messages_in_between(tmp_path):
    recording = Recording(tmp_path, TOPICS, DEFINITIONS.__getitem__)
    ring = RingRecording(recording, RingBuffer(0.0, 0))
    for k in range(2 * SLICE + 1):
        ring.write("odom", number(float(k)), SECOND * (1 + k))
    slices = 0
    for slices, _ in enumerate(ring.pour(), start=1):
        ring.write("odom", number(-1.0), SECOND * (10_000 + slices))
    assert slices == 2
    ring.snapshot()
    ring.close()
    (bag,) = contents(recording)
    assert [value for _, value in bag] == [*map(float, range(2 * SLICE + 1)), -1.0, -1.0]
