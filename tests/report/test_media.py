"""Films of play, imagined rollouts, and pictures from a folder."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jowa.agent import Agent
from jowa.errors import DataError, UsageError
from jowa.evaluate.play import get_protocol
from jowa.report import media
from jowa.report.__main__ import ReportConfig, report
from jowa.report.clips import film, play_clip, strip
from jowa.suite.results import write_result


@pytest.fixture(scope="module")
def folder(finished_run: Path) -> Path:
    return finished_run / "agent"


def test_a_clip_is_what_the_agent_plays(folder: Path) -> None:
    agent = Agent.load(folder, "cpu")
    clip = play_clip(agent, "Pong", get_protocol("sticky"), seed=3, seconds=1.0)
    again = play_clip(agent, "Pong", get_protocol("sticky"), seed=3, seconds=1.0)
    assert clip.screens.shape == (15, 210, 160, 3) and len(clip.episode) == 15
    assert np.array_equal(clip.screens, again.screens) and np.array_equal(clip.episode.actions, again.episode.actions)
    picture = film(clip)
    with Image.open(io.BytesIO(picture.data)) as moving:
        assert moving.format == "WEBP" and moving.n_frames > 1  # type: ignore[attr-defined]
        assert np.array_equal(np.asarray(moving.convert("RGB")), clip.screens[0])
    assert picture.width / picture.height == pytest.approx(4 / 3)


def test_a_strip_has_real_frames_above_imagined_ones(folder: Path) -> None:
    agent = Agent.load(folder, "cpu")
    clip = play_clip(agent, "Pong", get_protocol("sticky"), seconds=1.0)
    picture = strip(agent, clip, ahead=(1, 3, 100))
    assert picture is not None
    with Image.open(io.BytesIO(picture.data)) as image:
        pixels = np.asarray(image)[..., 0]
    assert pixels.shape == (2 * 84 + 4, 3 * 84 + 8)
    assert np.array_equal(pixels[:84, :84], clip.episode.frames[7])
    assert np.array_equal(pixels[:84, -84:], clip.episode.frames[10])
    assert strip(agent, clip, ahead=(100,)) is None


def still(path: Path, frames: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.new("RGB", (30, 20), (9 * k, 0, 0)) for k in range(frames)]
    first.save(path, **({"save_all": True, "append_images": others} if others else {}))


def test_pictures_of_a_folder_are_still_or_moving(tmp_path: Path) -> None:
    still(tmp_path / "a.png")
    still(tmp_path / "deep" / "b.gif", frames=3)
    imagined, play = media.found_pictures(tmp_path)
    assert [picture.title for picture in imagined.pictures] == ["a.png"]
    assert [(picture.title, picture.suffix) for picture in play.pictures] == [("deep/b.gif", "gif")]


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no PNG"):
        media.found_pictures(tmp_path)
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(DataError, match=r"bad\.png is no picture"):
        media.found_pictures(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        media.found_pictures(tmp_path / "none")


def test_too_many_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    still(tmp_path / "a.png")
    monkeypatch.setattr(media, "MOST_BYTES", 10)
    with pytest.raises(UsageError, match="leave some out"):
        media.media_sections(media.found_pictures(tmp_path))


def test_the_command_makes_a_page_with_films(folder: Path, make_suite: Callable[..., Any], tmp_path: Path) -> None:
    write_result(tmp_path / "suite" / "results", make_suite(seeds=1).result("a", ("methods",), "jowa", 0.5, size="M"))
    config = ReportConfig(tmp_path / "suite", tmp_path / "out", agent=folder, games=("Pong",), seconds=1.5)
    html = report(config).read_text(encoding="utf-8")
    assert html.count("data:image/webp;base64,") == 1 and html.count("data:image/png;base64,") == 1
    assert (tmp_path / "out" / "media" / "play-1.webp").is_file() and "sticky actions 0.25" in html


def test_media_in_the_suites_folder_are_shown(make_suite: Callable[..., Any], tmp_path: Path) -> None:
    write_result(tmp_path / "results", make_suite(seeds=1).result("a", ("methods",), "jowa", 0.5, size="M"))
    still(tmp_path / "media" / "a.png")
    html = report(ReportConfig(tmp_path, tmp_path / "out")).read_text(encoding="utf-8")
    assert "a.png" in html and "data:image/png;base64," in html


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0.0}, {"seed": -1}, {"games": ("NoGame",)}, {"agent": Path("a"), "media": Path("b")}]
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        report(ReportConfig(tmp_path, **wrong))
