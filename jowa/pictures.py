"""Imagined and real frames side by side, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jowa.agent import Agent
from jowa.config import FRAME_SIZE
from jowa.files import atomic_write
from jowa.games import ACTIONS
from jowa.planner import Context, Imagination
from jowa.types import Episode

SCALE = 2
GAP = 6
LABEL_WIDTH = 92
HEADER = 18


def imagine_episode(agent: Agent, episode: Episode, start: int, context: int, steps: int) -> NDArray[np.uint8]:
    """What the agent imagines when it takes the recorded actions: frames uint8 (steps, 84, 84).

    It sees the ``context`` frames up to and including ``start`` and the actions between them, then is told
    the recorded actions and shown nothing more.  Each step is imagined from the last ``context`` frames, soon
    imagined ones themselves, so a rollout may be longer than the model's context, of which ``context`` must leave a
    step for what is imagined.
    """
    if not 1 <= context < agent.model.config.context_steps:
        raise ValueError(f"context is {context}, expected 1 to {agent.model.config.context_steps - 1} steps")
    first = start - context + 1
    device = agent.device
    memory = agent.encode(episode.frames[first : start + 1])[None]
    actions = torch.from_numpy(episode.actions[first : start + steps].astype(np.int64)).to(device)[None]
    legal = torch.ones(1, agent.model.config.num_actions, dtype=torch.bool, device=device)
    seen, task = torch.tensor([context], device=device), torch.tensor([agent.task_id(episode.game)], device=device)
    imagination = Imagination(agent.model, agent.autocast)
    imagined = []
    for step in range(steps):
        recent = actions[:, step : step + context]
        roots = imagination.encode(Context(memory, recent, seen, task, legal))
        latest = recent[:, -1:]
        tokens = imagination.step(roots, None, torch.zeros_like(latest), latest).tokens
        imagined.append(agent.tokenizer.decode(tokens[0, 0]))
        memory = torch.cat([memory[:, 1:], tokens.view(1, 1, -1)], dim=1)
    return (torch.stack(imagined) * 255).round().byte().cpu().numpy()


def rollout_picture(agent: Agent, episodes: Sequence[tuple[Episode, int]], context: int, steps: int) -> Image.Image:
    """For each (episode, start): the real frames above, the imagined ones below, the actions between."""
    cell = FRAME_SIZE * SCALE
    row_height = 2 * cell + HEADER + 3 * GAP
    width = LABEL_WIDTH + (steps + 1) * (cell + GAP)
    sheet = Image.new("L", (width, len(episodes) * row_height + GAP), 255)
    draw = ImageDraw.Draw(sheet)
    for row, (episode, start) in enumerate(episodes):
        top = row * row_height + GAP
        imagined = imagine_episode(agent, episode, start, context, steps)
        seen = (agent.tokenizer.decode(agent.encode(episode.frames[start])) * 255).round().byte().cpu().numpy()
        draw.text((4, top + cell // 2), f"{episode.game}\nreal", fill=0)
        draw.text((4, top + cell + HEADER + GAP + cell // 2), "imagined", fill=0)
        for step in range(steps + 1):
            left = LABEL_WIDTH + step * (cell + GAP)
            _paste(sheet, episode.frames[start + step], left, top)
            _paste(sheet, seen if step == 0 else imagined[step - 1], left, top + cell + HEADER)
            caption = "reconstructed" if step == 0 else f"after {ACTIONS[episode.actions[start + step - 1]]}"
            draw.text((left, top + cell + 3), caption, fill=0)
    return sheet


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG atomically."""
    atomic_write(path, lambda temporary: picture.save(temporary, format="PNG"))


def _paste(sheet: Image.Image, frame: NDArray[np.uint8], left: int, top: int) -> None:
    size = (FRAME_SIZE * SCALE, FRAME_SIZE * SCALE)
    sheet.paste(Image.fromarray(frame).resize(size, Image.Resampling.NEAREST), (left, top))
