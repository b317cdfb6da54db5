"""Runs whose tokenizer is clusters of patches, found before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jowa.agent import Agent
from jowa.config import TokenizerConfig
from jowa.data.store import EpisodeStore
from jowa.model import carry_over, code_embeddings
from jowa.tokenizer import Tokenizer
from jowa.tokenizer.patches import PIXELS
from jowa.train.config import TrainConfig
from jowa.train.loop import Trainer

PATCHES = {"tokenizer.encoder": "patches", "tokenizer.code_dim": PIXELS}


@pytest.fixture
def store(sprite_store: Path) -> EpisodeStore:
    return EpisodeStore.open(sprite_store)


def test_a_run_finds_its_codes_before_the_first_step(
    small_config: Callable[..., TrainConfig], run_trainer: Callable[..., Trainer], store: EpisodeStore
) -> None:
    tokens = []
    config = small_config(PATCHES)
    trained = run_trainer(config, lambda trainer, step, metrics: tokens.append(trainer.tokenizer.fingerprint()))
    assert len(set(tokens)) == 1 and not config.trains_tokenizer(1) and trained.tokenizer_part is None
    seen = torch.from_numpy(store.read_episode("Pong", 0).frames)
    decoded = trained.tokenizer.decode(trained.tokenizer.encode(seen)).mul(255)
    untrained = Tokenizer(TokenizerConfig(encoder="patches", vocab_size=32, code_dim=PIXELS))
    blank = untrained.decode(untrained.encode(seen)).mul(255)
    assert (decoded - seen).abs().mean() < 0.2 * (blank - seen).abs().mean()


def test_a_stopped_run_goes_on_with_the_same_codes(
    small_config: Callable[..., TrainConfig], run_trainer: Callable[..., Trainer], assert_same_state: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    class Enough(Exception):
        pass

    def stop(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        if step == 3:
            raise Enough

    whole = run_trainer(small_config(PATCHES | {"out": tmp_path / "whole"}))
    with pytest.raises(Enough):
        run_trainer(small_config(PATCHES), stop)
    resumed = run_trainer(small_config(PATCHES))
    assert_same_state(whole.model.state_dict(), resumed.model.state_dict())
    assert_same_state(whole.tokenizer.state_dict(), resumed.tokenizer.state_dict())


def test_fine_tuning_keeps_the_codes_that_the_new_game_uses(
    small_config: Callable[..., TrainConfig], run_trainer: Callable[..., Trainer], store: EpisodeStore, tmp_path: Path
) -> None:
    many = PATCHES | {"tokenizer.vocab_size": 256, "model.vocab_size": 256}
    before = run_trainer(small_config(many | {"out": tmp_path / "before"})).agent()
    before.save(tmp_path / "agent")
    changes = many | {"start_from": tmp_path / "agent", "stage1.steps": 0, "data.games": ("Robotank",)}
    after = run_trainer(small_config(changes | {"stage2.train_tokenizer": True})).tokenizer
    seen = torch.from_numpy(store.read_episode("Robotank", 0).frames)
    used = before.tokenizer.encode(seen).unique()
    assert torch.equal(after.embedding.weight[used], before.tokenizer.embedding.weight[used])
    assert not torch.equal(after.embedding.weight, before.tokenizer.embedding.weight)
    frozen = run_trainer(small_config(changes | {"out": tmp_path / "frozen"})).tokenizer
    assert frozen.fingerprint() == Agent.load(tmp_path / "agent", "cpu").tokenizer.fingerprint()


def test_what_a_model_knows_of_patches_goes_with_them(
    small_config: Callable[..., TrainConfig], run_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """The embedding and the logits of codes that moved follow from the patches that they now stand for."""
    many = PATCHES | {"tokenizer.vocab_size": 256, "model.vocab_size": 256}
    before = run_trainer(small_config(many | {"out": tmp_path / "before"})).agent()
    before.save(tmp_path / "agent")
    changes = many | {
        "start_from": tmp_path / "agent", "stage1.steps": 0, "data.games": ("Robotank",), "stage2.steps": 1,
        "stage2.train_tokenizer": True, "stage2.learning_rate": 1e-12, "optimizer.weight_decay": 0.0,
    }  # fmt: skip
    after = run_trainer(small_config(changes))
    codes, old = after.tokenizer.embedding.weight, before.tokenizer.embedding.weight
    moved = (codes != old).any(1)
    assert moved.any() and not moved.all()
    for name in ("frame_embedding.weight", "frame_head.2.weight"):
        now, then = after.model.state_dict()[name], before.model.state_dict()[name]
        torch.testing.assert_close(now, carry_over(then, old, codes), atol=1e-6, rtol=1e-5)
        assert not torch.allclose(now[moved], then[moved]) and torch.allclose(now[~moved], then[~moved], atol=1e-6)
    scratch = run_trainer(small_config(changes | {"from_scratch": True, "out": tmp_path / "scratch"}))
    table, codes = scratch.model.frame_embedding.weight, scratch.tokenizer.embedding.weight
    wanted = code_embeddings(codes, table, torch.Generator().manual_seed(scratch.config.seed))
    assert torch.corrcoef(torch.stack([table.flatten(), wanted.flatten()]))[0, 1] > 0.999


def test_two_processes_find_the_same_codes_as_one(
    small_config: Callable[..., TrainConfig], train_on: Callable[..., Any], tmp_path: Path
) -> None:
    found = {}
    for world in (1, 2):
        config = small_config(PATCHES | {"parallel.microbatches": 2, "out": tmp_path / str(world)})
        found[world] = [step["frame"] for step in train_on(config, world)[0]["losses"] if step]
    np.testing.assert_allclose(found[1], found[2], rtol=1e-4)
