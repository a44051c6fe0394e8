"""The loop's measurements: bins as documented, worst ticks, a summary for people."""

import re
from pathlib import Path

import pytest

from saferule_core.control.statistics import LATENESS_EDGES_S, Histogram, LoopStatistics

MESSAGE = Path(__file__).resolve().parents[1] / "msg" / "PolicyStatus.msg"


def test_a_value_on_an_edge_belongs_to_the_bin_above():
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 0.99, 1.0, 1.5, 2.0, 100.0):
        histogram.add(value)
    assert histogram.counts == [2, 2, 2]


def test_a_share_of_the_values_lies_below_its_bound():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 0.5, 0.5, 1.5):
        histogram.add(value)
    assert (histogram.quantile_bound(0.75), histogram.quantile_bound(0.76)) == (1.0, 2.0)
    histogram.add(5.0)
    assert histogram.quantile_bound(1.0) == float("inf")


def test_the_message_documents_the_edges():
    line = re.search(r"edges \[s\]: ([\d. ]+)", MESSAGE.read_text(encoding="utf-8"))
    assert tuple(float(edge) for edge in line[1].split()) == LATENESS_EDGES_S


def test_the_worst_tick_is_named():
    statistics = LoopStatistics()
    for seconds in (0.001, 0.007, 0.002):
        statistics.ticks += 1
        statistics.count_compute(seconds)
    assert (statistics.worst_tick, statistics.worst_compute_s) == (2, 0.007)


def test_inference_is_averaged():
    statistics = LoopStatistics()
    assert statistics.mean_inference_s == 0.0
    for seconds in (0.001, 0.003):
        statistics.count_inference(seconds)
    assert statistics.mean_inference_s == pytest.approx(0.002)
    assert "2.000 ms on average, 3.000 ms at worst" in statistics.summary()
