"""Short films of an agent's play, and what it imagines beside what then happened."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jowa.agent import Agent
from jowa.config import FRAME_SIZE
from jowa.env.atari import AtariEnv, AtariOptions
from jowa.evaluate.play import Protocol
from jowa.pictures import imagine_episode
from jowa.report.document import Picture
from jowa.types import Episode

STEPS_A_SECOND = 15
"""Agent steps of a console that runs at its own speed, 60 frames a second."""
TELEVISION = 4 / 3
"""Width by height of the picture on a television, whose pixels were not square."""
GAP = 4
STRIP = (1, 2, 3, 4, 6, 8, 12, 16)
"""Steps ahead that are shown of an imagined rollout."""


@dataclass(frozen=True)
class Clip:
    """The beginning of an episode that an agent played; T steps."""

    episode: Episode
    screens: NDArray[np.uint8]
    """uint8 (T, height, width, 3): what the console showed, at each step."""


def play_clip(agent: Agent, game: str, protocol: Protocol, seed: int = 0, seconds: float = 10.0) -> Clip:
    """The first ``seconds`` of the console's time, at most an episode, as ``agent`` plays by its own settings."""
    env = AtariEnv(game, AtariOptions(protocol.sticky, protocol.max_steps))
    player = agent.player([game], agent.planning.planner, agent.planning.context)
    frame, _ = env.reset(seed=seed)
    frames: list[NDArray[np.uint8]] = []
    screens: list[NDArray[np.uint8]] = []
    actions: list[int] = []
    rewards: list[float] = []
    over = ended = False
    while not over and len(frames) < seconds * STEPS_A_SECOND:
        chosen = player.decide([0], frame[None]).actions
        player.took([0], chosen)
        frames.append(frame)
        screens.append(env.screen())
        actions.append(int(chosen[0]))
        frame, reward, ended, cut_off, _ = env.step(actions[-1])
        rewards.append(reward)
        over = ended or cut_off
    clipped = np.sign(np.array(rewards, np.float32))
    episode = Episode(
        game, np.stack(frames), np.array(actions, np.uint8), clipped, ended, "agent", seed, float(sum(rewards))
    )
    return Clip(episode, np.stack(screens))


def film(clip: Clip) -> Picture:
    """``clip`` as an animated WebP at the console's own speed; without loss, which flat colours make small."""
    first, *others = [Image.fromarray(screen) for screen in clip.screens]
    file = io.BytesIO()
    first.save(
        file, format="WEBP", save_all=True, append_images=others, lossless=True, method=4, loop=0,
        duration=round(1000 / STEPS_A_SECOND),
    )  # fmt: skip
    game, count = clip.episode.game, len(clip.episode)
    height = clip.screens.shape[1]
    earned = f"{clip.episode.score:,g}".replace("-", "−")
    title = (
        f"{game}: {earned} {'point' if abs(clip.episode.score) == 1 else 'points'} in {count / STEPS_A_SECOND:.0f} s"
    )
    return Picture(
        file.getvalue(), "webp", title, f"film of the agent playing {game}", round(height * TELEVISION), height
    )


def strip(agent: Agent, clip: Clip, ahead: Sequence[int] = STRIP) -> Picture | None:
    """Real frames above, imagined ones below; None where the clip is too short.

    From the middle of the clip, whatever happens there, the model takes the actions that the agent then took; at the
    left is the last frame that it was shown, real and as its tokenizer sees it.
    """
    episode, start = clip.episode, len(clip.episode) // 2
    ahead = [step for step in ahead if start + step < len(episode)]
    context = min(agent.planning.context, agent.model.config.context_steps - 1, start + 1)
    if not ahead or context < 1:
        return None
    imagined = imagine_episode(agent, episode, start, context, ahead[-1])
    seen = agent.decode(agent.encode(episode.frames[start]).cpu().numpy())
    above = [episode.frames[start], *(episode.frames[start + step] for step in ahead)]
    below = [seen, *(imagined[step - 1] for step in ahead)]
    sheet = _sheet([above, below])
    file = io.BytesIO()
    sheet.save(file, format="PNG", optimize=True)
    title = f"{episode.game}, 0, {', '.join(map(str, ahead))} steps ahead"
    alt = f"{episode.game}: real frames above, imagined ones below, 0 to {ahead[-1]} steps ahead"
    return Picture(file.getvalue(), "png", title, alt, *sheet.size)


def _sheet(rows: Sequence[Sequence[NDArray[np.uint8]]]) -> Image.Image:
    """Frames uint8 (84, 84) in rows, with gaps that let the page through."""
    cell = FRAME_SIZE + GAP
    size = (cell * len(rows[0]) - GAP, cell * len(rows) - GAP)
    sheet = Image.new("LA", size, (0, 0))
    for row, frames in enumerate(rows):
        for column, frame in enumerate(frames):
            opaque = Image.merge("LA", (Image.fromarray(frame), Image.new("L", frame.shape[::-1], 255)))
            sheet.paste(opaque, (column * cell, row * cell))
    return sheet
