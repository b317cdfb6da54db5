"""Pictures of what an agent imagines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jowa.agent import Agent
from jowa.data.store import EpisodeStore
from jowa.pictures import imagine_episode, rollout_picture, save_picture
from jowa.types import Episode


@pytest.fixture(scope="module")
def agent(finished_run: Path) -> Agent:
    return Agent.load(finished_run / "agent", "cpu")


@pytest.fixture
def episode(sprite_store: Path) -> Episode:
    return EpisodeStore.open(sprite_store).read_episode("Pong", 0)


def test_imagined_frames_follow_the_recorded_actions(agent: Agent, episode: Episode) -> None:
    imagined = imagine_episode(agent, episode, start=5, context=2, steps=2)
    assert imagined.shape == (2, 84, 84) and imagined.dtype == np.uint8
    assert np.array_equal(imagined, imagine_episode(agent, episode, start=5, context=2, steps=2))
    shown = Episode(**{**vars(episode), "frames": episode.frames.copy()})
    shown.frames[6:] = 255  # what comes after the start is not looked at
    assert np.array_equal(imagined, imagine_episode(agent, shown, start=5, context=2, steps=2))


def test_a_rollout_goes_on_beyond_the_models_context(agent: Agent, episode: Episode) -> None:
    steps = agent.model.config.context_steps + 2
    imagined = imagine_episode(agent, episode, start=3, context=1, steps=steps)
    assert imagined.shape == (steps, 84, 84)
    again = imagine_episode(agent, episode, start=3, context=1, steps=steps - 1)
    assert np.array_equal(imagined[:-1], again)


def test_the_picture_holds_a_row_of_pairs_for_each_episode(agent: Agent, episode: Episode, tmp_path: Path) -> None:
    picture = rollout_picture(agent, [(episode, 5), (episode, 8)], context=2, steps=2)
    pixels = np.asarray(picture)
    assert picture.mode == "L" and picture.width > 3 * 168 and picture.height > 4 * 168
    left, top = 92, 6  # the real frame at the start, twice as large
    assert np.array_equal(pixels[top : top + 168 : 2, left : left + 168 : 2], episode.frames[5])
    save_picture(tmp_path / "a" / "picture.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "picture.png")), pixels)


def test_nothing_to_show_is_an_empty_picture(agent: Agent) -> None:
    assert rollout_picture(agent, [], context=2, steps=2).height < 20


def test_a_run_leaves_a_picture(finished_run: Path, sprite_store: Path) -> None:
    picture: Any = Image.open(finished_run / "imagined.png")
    assert picture.height > 4 * 168
