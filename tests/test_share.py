"""From a training run to an agent for others, with a card that says what the run knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jowa.agent import Agent
from jowa.errors import CheckpointError, UsageError
from jowa.share import ShareConfig, share


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run, with scores as a longer one would have left them."""
    copy = Path(shutil.copytree(finished_run, tmp_path / "run"))
    row = {"game": "Pong", "scores": [1.0, 3.0], "mean": 2.0, "low": 0.5, "high": 3.5, "hns": None, "dns": None}
    rows = {"random": [row | {"mean": -20.0}], "agent": [row]}
    settings = {"protocol": "sticky", "max_steps": 3000}
    (copy / "results.json").write_text(json.dumps({"settings": settings, "device": "a cpu", "step": 1, "rows": rows}))
    return copy


def test_the_card_of_a_run(run: Path, tmp_path: Path) -> None:
    (said,) = share(ShareConfig(run, out=tmp_path / "out"))
    assert said.startswith(f"written to {tmp_path / 'out'}: ") and said.endswith("MiB")
    card = (tmp_path / "out" / "README.md").read_text()
    steps = json.loads((run / "config.json").read_text())["recorded_steps"]
    for game, count in steps.items():
        assert f"- {game}: {count:,} agent steps" in card
    assert "Preset `tiny`" in card and "Scored on a cpu." in card
    assert "| Pong | agent | sticky, at most 3,000 steps | 2.0 | [0.5, 3.5] | 2 |" in card
    assert "| Pong | random |" in card
    assert "mean score, agent, sticky" in card and "mean score, random" not in card, "the hub's index is the agent's"
    assert Agent.load(tmp_path / "out", "cpu").tasks == Agent.load(run / "agent", "cpu").tasks


def test_the_card_says_each_games_own_width(run: Path, tmp_path: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    (row,) = results["rows"]["agent"]
    results["rows"]["agent + beam search"] = [row, row | {"game": "Seaquest"}, row | {"game": "Boxing"}]
    results["settings"] |= {"width": 4, "horizon": 2}
    results["planning"] = {"Pong": {"width": 2, "context": 3}, "Seaquest": {"width": 3, "context": 1}}
    (run / "results.json").write_text(json.dumps(results))
    share(ShareConfig(run, out=tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    for game, width in (("Pong", 2), ("Seaquest", 3), ("Boxing", 4)):
        assert f"| {game} | agent, beam search, width {width}, horizon 2 |" in card


def test_what_evaluate_left_comes_first(run: Path, tmp_path: Path) -> None:
    protocol = {"name": "published", "sticky": 0.0, "max_steps": 108_000, "random_action": 0.001}
    planner = {"name": "beam", "width": 2, "horizon": 1, "simulations": None}
    row = {"game": "Pong", "scores": [5.0], "mean": 5.0, "low": 5.0, "high": 5.0}
    document = {"settings": {"planner": planner, "protocol": protocol, "width": {"Pong": 4}}, "games": [row]}
    document["settings"]["context"] = {"Pong": 2}
    (run / "agent" / "evaluation-beam-published.json").write_text(json.dumps(document))
    share(ShareConfig(run / "agent", out=tmp_path / "out", data="what I had", compute="one day", license="cc0-1.0"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "| Pong | beam search, width 4, horizon 1, a step of memory | published, at most 108,000 steps | 5.0 |  | 1 |"
        in card
    )
    assert "what I had" in card and "one day" in card and 'license: "cc0-1.0"' in card and "| sticky" not in card


def test_half_the_bytes(run: Path, tmp_path: Path) -> None:
    share(ShareConfig(run, out=tmp_path / "whole"))
    share(ShareConfig(run, out=tmp_path / "half", half=True))
    sizes = [sum(p.stat().st_size for p in (tmp_path / name).glob("*.safetensors")) for name in ("half", "whole")]
    assert 0.45 < sizes[0] / sizes[1] < 0.6


def test_mistakes(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name a folder with --out, or owner/name on the hub with --to"):
        share(ShareConfig(run))
    with pytest.raises(UsageError, match=r"--out is the folder .* of the agent itself"):
        share(ShareConfig(run, out=run / "agent"))
    (run / "results.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"results\.json is not valid JSON"):
        share(ShareConfig(run, out=tmp_path / "out"))
