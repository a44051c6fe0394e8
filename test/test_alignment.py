"""Ticks from recorded messages, held against a slow reading of the same rules, one command at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saferule_core.data import alignment
from saferule_core.data.alignment import align, episodes_by_gap, episodes_by_marker
from saferule_core.data.bag_file import Messages
from saferule_core.data.clocks import FAR_FUTURE_NS, Track, common_clock

PERIOD, GAP, MAX_STEPS = 10, 30, 6


def messages(times, arrivals, stamped=True):
    times = np.array(times, np.int64)
    return Messages(times, times if stamped else 0 * times, np.array(arrivals, np.int64), {})


@st.composite
def recordings(draw):
    """Topics with times on a coarse grid, so that ties are frequent, and arrivals in any order of the ties."""
    kinds = draw(st.lists(st.tuples(st.integers(1, 160), st.sampled_from("cssmab")), min_size=1, max_size=60))
    kinds += [(draw(st.integers(1, 160)), kind) for kind in "csmab"]
    by_kind = {kind: [(time, arrival) for arrival, (time, k) in enumerate(kinds) if k == kind] for kind in "csmab"}
    return [messages(*zip(*by_kind[kind], strict=True)) for kind in "csmab"]


def slow_align(commands, sensors, labels, episode, spans):
    """Go through the commands one by one, in the words of the module's description."""
    count = len(commands.time)

    def latest(track, limit):
        return max((i for i in range(len(track.time)) if limit(track, i)), default=-1)

    def state(k):
        found = []
        for track, max_age in sensors:
            index = latest(track, lambda t, i: t.rank[i] < commands.rank[k])
            if index < 0 or commands.time[k] - track.time[index] > max_age:
                return None
            if not spans[episode[k]][0] <= track.time[index]:
                return None
            found.append(index)
        return found

    def usable(k):
        place = sum(1 for j in range(k) if episode[j] == episode[k])
        return state(k) if episode[k] >= 0 and place < MAX_STEPS else None

    rows = []
    for k in range(count):
        before = usable(k)
        if before is None:
            continue
        near = k + 1 < count and episode[k + 1] == episode[k] and commands.time[k + 1] - commands.time[k] <= GAP
        after = usable(k + 1) if near else None
        continues = after is not None
        if not continues:
            horizon = min(commands.time[k] + PERIOD + PERIOD // 2, spans[episode[k]][1] - 1)
            after = [max(latest(t, lambda t, i, h=horizon: t.time[i] <= h), b)
                     for (t, _), b in zip(sensors, before, strict=True)]  # fmt: skip
            if after == before:
                continue
        said = []
        for track in labels:
            upper = commands.rank[k + 1] if k + 1 < count else np.iinfo(np.int64).max
            said.append(next((i for i, r in enumerate(track.rank) if commands.rank[k] < r < upper), None))
        if None not in said:
            rows.append((k, before, after, said, continues))
    kept = {row[0] for row in rows}
    return [(k, b, a, s, not (c and k + 1 in kept)) for k, b, a, s, c in rows]


@settings(max_examples=300, deadline=None)
@given(
    recording=recordings(), max_age=st.integers(1, 25), with_marker=st.booleans(), with_labels=st.booleans(),
    at_once=st.sampled_from([1, 2, 7, 1 << 18]),
)  # fmt: skip
def test_align_is_what_the_rules_say(recording, max_age, with_marker, with_labels, at_once):
    commands, sensor, marker, reward, other = common_clock(recording)
    if with_marker:
        episode, spans = episodes_by_marker(commands, marker, [str(i // 2) for i in range(len(marker.time))])
    else:
        episode, spans = episodes_by_gap(commands, GAP, MAX_STEPS)
    sensors, labels = [(sensor, max_age), (other, 25)], [reward] if with_labels else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "COMMANDS_AT_ONCE", at_once)
        ticks = align(commands, sensors, labels, episode, spans, period_ns=PERIOD, gap_ns=GAP, max_steps=MAX_STEPS)
    found = [
        (k, [t[i] for t in ticks.state], [t[i] for t in ticks.next_state], [t[i] for t in ticks.labels], ticks.ends[i])
        for i, k in enumerate(ticks.command)
    ]
    assert found == slow_align(commands, sensors, labels, episode, spans)
    assert not len(ticks.ends) or ticks.ends[-1]


@given(recording=recordings())
def test_ranks_order_all_messages_by_time_then_arrival(recording):
    tracks = common_clock(recording)
    keys = sorted(
        (time, arrival, rank)
        for track, topic in zip(tracks, recording, strict=True)
        for time, rank, arrival in zip(track.time, track.rank, topic.arrival[track.order], strict=True)
    )
    assert [rank for _, _, rank in keys] == list(range(len(keys)))


def test_messages_without_a_stamp_count_from_their_recording():
    stamped, plain = common_clock([messages([10, 30], [0, 2]), messages([20], [1], stamped=False)])
    assert stamped.rank.tolist() == [0, 2] and plain.rank.tolist() == [1]


def test_recording_times_of_another_clock_are_translated():
    wall = 1_700_000_000 * 10**9
    stamped = Messages(np.array([wall, wall + 40]), np.array([100, 200]), np.array([0, 2]), {})
    plain = Messages(np.array([wall + 10]), np.array([0]), np.array([1]), {})
    assert common_clock([stamped, plain])[1].time.tolist() == [125]


def test_repeated_markers_are_one_episode():
    def track(times, ranks):
        return Track(np.array(times), np.array(ranks), np.arange(len(times)), np.array(times))

    commands, markers = track([5, 15, 25, 35], [0, 2, 4, 6]), track([10, 20, 30], [1, 3, 5])
    episode, spans = episodes_by_marker(commands, markers, ["a", "a", "b"])
    assert episode.tolist() == [-1, 0, 0, 1]
    assert spans.tolist() == [[10, 30], [30, FAR_FUTURE_NS]]


def test_time_goes_on_after_a_clock_was_set_back():
    second = 10**9
    sensor = messages([100 * second, 110 * second, 5 * second, 6 * second], [0, 2, 4, 6])
    other = messages([105 * second, 4 * second], [1, 5])
    tracks = common_clock([sensor, other], pause_ns=50 * second)
    # the sensor shows the jump at arrival 4, the other at 5: each place is followed by a pause
    assert (tracks[0].time // second).tolist() == [100, 110, 160, 212]
    assert (tracks[1].time // second).tolist() == [105, 210]
    assert tracks[0].order.tolist() == [0, 1, 2, 3]


def test_messages_that_were_overtaken_are_put_in_order():
    sensor = messages([10, 30, 20], [0, 1, 2])
    assert common_clock([sensor])[0].order.tolist() == [0, 2, 1]
