"""The table of games against ALE itself, and the helpers that read it."""

from __future__ import annotations

import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms

from jowa.errors import UsageError
from jowa.games import (
    ACTIONS,
    BORROWED_TASK,
    GAMES,
    NUM_ACTIONS,
    PRETRAINING_GAMES,
    get_game,
    normalised_score,
)

ALEInterface.setLoggerMode(LoggerMode.Error)


def test_sixty_games_in_alphabetical_order() -> None:
    names = [game.name for game in GAMES]
    assert len(names) == len(set(names)) == 60
    assert names == sorted(names)
    assert [game.task_id for game in GAMES] == list(range(60))


def test_action_names_are_ales() -> None:
    ale = ALEInterface()
    ale.loadROM(roms.get_rom_path("pong"))
    assert tuple(action.name for action in ale.getLegalActionSet()) == ACTIONS
    assert [action.value for action in ale.getLegalActionSet()] == list(range(NUM_ACTIONS))


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)
def test_mask_is_ales_minimal_action_set(game) -> None:
    ale = ALEInterface()
    ale.loadROM(roms.get_rom_path(game.rom))
    assert game.legal_actions == tuple(sorted(action.value for action in ale.getMinimalActionSet()))
    assert np.flatnonzero(game.action_mask).tolist() == list(game.legal_actions)
    assert game.action_mask[0], "doing nothing is legal everywhere"


def test_pretraining_and_held_out_games() -> None:
    assert len(PRETRAINING_GAMES) == 15
    assert all(get_game(name).scores is not None for name in PRETRAINING_GAMES)
    assert not set(BORROWED_TASK) & set(PRETRAINING_GAMES)
    assert set(BORROWED_TASK.values()) - {"Pong"} <= set(PRETRAINING_GAMES)


def test_normalised_scores() -> None:
    pong = get_game("Pong")
    assert normalised_score(pong, -20.7) == 0.0
    assert normalised_score(pong, 14.6) == pytest.approx(1.0)
    assert normalised_score(pong, 16.6, "dqn") == pytest.approx(1.0)
    assert normalised_score(get_game("Breakout"), 16.1) == pytest.approx(0.5)
    with pytest.raises(UsageError, match="AirRaid has no reference scores"):
        normalised_score(get_game("AirRaid"), 1.0)
    with pytest.raises(UsageError, match="unknown reference 'dnq'"):
        normalised_score(pong, 1.0, "dnq")


def test_unknown_game_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown game 'Pnog': did you mean Pong"):
        get_game("Pnog")
