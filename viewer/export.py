"""What a session leaves behind: an episode that training reads, a decision as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jowa.data.writer import EpisodeWriter
from jowa.errors import UsageError
from jowa.files import atomic_write_text
from jowa.types import Episode
from jowa.viewer.events import Moment, as_json
from jowa.viewer.history import Course
from jowa.viewer.worlds import RealWorld

STICKIES = "viewer_sticky"
"""Attribute of a data set: every probability of sticky actions that episodes kept here were played with."""


def save_episode(course: Course | None, path: Path) -> str:
    """Append the real game's episode, as far as it was played, to the data set in ``path``; what to say of it.

    Raises :class:`UsageError` when nothing has been played.
    """
    if course is None or not isinstance(course.world, RealWorld) or not course.log[: course.step]:
        raise UsageError("nothing has been played yet: let the game run a little first")
    frames, actions, rewards = zip(*course.log[: course.step], strict=True)
    episode = Episode(
        course.world.game, np.stack([frame.array() for frame in frames]), np.array(actions, np.uint8),
        np.clip(np.array(rewards, np.float32), -1, 1), course.ended, "viewer:person" if course.persons else
        "viewer:agent", course.seed, float(sum(rewards)),
    )  # fmt: skip
    with EpisodeWriter.open(path) as writer:
        writer.append(episode)
        stickies = {*writer.attributes.get(STICKIES, ()), course.world.sticky}
        writer.update_attributes({STICKIES: sorted(stickies)})
    return f"{len(actions):,} steps of {course.world.game} were appended to {path}"


def export_moment(moment: Moment | None, path: Path) -> None:
    """Write one decision as JSON, without its pictures and what came before and after it, atomically.

    Raises :class:`UsageError` when there is none.
    """
    if moment is None:
        raise UsageError("there is no decision to export yet: load an agent first")
    known = {name: value for name, value in as_json(moment).items() if name not in ("trace", "recorded")}
    atomic_write_text(path, json.dumps(known, indent=1) + "\n")
