from __future__ import annotations

import json
from pathlib import Path

import pytest

from jowa.errors import DataError, UsageError
from jowa.suite import GamePlayed, Planned, Result, Training, Transfer, read_results, write_result


def a_result(id: str = "jowa-M-seed0/greedy") -> Result:
    return Result(
        id=id,
        groups=("methods", "scale"),
        method="jowa",
        games={"Pong": GamePlayed((-3.0, 4.0), (900, 950)), "Freeway": GamePlayed((21.0, 22.0))},
        size="M",
        seed=2,
        planned=Planned("beam", width=2, horizon=1),
        transfer=Transfer("Pong", "weak", 5000, pretrained=True),
        training=Training(12.5, 300, 1_000_000, ({"step": 10, "world": 0.5},)),
        settings={"stage1": {"steps": 3}},
        command="python -m jowa.train",
        machine={"torch": "2.13"},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    results = [a_result("a/one"), a_result("b/two")]
    for result in reversed(results):
        write_result(tmp_path, result)
    assert read_results(tmp_path) == results


@pytest.mark.parametrize(
    "damage",
    [
        {"format": 7},
        {"planned": {"name": "guessing"}},
        {"training": {"curve": [], "minutes": 3}},
        {"games": {"Pong": {"scores": [], "steps": []}}},
        {"games": {"NoGame": {"scores": [1], "steps": []}}},
        {"games": {"Pong": [1, 2]}},
        {"surplus": 1},
        {"id": "another"},
    ],
)
def test_a_damaged_result_is_named(tmp_path: Path, damage: dict[str, object]) -> None:
    path = write_result(tmp_path, a_result())
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(DataError, match=r"greedy\.json"):
        read_results(tmp_path)


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run python -m jowa\.suite"):
        read_results(tmp_path / "none")


@pytest.mark.parametrize("id", ["", "/tmp/out", "../out"])
def test_an_id_that_is_no_path_below_the_folder_is_refused(id: str) -> None:
    with pytest.raises(UsageError, match="relative path"):
        a_result(id)
