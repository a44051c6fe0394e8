"""Messages are dated by when they were published, however late and mixed up they are heard."""

from hypothesis import given, settings
from hypothesis import strategies as st

from saferule_core.data.publication_order import HELD_MOST, PublicationOrder

PERIODS, TOPICS = 5, ("odom", "reward", "command")


def published(period: int, place: int) -> int:
    """When a period's tick (place 0) and messages (1, 2, 3) are published [ns]."""
    return 1000 + 10 * period + place


def test_messages_come_out_in_order_at_the_tick_before_them():
    order = PublicationOrder()
    assert order.tick(published(0, 0), 100) == []
    order.add(published(0, 2), "reward", b"r")
    order.add(published(0, 1), "odom", b"o")
    assert order.held == 2
    assert order.tick(published(1, 0), 200) == [(100, "odom", b"o"), (100, "reward", b"r")]
    order.add(published(1, 1), "odom", b"p")
    assert order.rest() == [(200, "odom", b"p")]
    assert order.rest() == []


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_late_listener_dates_every_message_as_a_prompt_one_does(data):
    """Each topic, and the clock, is heard in its own order, but they overtake each other."""
    order, written = PublicationOrder(), []
    order.tick(published(-1, 0), -1)
    queues = {topic: list(range(PERIODS)) for topic in (*TOPICS, "clock")}
    while any(queues.values()):
        topic = data.draw(st.sampled_from([name for name, left in queues.items() if left]))
        period = queues[topic].pop(0)
        if topic == "clock":
            written += order.tick(published(period, 0), period)
        else:
            order.add(published(period, 1 + TOPICS.index(topic)), topic, str(period).encode())
    written += order.rest()
    dates = sorted((time, topic, int(text)) for time, topic, text in written)
    assert dates == sorted((period, topic, period) for period in range(PERIODS) for topic in TOPICS)


@given(st.lists(st.permutations(TOPICS), min_size=PERIODS, max_size=PERIODS))
def test_within_a_period_the_order_of_hearing_does_not_matter(heard):
    order, written = PublicationOrder(), []
    for period, topics in enumerate(heard):
        written += order.tick(published(period, 0), period)
        for topic in topics:
            order.add(published(period, 1 + TOPICS.index(topic)), topic, b"")
    written += order.rest()
    assert written == [(period, topic, b"") for period in range(PERIODS) for topic in TOPICS]


def test_without_a_clock_nothing_has_a_date_and_little_is_held():
    order = PublicationOrder()
    for number in range(HELD_MOST + 10):
        order.add(number, "odom", b"")
    assert order.held == HELD_MOST and order.rest() == []
    order.tick(10**9, 7)
    assert {time for time, _, _ in order.rest()} == {7}
