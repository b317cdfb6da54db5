"""Rivals at play: legal actions alone, slots that never influence one another, folders that are checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jowa.config import TokenizerConfig
from jowa.errors import CheckpointError, UsageError
from jowa.evaluate import Protocol, play, rival_player
from jowa.games import get_game
from jowa.rivals import KINDS, ConvConfig, Playing, Rival, SequenceConfig, is_rival
from jowa.rivals.rival import make_network
from jowa.tokenizer import Tokenizer

GAMES = ["Pong", "Breakout", "Freeway"]
SHORT = Protocol("short", sticky=0.25, max_steps=12, random_action=0.0)


def make(kind: Any, playing: Playing | None = None) -> Rival:
    """Untrained, with clear preferences, illegal actions among them."""
    torch.manual_seed(3)
    tokenizer = None
    if kind != "scaled-ql":
        tokenizer = Tokenizer(TokenizerConfig(encoder="local", vocab_size=32, code_dim=8, channels=16))
        torch.nn.init.normal_(tokenizer.embedding.weight)
    conv = ConvConfig(channels=4, features=16, q_width=8)
    model = make_network(kind, conv if tokenizer is None else SequenceConfig(1, 2, 16), tokenizer)
    for name, parameter in model.named_parameters():
        if "head" in name:
            parameter.data += torch.randn(parameter.shape)
    return Rival(kind, "S", model, tokenizer, {game: get_game(game).task_id for game in GAMES}, None, playing)


def frames_of(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, 84, 84), dtype=np.uint8)


def plays(rival: Rival, slots: list[int], steps: int = 5) -> dict[int, list[int]]:
    """What each slot does when only ``slots`` are played; a slot sees the same frames whoever else is there."""
    player = rival.player([GAMES[slot % 3] for slot in range(6)], [np.random.default_rng(slot) for slot in range(6)])
    found: dict[int, list[int]] = {slot: [] for slot in slots}
    for step in range(steps):
        now = [slot for slot in slots if slot != 4 or step > 1]  # slot 4 begins later
        if not now:
            continue
        actions = player.decide(now, frames_of(6, step)[now])
        player.took(now, actions)
        player.earned(now, np.full(len(now), 7.0 * (step % 3 - 1)))
        for slot, action in zip(now, actions.tolist(), strict=True):
            found[slot].append(action)
    return found


@pytest.mark.parametrize("choice", ["likely", "sampled"])
@pytest.mark.parametrize("kind", KINDS)
def test_actions_are_legal_and_slots_do_not_influence_one_another(kind: Any, choice: Any) -> None:
    rival = make(kind, Playing(context=2, choice=choice))
    together = plays(rival, [0, 1, 2, 3, 4, 5])
    for slot, actions in together.items():
        assert set(actions) <= set(get_game(GAMES[slot % 3]).legal_actions)
        assert plays(rival, [slot])[slot] == actions
    assert len({action for actions in together.values() for action in actions}) > 2


def test_memory_is_what_it_says() -> None:
    rival = make("mgdt", Playing(context=2))
    player = rival.player(["Pong"], [np.random.default_rng(0)])
    seen = []
    for step in range(3):
        (action,) = player.decide([0], frames_of(1, step))
        player.took([0], np.array([action]))
        player.earned([0], np.array([-5.0]))
        seen.append((int(action), player._memories[0].returns[-1]))
    frame = frames_of(1, 3)
    player._memories[0].seen.append(rival.tokenizer.encode(torch.from_numpy(frame))[0])  # type: ignore[union-attr]
    player._memories[0].returns.append(0)
    tokens, actions, _, returns, rewards = player._remembered([0], torch.tensor([39]))
    assert tokens.shape == (1, 2, 36)
    assert actions.tolist() == [[seen[2][0], 0]]
    assert returns.tolist() == [[seen[2][1], 0]]
    assert rewards.tolist() == [[0, 0]], "the sign -1 is token 0, as what is not known yet"


def test_a_memory_that_was_not_trained_is_refused() -> None:
    with pytest.raises(UsageError, match="context is 3, expected 1 to 2"):
        make("mtbc").player(["Pong"], [np.random.default_rng(0)], Playing(context=3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_rival_plays_alike(kind: Any, tmp_path: Path) -> None:
    rival = make(kind, Playing(choice="sampled", kappa=3.0))
    rival.save(tmp_path)
    again = Rival.load(tmp_path, "cpu")
    assert (again.kind, again.size, again.tasks, again.playing) == (kind, "S", rival.tasks, rival.playing)
    assert is_rival(tmp_path) and (tmp_path / "tokenizer.safetensors").exists() == (kind != "scaled-ql")
    assert plays(again, [0, 1, 2]) == plays(rival, [0, 1, 2])


def test_episodes_follow_from_the_seed_whatever_the_batch() -> None:
    rival = make("mgdt", Playing(choice="sampled"))
    one = play(rival_player(rival, 5), ["Pong", "Breakout"], 2, SHORT, seed=5, batch=1)
    assert one == play(rival_player(rival, 5), ["Pong", "Breakout"], 2, SHORT, seed=5)
    assert [played.steps for played in one] == [12] * 4


DAMAGES: dict[str, tuple[Any, str]] = {
    "format": (lambda config: config | {"format": 9}, "is of format 9 and kind 'mtbc'"),
    "kind": (lambda config: config | {"rival": "dqn"}, "and kind 'dqn', this version reads format 1 and mtbc"),
    "lacks": (lambda config: {k: v for k, v in config.items() if k != "tasks"}, "lacks 'tasks'"),
    "width": (lambda config: config | {"model": config["model"] | {"width": 32}}, "has shape"),
    "key": (lambda config: config | {"model": config["model"] | {"wide": 32}}, "unknown key 'wide'"),
    "heads": (lambda config: config | {"model": config["model"] | {"heads": 3}}, "impossible networks"),
    "tokenizer": (lambda config: config | {"tokenizer": None}, "mtbc with tokenizer None"),
    "tasks": (lambda config: config | {"tasks": {"Pong": 60}}, "task id of Pong is 60"),
}


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    make("mtbc").save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for damage, said in DAMAGES.values():
        (tmp_path / "config.json").write_text(json.dumps(damage(config)))
        with pytest.raises(CheckpointError, match=said):
            Rival.load(tmp_path, "cpu")
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.manual_seed(9)
    other = make("mgdt")
    assert other.tokenizer is not None
    torch.nn.init.normal_(other.tokenizer.embedding.weight)
    other.save(tmp_path / "other")
    (tmp_path / "tokenizer.safetensors").write_bytes((tmp_path / "other" / "tokenizer.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="tokenizer and the model of different rivals"):
        Rival.load(tmp_path, "cpu")
    with pytest.raises(CheckpointError, match="is not a rival: it has no"):
        Rival.load(tmp_path / "nowhere", "cpu")
