"""python -m jowa.tokenize, and training that picks its tokens up or refuses them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jowa.agent import Agent
from jowa.data.store import EpisodeStore
from jowa.data.tokens import TokenStore, tokens_folder
from jowa.errors import DataError, UsageError
from jowa.tokenize import TokenizeConfig, tokenize
from jowa.train.distributed import Place
from jowa.train.feed import Feed
from jowa.train.loop import Trainer


@pytest.fixture
def store(sprite_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sprite_store, tmp_path / "store"))


@pytest.fixture
def agent_folder(finished_run: Path) -> Path:
    return finished_run / "agent"


def test_the_tokens_are_what_the_agent_sees(store: Path, agent_folder: Path) -> None:
    said = tokenize(TokenizeConfig(agent_folder, store, device="cpu"))
    assert "tokens of 147 frames of Breakout, Pong, Robotank, " in said and "frames/s" in said
    agent, opened = Agent.load(agent_folder, "cpu"), EpisodeStore.open(store)
    tokens = TokenStore.open(tokens_folder(opened, agent.tokenizer.fingerprint()), agent.tokenizer.fingerprint())
    for game in opened.games:
        frames = opened.read_frames(game, 0, opened.num_rows(game))
        found = tokens.rows(opened, game).read(0, len(frames))
        assert np.array_equal(found, agent.encode(frames).numpy())
    assert "all of them were there" in tokenize(TokenizeConfig(agent_folder, store, device="cpu"))


def test_some_games_and_another_folder(store: Path, agent_folder: Path, tmp_path: Path) -> None:
    tokenize(TokenizeConfig(agent_folder, store, games=("Pong",), out=tmp_path / "elsewhere", device="cpu"))
    assert (tmp_path / "elsewhere" / "Pong").is_dir() and not (tmp_path / "elsewhere" / "Breakout").exists()
    assert not (store / "tokens").exists()
    with pytest.raises(UsageError, match="unknown game 'Pnog'"):
        tokenize(TokenizeConfig(agent_folder, store, games=("Pnog",), device="cpu"))


def test_training_picks_up_tokens_that_match_and_refuses_others(
    store: Path, agent_folder: Path, small_config: Any, tmp_path: Path
) -> None:
    alone = Place(0, 1, torch.device("cpu"))
    config = small_config({"data.path": store, "out": tmp_path / "run"})
    tokenizer = Agent.load(agent_folder, "cpu").tokenizer
    folder = tokens_folder(EpisodeStore.open(store), tokenizer.fingerprint())
    own = Feed(config, alone)
    assert own.encode(tokenizer, None).startswith("encoded 98 frames into ")
    tokenize(TokenizeConfig(agent_folder, store, device="cpu"))
    shared = Feed(config, alone)
    assert shared.encode(tokenizer, None) == f"reading tokens from {folder}"
    for step in range(4):
        a, b = own.tokens(step), shared.tokens(step)
        assert a.tokens is not None and b.tokens is not None and a.frames is None
        assert a.tokens.dtype == torch.int64 and torch.equal(a.tokens, b.tokens)

    with torch.no_grad():
        tokenizer.embedding.weight += 0.01
    said = Feed(config, alone).encode(tokenizer, None)
    assert said.startswith("encoded 98 frames") and f"of other tokenizers: {folder.name}" in said
    with pytest.raises(DataError, match=r"were made by tokenizer .*, expected those of"):
        Feed(small_config({"data.path": store, "data.tokens": folder}), alone).encode(tokenizer, None)


def test_a_run_with_a_given_tokenizer(store: Path, agent_folder: Path, small_config: Any, tmp_path: Path) -> None:
    """It trains on the data set's tokens alone: no pixel is read, and the tokenizer stays as it is."""
    tokenize(TokenizeConfig(agent_folder, store, device="cpu"))
    for game in ("Pong", "Breakout"):
        shutil.rmtree(store / game / "frames" / "c")
    config = small_config({"data.path": store, "tokenizer_from": agent_folder, "checkpoint.every": 3})
    alone, seen = Place(0, 1, torch.device("cpu")), []
    trainer = Trainer(config, alone)
    trainer.run(Feed(config, alone), lambda step, metrics: seen.append(sorted(metrics)))
    assert all({"frame", "reward", "end"} <= set(names) and "reconstruction" not in names for names in seen)
    assert ["td" in names for names in seen] == [False] * 4 + [True] * (len(seen) - 4)
    given = Agent.load(agent_folder, "cpu").tokenizer
    assert trainer.tokenizer.fingerprint() == given.fingerprint()
    resumed = Trainer(config, alone)
    assert resumed.resume() and resumed.step == trainer.step
    assert resumed.tokenizer.fingerprint() == given.fingerprint()
    with pytest.raises(UsageError, match=r"has code_dim = 8, this run 9: set --tokenizer.code-dim"):
        Trainer(small_config({"tokenizer_from": agent_folder, "tokenizer.code_dim": 9}), alone)


def test_from_the_command_line(store: Path, agent_folder: Path, command: Any) -> None:
    done = command("jowa.tokenize", str(agent_folder), str(store), "--device", "cpu", "--games", "Pong")
    assert done.returncode == 0 and "tokens of 49 frames of Pong" in done.stdout
    done = command("jowa.tokenize", str(agent_folder), str(store / "nowhere"))
    assert done.returncode == 1 and done.stderr.startswith("error: no data set at ") and done.stderr.count("\n") == 1
