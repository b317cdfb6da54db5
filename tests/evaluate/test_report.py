"""The JSON document and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import jowa
from jowa.errors import UsageError
from jowa.evaluate import summarise
from jowa.evaluate.report import (
    check_writable,
    interval,
    number,
    own_path,
    results_document,
    score_table,
    write_results,
)


@pytest.fixture
def document() -> dict[str, Any]:
    results = [summarise("Pong", [-3.0, 5.0]), summarise("AirRaid", [100.0, 200.0])]
    return results_document({"protocol": "sticky"}, results, torch.device("cpu"))


def test_the_document_survives_json_and_names_what_it_is(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "deep" / "scores.json"
    check_writable(path)
    assert list(path.parent.iterdir()) == []
    write_results(path, document)
    read = json.loads(path.read_text())
    assert read == document
    assert set(read) == {"jowa", "date", "device", "torch", "settings", "games", "iqm_hns", "iqm_dns"}
    assert read["jowa"] == jowa.__version__ and read["settings"] == {"protocol": "sticky"}
    assert set(read["games"][0]) == {"game", "scores", "mean", "low", "high", "hns", "dns"}
    assert set(read["iqm_hns"]) == {"iqm", "low", "high", "games"} and read["iqm_hns"]["games"] == 1
    assert read["games"][1]["hns"] is None


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        check_writable(tmp_path)


def test_what_was_measured_in_another_way_stays(document: dict[str, Any], tmp_path: Path) -> None:
    path, settings = tmp_path / "evaluation-none-sticky.json", {"episodes": 3, "context": {"Pong": 1}}
    games = [row["game"] for row in document["games"]]
    assert own_path(path, settings, games) == path
    write_results(path, document | {"settings": settings})
    assert own_path(path, settings, games) == path, "the same again takes its own place"
    second = tmp_path / "evaluation-none-sticky-2.json"
    assert own_path(path, settings | {"episodes": 4}, games) == second
    assert own_path(path, settings, [*games, "Boxing"]) == second
    for damaged in ("", "[]", '{"settings": 1}', '{"settings": 1, "games": [2]}'):
        second.write_text(damaged)
        third = tmp_path / "evaluation-none-sticky-3.json"
        assert own_path(path, settings | {"episodes": 4}, games) == third, "what cannot be read is not written over"


def test_the_table_prints(document: dict[str, Any]) -> None:
    results = [summarise("Pong", [-3.0, 5.0]), summarise("AirRaid", [100.0, 200.0])]
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(score_table("title", results, document))
    text = console.export_text()
    for cell in ("title", "Pong", "AirRaid", "1.00", "150.0", "HNS", "DNS", "IQM over 1", "95% interval"):
        assert cell in text
    without = score_table("title", results[1:], {**document, "iqm_hns": None, "iqm_dns": None})
    assert without.row_count == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.123, "0.12"), (-20.66, "-20.7"), (123.4, "123.4"), (2841262.5, "2,841,262")]
)
def test_numbers_of_any_size(value: float, text: str) -> None:
    assert number(value) == text
    assert interval(value, value, 2) == f"[{text}, {text}]"
    assert interval(value, value, 1) == "-", "one episode has no interval"
