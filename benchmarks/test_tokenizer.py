"""What the tokenizer keeps of what moves, after equal time; and the layout of the published one's convolutions.

``JOWA_TOKENIZER_SECONDS`` (default 30) is the CPU time of training for each way.  docs/tokenizer.md holds longer runs,
by ``python -m benchmarks.tokenizers``, which this calls.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from jowa.config import TokenizerConfig
from jowa.data.record import RecordConfig, record
from jowa.tokenizer import Tokenizer, published


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two games whose ball is a few pixels; of each four episodes or more, the last two of which are held out."""
    folder = tmp_path_factory.mktemp("tokenizers") / "store"
    record(RecordConfig(out=folder, games=("Breakout", "Pong"), steps=4_000, max_steps=1_000, workers=1))
    return folder


@pytest.mark.timeout(3600)
def test_weight_on_motion_finds_the_ball(compare, store: Path, tmp_path: Path) -> None:
    from benchmarks.tokenizers import Options, run

    seconds = float(os.environ.get("JOWA_TOKENIZER_SECONDS", "30"))
    ways = ("l1", "motion", "motion, ema")
    rows = run(Options(store, tmp_path / "rows.json", ways, seconds))
    balls = {}
    for row in rows:
        found = row["games"].values()
        balls[row["variant"]] = sum(game["ball_recall"] for game in found) / len(found)
        compare.note(
            "what a tokenizer keeps", f"{row['variant']}, tiny sizes, Breakout and Pong, {seconds:g} CPU s",
            steps=row["steps"], ball_recall=balls[row["variant"]],
            moving_recall=sum(game["moving_recall"] for game in found) / len(found),
        )  # fmt: skip
    assert balls["motion"] > 1.3 * balls["l1"]


@pytest.mark.parametrize(("channels", "count"), [(16, 16), (64, 4)])
def test_channels_last(compare, monkeypatch: pytest.MonkeyPatch, channels: int, count: int) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig("published", 512, 64, channels, z_channels=64))
    frames = torch.randint(0, 256, (count, 84, 84), dtype=torch.uint8)
    changed = published._channels_last

    def ours(step: bool, layout=changed) -> None:
        monkeypatch.setattr(published, "_channels_last", layout)
        if step:
            tokenizer(frames).total.backward()
        else:
            tokenizer.encode(frames)

    for step in (False, True):
        what = "training step" if step else "encoding"
        ratio = compare(
            f"{what} of the published tokenizer, channels last against first", f"{channels} channels, {count} frames",
            lambda step=step: ours(step), lambda step=step: ours(step, lambda x: x), runs=7,
        )  # fmt: skip
        assert ratio > 0.9
