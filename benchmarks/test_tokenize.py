"""Encoding a recorded episode: only the patches that change, against every patch of every frame."""

from __future__ import annotations

import pytest
import torch

from jowa.config import LOCAL_TOKENIZER
from jowa.data.record import play_episode
from jowa.env.atari import AtariOptions
from jowa.tokenizer import Tokenizer


@pytest.mark.parametrize("game", ["Pong", "Boxing"])
def test_encode_sequence(compare, game: str) -> None:
    frames = torch.from_numpy(play_episode(game, 0, "expert:0.2", 0, AtariOptions(max_steps=300)).frames)
    torch.manual_seed(0)
    tokenizer = Tokenizer(LOCAL_TOKENIZER).eval()
    with torch.no_grad():
        tokenizer.embedding.weight.normal_(std=0.5)
    assert torch.equal(tokenizer.encode_sequence(frames), tokenizer.encode(frames))
    ratio = compare(
        "encoding a recorded episode", f"{game}, {len(frames)} frames, tiny tokenizer",
        lambda: tokenizer.encode_sequence(frames), lambda: tokenizer.encode(frames), runs=5,
    )  # fmt: skip
    assert ratio > 1
