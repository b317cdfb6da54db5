"""The command as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jowa.diagnose.__main__ import DiagnoseConfig, run
from jowa.errors import DataError, UsageError

SMALL: dict[str, Any] = {
    "episodes": 1.0, "moments": 12, "steps": 3, "rollouts": 1, "rollout_steps": 3, "repeats": 1, "play": 8,
    "device": "cpu",
}  # fmt: skip


def without_when(path: Path) -> dict[str, Any]:
    document = json.loads((path / "diagnosis.json").read_text())
    del document["date"], document["settings"]["out"]
    return document


def test_it_measures_writes_and_tells(command: Any, agent_folder: Path, sprite_store: Path, tmp_path: Path) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    options += ["--games", "Pong"]
    done = command("jowa.diagnose", agent_folder, sprite_store, *options, "--out", tmp_path / "d")
    assert done.returncode == 0, done.stderr
    for said in ("imagined frames", "terms of the bound", "real gain", "data were played by others", "diagnosis.json"):
        assert said in done.stdout
    document = json.loads((tmp_path / "d" / "diagnosis.json").read_text())
    assert list(document["games"]) == ["Pong"] and document["settings"]["moments"] == 12
    pong = document["games"]["Pong"]
    assert [row["k"] for row in pong["imagination"]] == [1, 2, 3] and pong["episodes"] == [0, 1, 2]
    assert set(pong["critic"]["bias"]) == {"value", "low", "high", "n"} and pong["real"]["decisions"] == 8
    assert pong["imagination"][0]["end_recall"]["n"] == 2, "two of the three episodes ended"
    pictures = sorted(path.name for path in (tmp_path / "d").glob("*.png"))
    assert pictures == ["critic-Pong.png", "events-Pong.png", "imagination-Pong.png", "planning.png"]
    for name in pictures:
        with Image.open(tmp_path / "d" / name) as picture:
            assert picture.size[0] == 1280 and len(set(picture.convert("L").tobytes())) > 20
    assert not list((tmp_path / "d").glob(".*")), "nothing half written is left"

    again = DiagnoseConfig(agent_folder, sprite_store, games=("Pong",), out=tmp_path / "again", **SMALL)
    run(again)
    assert without_when(tmp_path / "again") == without_when(tmp_path / "d"), "a function of the seed"
    for name in pictures:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "d" / name).read_bytes()


@pytest.mark.parametrize("planner", ["none", "mcts"])
def test_other_planners(agent_folder: Path, sprite_store: Path, tmp_path: Path, planner: Any) -> None:
    changes = {**SMALL, "rollouts": 0, "games": ("Pong",), "planner": planner, "simulations": 5}
    for earlier in ("critic-Freeway.png", "planning.png"):
        (tmp_path / earlier).write_bytes(b"")
    run(DiagnoseConfig(agent_folder, sprite_store, out=tmp_path, **changes))
    found = without_when(tmp_path)["games"]["Pong"]
    assert found["real"] is None and (found["planning"] is None) == (planner == "none")
    assert (tmp_path / "planning.png").exists() == (planner == "mcts")
    assert not (tmp_path / "critic-Freeway.png").exists(), "that of an earlier diagnosis"


def test_data_without_rewards_or_ends(
    agent_folder: Path, make_sprite_episode: Callable[..., Any], tmp_path: Path
) -> None:
    import dataclasses

    from jowa.data.writer import EpisodeWriter

    episode = make_sprite_episode("Pong", 9, 0, terminal=False)
    with EpisodeWriter.open(tmp_path / "store") as writer:
        writer.append(dataclasses.replace(episode, rewards=episode.rewards * 0))
    run(DiagnoseConfig(agent_folder, tmp_path / "store", out=tmp_path / "d", **{**SMALL, "rollouts": 0}))
    found = without_when(tmp_path / "d")["games"]["Pong"]
    assert found["critic"]["n"] == 0 and found["critic"]["hidden"] == 9 and found["extra_moments"] == 0
    assert found["imagination"][0]["reward_recall"] == {"value": None, "low": None, "high": None, "n": 0}
    assert found["imagination"][0]["tokens"]["value"] is not None and found["bound"][0]["critic"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moments": 0}, "moments is 0, expected at least 1"),
        ({"rollout_steps": 0}, "set --rollout-steps"),
        ({"episodes": 0.0}, "expected a share above 0"),
        ({"episodes": 1.5}, "expected a share above 0"),
        ({"games": ("Pong", "Pong")}, "name each once"),
        ({"games": ("Pnog",)}, "did you mean Pong"),
        ({"horizon": 4}, "expected at most 3"),
        ({"protocol": "mine"}, "protocol"),
    ],
)
def test_wrong_options_are_named(
    agent_folder: Path, sprite_store: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(DiagnoseConfig(agent_folder, sprite_store, out=tmp_path, **{**SMALL, **changes}))


def test_wrong_data_is_named(command: Any, agent_folder: Path, sprite_store: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no episode of Freeway"):
        run(DiagnoseConfig(agent_folder, sprite_store, games=("Freeway",), out=tmp_path))
    done = command("jowa.diagnose", agent_folder, tmp_path / "nowhere")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    done = command("jowa.diagnose", agent_folder, sprite_store, "--momments", "3")
    assert done.returncode == 2 and "did you mean --moments?" in done.stderr
    done = command("jowa.diagnose", agent_folder, sprite_store, "--out", sprite_store / "zarr.json")
    assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1, done.stderr
