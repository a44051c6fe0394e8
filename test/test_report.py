"""Reports: one self-contained page from one JSON file, whatever sections there are."""

import json
import re
import struct
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from saferule_core.errors import DataError
from saferule_core.validation import report, report_data
from saferule_core.validation.gate import GateRules, judge
from saferule_core.validation.report_data import (
    BoundaryLine,
    CircleLine,
    EpisodePath,
    LiveSeries,
    PictureSection,
    PolicySection,
    ReportData,
    SwapMark,
    UnlearningSection,
)


def policy(name, cost, reward):
    path = tuple((6.0 * np.cos(angle), 6.0 * np.sin(angle)) for angle in np.linspace(0.0, 6.0, 30).tolist())
    episodes = tuple(EpisodePath(seed, reward + seed, cost + seed % 3, path) for seed in range(6))
    return PolicySection(name * 64, episodes)


BEFORE, AFTER = policy("a", 70.0, 800.0), policy("b", 0.0, 640.0)
RULES = GateRules(cost_limit=10.0, min_reward_kept=0.85, confidence=0.95, episodes=6)
LIVE = LiveSeries(
    time=tuple(0.1 * tick for tick in range(80)),
    episode=tuple(tick // 10 for tick in range(80)),
    cost=tuple(1.0 if tick < 45 else 0.0 for tick in range(80)),
    reward=(None, *(4.0 for _ in range(79))),
    swaps=(SwapMark(4.45, "swap"),),
)
UNLEARNING = UnlearningSection(
    "safe_rule", True, "modelled cost 1.2", 500, 2.1, "repaired",
    losses=tuple({"fraction": i / 10, "phase": "unlearning", "keep_loss": 1.0 / (i + 1), "multiplier": 10.0 + i}
                 for i in range(10)),
    history=({"stage": 1, "modelled_cost": 9.0, "modelled_reward": 500.0},
             {"stage": 2, "modelled_cost": 1.2, "modelled_reward": 640.0}),
    diagnostics={"cost_source": "recomputed"},
)  # fmt: skip
FULL = ReportData(
    title="Repair of point", robot="point", cost_limit=10.0, created="2026-01-31T10:11:12+00:00",
    verdict=judge(BEFORE.episodes, AFTER.episodes, RULES, safe_return=650.0),
    incumbent=BEFORE, candidate=AFTER, live=LIVE, unlearning=UNLEARNING,
    picture=PictureSection((BoundaryLine(x=-6.0), BoundaryLine(x=6.0)), (CircleLine(7.0),)),
    reward_range=(0.0, 1000.0), facts={"Data": {"forget set": "c" * 64}, "Run": {"seed": "0"}},
)  # fmt: skip
BARE = ReportData(title="Nothing yet", robot="point", cost_limit=10.0)


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its elements close."""

    void = {"meta", "link", "br", "img", "hr"}

    def __init__(self, text):
        super().__init__()
        self.ids, self.references, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.references.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def full_page():
    return report.render_html(FULL)


def test_the_page_needs_nothing_from_elsewhere(full_page):
    page = Page(full_page)
    assert page.open == []
    assert all(reference.startswith("#") for reference in page.references)
    assert "<script" not in full_page and "@import" not in full_page
    assert not re.search(r"url\((?!#)", full_page)


def test_the_pictures_of_a_page_do_not_mix_up_their_parts(full_page):
    page = Page(full_page)
    assert len(page.ids) == len(set(page.ids))
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", full_page)) <= set(page.ids)


def test_the_pictures_follow_light_and_dark(full_page):
    assert "prefers-color-scheme: dark" in full_page and "fill: var(--ink)" in full_page
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]\b", full_page)


def test_a_full_page_has_every_section(full_page):
    for heading in ("On the running robot", "Before and after", "Paths driven", "Episode by episode", "The checks",
                    "Unlearning", "Where this comes from"):  # fmt: skip
        assert f"<h2>{heading}" in full_page
    assert full_page.count("<svg") == 9
    assert "Accepted" in full_page and "c" * 64 in full_page and "7.1 times its limit" in full_page


def test_a_refusal_says_which_check_was_not_passed():
    verdict = judge(BEFORE.episodes, AFTER.episodes, replace(RULES, min_reward_kept=1.2), safe_return=650.0)
    page = report.render_html(ReportData("Repair", "point", 10.0, verdict=verdict))
    assert "Refused" in page and "“reward kept”" in page and "✗ not passed" in page


def test_a_method_that_failed_is_a_refusal():
    page = report.render_html(replace(BARE, unlearning=replace(UNLEARNING, succeeded=False)))
    assert "Refused" in page and "nothing may drive" in page


@pytest.mark.parametrize(
    "missing", ["verdict", "incumbent", "candidate", "live", "unlearning", "reward_range", "picture", "facts"]
)
def test_every_section_may_be_missing(missing):
    empty = {"picture": PictureSection(), "facts": {}}.get(missing)
    assert Page(report.render_html(replace(FULL, **{missing: empty}))).open == []


def test_a_report_of_nothing_is_a_page():
    page = report.render_html(BARE)
    assert "Not judged" in page and "<svg" not in page and "<h2>" not in page


def test_text_from_outside_is_escaped():
    live = replace(LIVE, swaps=(SwapMark(4.45, "</svg><em> $\\odd"),))
    data = replace(BARE, title="<script>alert(1)</script>", live=live, facts={"<em>": {"<i>": "<u>"}})
    page = report.render_html(data)
    assert not any(tag in page for tag in ("<script", "<em>", "<i>", "<u>"))
    assert Page(page).open == []


def test_json_holds_the_whole_report(tmp_path):
    report_data.save(FULL, tmp_path / "report.json")
    assert report_data.load(tmp_path / "report.json") == FULL
    json.loads((tmp_path / "report.json").read_text())


def test_numbers_of_numpy_and_numbers_that_are_none_survive(tmp_path):
    live = LiveSeries(time=(np.float64(0.0), 0.1), episode=(np.int64(0), 0), cost=(float("nan"), np.float32(1.0)))
    report_data.save(replace(BARE, live=live), tmp_path / "report.json")
    assert report_data.load(tmp_path / "report.json").live.cost == (None, 1.0)


def test_writing_and_drawing_again_give_the_same_page(tmp_path):
    page = report.write_report(FULL, tmp_path / "run")
    first = page.read_text()
    page.unlink()
    assert report.rerender(tmp_path / "run") == page and page.read_text() == first
    assert report.rerender(tmp_path / "run" / "report.json") == page


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "report.json: expected a report.json, found: No such file"), ("{}", "missing required field"),
     ("no json", "expected a report.json"), ('{"title": 1, "robot": "", "cost_limit": 1}', "title"),
     ('{"title": "", "robot": "", "cost_limit": 1, "format": 9}', "format: expected 1, found 9")],
)  # fmt: skip
def test_a_file_that_is_no_report_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataError, match=message):
        report.rerender(tmp_path)


def test_a_live_series_of_different_lengths_is_refused():
    with pytest.raises(DataError, match="live.cost: expected 2 values as in time, found 1"):
        LiveSeries(time=(0.0, 0.1), episode=(0, 0), cost=(1.0,))


def test_live_episodes_are_whole_and_driven_by_one_policy():
    episodes = report_data.live_episodes(LIVE)
    assert [episode["cost"] for episode in episodes] == [10.0, 10.0, 10.0, 0.0, 0.0]
    assert [episode["swaps"] for episode in episodes] == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_the_picture_has_the_width_that_was_asked_for(tmp_path):
    report.render_png(FULL, tmp_path / "picture.png", width=600)
    content = (tmp_path / "picture.png").read_bytes()
    assert content.startswith(b"\x89PNG") and struct.unpack(">I", content[16:20]) == (600,)


@pytest.mark.parametrize("kept", [{"live": LIVE}, {"incumbent": BEFORE}, {"candidate": AFTER}])
def test_the_picture_shows_what_there_is(tmp_path, kept):
    report.render_png(replace(BARE, **kept), tmp_path / "picture.png", width=300)
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_a_picture_of_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="found neither"):
        report.render_png(BARE, tmp_path / "picture.png")
