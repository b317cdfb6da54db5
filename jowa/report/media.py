"""The pictures of the report: made by an agent, or found in a folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from jowa.agent import Agent
from jowa.errors import DataError, UsageError
from jowa.evaluate.play import get_protocol
from jowa.planner.plan import PlannerConfig
from jowa.progress import steps_progress
from jowa.report.clips import film, play_clip, strip
from jowa.report.document import Block, Gallery, Missing, Picture, Section

SUFFIXES = ("png", "gif", "webp")
MOST_BYTES = 8 << 20
"""Of all pictures together: the page holds them, a third larger, as text."""
FILL = "python -m jowa.report RESULTS --agent FOLDER"


def made_pictures(name: Path, games: Sequence[str], seconds: float, seed: int) -> tuple[Gallery, ...]:
    """Films and imagined rollouts of the agent ``name``, in ``games`` (none: those that it was trained on)."""
    agent = Agent.from_pretrained(name, device="cpu")
    chosen = list(games) or list(agent.tasks)
    if not chosen:
        raise UsageError(f"{name} names no games that it was trained on: choose some with --games")
    protocol = get_protocol("sticky")
    films, strips = [], []
    with steps_progress("filming the agent", len(chosen), "games") as advance:
        for number, game in enumerate(chosen):
            clip = play_clip(agent, game, protocol, seed, seconds)
            films.append(film(clip))
            strips.append(strip(agent, clip))
            advance(number + 1, game)
    planner = agent.planning.planner
    rules = f"sticky actions {protocol.sticky:g}, environment seed {seed}, {_said(planner)}"
    watched = Gallery(
        "play",
        (f"The first seconds of one episode a game at the console's own speed; {rules}; not chosen for its score.",),
        tuple(films),
    )
    imagined = Gallery(
        "imagined",
        (
            "Above: what happened in the real game. Below: what the model imagines when it takes the same actions. At "
            "the left the last frame that it was shown, real and through its tokenizer; from there on it sees nothing "
            f"more. From the middle of the films below, whatever happens there; {rules}.",
        ),
        tuple(picture for picture in strips if picture is not None),
        wide=True,
    )
    return tuple(gallery for gallery in (imagined, watched) if gallery.pictures)


def _said(planner: PlannerConfig) -> str:
    return {
        "none": "no planning", "beam": f"beam {planner.width}×{planner.horizon}", "mcts": f"MCTS {planner.budget}",
    }[planner.name]  # fmt: skip


def found_pictures(folder: Path) -> tuple[Gallery, ...]:
    """Every PNG, GIF and WebP under ``folder``: moving ones are play, stills are imagination."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: name one with PNG, GIF or WebP files, or leave --media out")
    stills: list[Picture] = []
    films: list[Picture] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower().lstrip(".") in SUFFIXES:
            picture, moving = _read(path, str(path.relative_to(folder)))
            (films if moving else stills).append(picture)
    if not stills and not films:
        raise DataError(f"{folder} holds no PNG, GIF or WebP file: name another folder, or leave --media out")
    said = "Pictures found beside the results; their file names are their titles."
    return tuple(
        Gallery(name, (said,), tuple(pictures), wide)
        for name, pictures, wide in (("imagined", stills, True), ("play", films, False)) if pictures
    )  # fmt: skip


def _read(path: Path, name: str) -> tuple[Picture, bool]:
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "GIF", "WEBP"]) as image:
            image.load()
            moving = bool(getattr(image, "is_animated", False))
            size, kind = image.size, str(image.format).lower()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{path} is no picture ({error}): move it away") from error
    return Picture(data, kind, name, name, *size, pixelated=max(size) <= 400), moving


def media_sections(galleries: Sequence[Gallery]) -> tuple[Section, Section]:
    """Imagination and play; raises :class:`UsageError` when the pictures are too large for a page."""
    size = sum(len(picture.data) for gallery in galleries for picture in gallery.pictures)
    if size > MOST_BYTES:
        raise UsageError(
            f"the pictures are {size / 2**20:.1f} MiB, expected at most {MOST_BYTES >> 20} in one page: leave some "
            "out, or make shorter films with --seconds"
        )
    by_name = {gallery.name: gallery for gallery in galleries}

    def section(name: str, title: str, what: str) -> Section:
        block: Block = by_name[name] if name in by_name else Missing(what, FILL)
        return Section(name, title, (block,))

    return (
        section("imagined", "Imagined beside real", "imagined rollouts beside real ones"),
        section("play", "Play", "short films of play"),
    )
