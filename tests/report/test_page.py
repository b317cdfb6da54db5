"""The page and its Markdown: complete, self-contained, with the aggregate's numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from jowa.errors import DataError
from jowa.report.build import build_report, write_report
from jowa.report.wording import ends, points, share, signed
from jowa.suite.aggregate import Comparison, compare_group
from jowa.suite.results import GamePlayed, Result, write_result

VOID = {"meta", "img", "br", "link", "hr", "input"}
WHERE = {"methods": "methods", "scale": "scaling", "ablations": "ablations", "planning": "planning"}
"""Section of each comparison."""


class Page(HTMLParser):
    """Checks that tags are balanced; gathers links, ids, loads and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.hrefs: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        named = dict(attrs)
        self.attributes |= set(named)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "a":
            self.hrefs.append(str(named["href"]))
        elif "href" in named or "xlink:href" in named:
            self.loads.append(str(named.get("href") or named.get("xlink:href")))
        if "src" in named:
            self.loads.append(str(named["src"]))
        if "id" in named:
            self.ids.append(str(named["id"]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def written(results: list[Result], folder: Path) -> Path:
    source = folder / "suite" / "results"
    for result in results:
        write_result(source, result)
    write_report(folder / "out", build_report(results, date="2026-11-23"), results, source)
    return folder / "out"


@pytest.fixture(scope="module")
def suite(make_suite: Callable[..., Any]) -> list[Result]:
    results: list[Result] = make_suite().all()
    return results


@pytest.fixture(scope="module")
def out(suite: list[Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(suite, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def html(out: Path) -> str:
    return (out / "index.html").read_text(encoding="utf-8")


def section(html: str, id: str) -> str:
    found = re.search(rf'<section id="{id}">.*?</section>', html, re.DOTALL)
    assert found is not None
    return found[0]


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(html: str) -> None:
    page = Page(html)
    assert page.loads and all(load.startswith(("data:", "#")) for load in page.loads)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert len(set(page.ids)) == len(page.ids)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", html)
    assert not any(re.match(r"[a-z]+:|//", href) for href in page.hrefs)
    assert {load[1:] for load in page.loads if load.startswith("#")} <= set(page.ids)


def test_every_link_leads_somewhere(out: Path, html: str) -> None:
    page = Page(html)
    for href in set(page.hrefs):
        assert href[1:] in page.ids if href.startswith("#") else (out / unquote(href)).is_file(), href
    for path in (out / "numbers").rglob("*.json"):
        for link in re.findall(r'"((?:\.\./)+results/[^"]+)"', path.read_text()):
            assert (path.parent / unquote(link)).is_file()


def test_markdown_links_lead_somewhere_too(out: Path) -> None:
    text = (out / "report.md").read_text(encoding="utf-8")
    headings = {line[3:].lower().replace(" ", "-") for line in text.splitlines() if line.startswith("## ")}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 500
    for link in set(links):
        assert link[1:] in headings if link.startswith("#") else (out / unquote(link)).is_file(), link


def numbers_of(comparison: Comparison) -> set[str]:
    """What must be read in the section of ``comparison``, as it is written there."""
    said = set()
    for each in comparison.by_game:
        said |= {points(each.score.value), ends(each.score, "points")}
    for standing in comparison.standings:
        for interval in (standing.iqm, standing.mean, standing.median, standing.optimality_gap):
            said |= {share(interval.value), ends(interval)}
    return said


@pytest.mark.parametrize("group", ["methods", "scale", "ablations", "planning"])
def test_numbers_are_the_aggregates(suite: list[Result], html: str, out: Path, group: str) -> None:
    (comparison,) = compare_group(suite, group).values()
    cells = Page(section(html, WHERE[group])).text
    markdown = (out / "report.md").read_text(encoding="utf-8").replace("\\", "")
    expected = numbers_of(comparison) if group == "methods" else {share(s.iqm.value) for s in comparison.standings}
    assert len(expected) > 3
    for number in expected:
        assert number in cells and number in markdown, number


def test_gains_are_those_of_the_suite(suite: list[Result], html: str) -> None:
    (comparison,) = compare_group(suite, "planning").values()
    cells = Page(section(html, "planning")).text
    for pair in comparison.pairs:
        assert signed(pair.gain.value) in cells and ends(pair.gain, "signed") in cells


def test_html_and_markdown_hold_the_same_numbers(html: str, out: Path) -> None:
    markdown = (out / "report.md").read_text(encoding="utf-8").replace("\\", "")
    body = re.sub(r"<(style|svg).*?</\1>", "", html[html.index("<main>") :], flags=re.DOTALL)
    numbers = [
        re.findall(r"[\d.,]*\d", re.sub(r"<[^>]*>|\]\([^)]*\)|data:\S+", " ", text))
        for text in (unescape(body), unescape(markdown))
    ]
    assert set(numbers[0]) <= set(numbers[1]) and len(numbers[0]) > 1000


def test_learning_curves_are_the_losses(html: str) -> None:
    learning = section(html, "learning")
    assert re.findall(r'class="title">([^<]+)', learning) == ["world", "td"]
    assert "18 trainings of 3 seeds" in learning


def test_a_player_of_several_seeds_leads_to_all_its_results(suite: list[Result], out: Path, html: str) -> None:
    link = re.search(r'href="(numbers/methods/[^"]*mtbc[^"]*)"', html)
    assert link is not None
    document = json.loads((out / link[1]).read_text())
    assert [Path(path).stem for path in document["results"]] == [f"mtbc-M-seed{seed}" for seed in range(3)]
    (comparison,) = compare_group(suite, "methods").values()
    iqm = next(each.iqm for each in comparison.standings if each.contender.method == "mtbc")
    assert document["standings"][0]["iqm"] == {"value": iqm.value, "low": iqm.low, "high": iqm.high}


def test_what_is_missing_names_its_command(make_suite: Callable[..., Any], tmp_path: Path) -> None:
    results = [result for result in make_suite(seeds=2, episodes=3).methods() if result.groups == ("methods",)]
    html = (written(results, tmp_path) / "index.html").read_text(encoding="utf-8")
    for group, id in (*WHERE.items(), ("transfer", "transfer")):
        command = f"python -m jowa.suite --only {group}"
        assert (command in section(html, id)) == (group != "methods")
    assert "python -m jowa.report RESULTS --agent FOLDER" in section(html, "play")
    assert "MTBC M has" not in section(html, "summary") and "2 of 3 seeds" in section(html, "methods")


def test_text_of_results_is_escaped(make_suite: Callable[..., Any], tmp_path: Path) -> None:
    evil = "<script>alert('$x_1$ & |`')</script>\"onload=x"
    maker = make_suite(seeds=1, episodes=2)
    results = [
        maker.result(f"a'\"&<b> {name}", ("ablations", "methods"), "jowa", 0.3, size="M", variant=variant)
        for name, variant in (("one", ""), ("two", evil))
    ]
    object.__setattr__(results[0], "command", evil)
    object.__setattr__(results[0], "machine", {evil: evil})
    out = written(results, tmp_path)
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags and "onload" not in page.attributes
    assert any("alert('$x_1$ & |`')" in text for text in page.text)
    for href in page.hrefs:
        assert href.startswith("#") or (out / unquote(href)).is_file(), href
    assert "<script" not in (out / "report.md").read_text(encoding="utf-8").replace("    <script>", "")
    for figure in (out / "figures").glob("*.svg"):
        assert "<script" not in figure.read_text(encoding="utf-8")


def test_intervals_that_overlap_are_said_to(make_suite: Callable[..., Any], tmp_path: Path) -> None:
    maker = make_suite()
    near, far = (
        [
            maker.result(f"{name}/{method}-{seed}", ("methods",), method, skill, seed, size="M")
            for method, skill in (("jowa", 0.5), ("mtbc", other)) for seed in range(3)
        ]
        for name, other in (("near", 0.5), ("far", 0.1))
    )  # fmt: skip
    said = [
        section((written(r, tmp_path / n) / "index.html").read_text(), "summary") for r, n in ((near, "n"), (far, "f"))
    ]
    assert "the intervals overlap" in said[0] and "its interval lies below" not in said[0]
    assert "the intervals overlap" not in said[1] and "its interval lies below" in said[1]


def test_a_game_without_reference_scores_is_shown_and_named(make_suite: Callable[..., Any], tmp_path: Path) -> None:
    results = [
        Result(id=f"{method}/{seed}", groups=("methods",), method=method, size="M", seed=seed,
               games={"Alien": GamePlayed((100.0 + seed, 230.0))})
        for method in ("jowa", "mtbc") for seed in range(2)
    ]  # fmt: skip
    html = section((written(results, tmp_path) / "index.html").read_text(), "methods")
    assert "Alien has no reference scores" in html and "165.2" in html and "HNS 0" not in html


def test_the_same_results_give_the_same_bytes(suite: list[Result], out: Path, tmp_path: Path) -> None:
    few = [result for result in suite if "ablations" in result.groups]
    one, other = written(few, tmp_path / "one"), written(few, tmp_path / "other")
    for path in sorted(one.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (other / path.relative_to(one)).read_bytes(), path


def test_results_may_lie_where_the_report_goes(make_suite: Callable[..., Any], tmp_path: Path) -> None:
    results = [make_suite().result("a", ("methods",), "jowa", 0.5, size="M")]
    path = write_result(tmp_path / "results", results[0])
    before = path.read_bytes()
    write_report(tmp_path, build_report(results), results, tmp_path / "results")
    assert path.read_bytes() == before and (tmp_path / "index.html").is_file()


def test_two_results_of_one_cell_are_refused(make_suite: Callable[..., Any]) -> None:
    maker = make_suite()
    with pytest.raises(DataError, match="move one away"):
        build_report([maker.result(id, ("methods",), "jowa", 0.5, size="M") for id in ("a", "b")])
