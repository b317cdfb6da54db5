"""The window's dealings with files: which one to open, what to keep, and the film that runs."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PyQt6.QtCore import QElapsedTimer, QMimeData, QObject, QTimer, pyqtSignal
from PyQt6.QtWidgets import QApplication, QFileDialog, QInputDialog

from jowa.data.store import EpisodeStore
from jowa.errors import JowaError, describe_os_error
from jowa.viewer import commands as told
from jowa.viewer.keep import Film, picture_of, save_picture
from jowa.viewer.panels.panel import plural

if TYPE_CHECKING:
    from jowa.viewer.window import Window

FILM_RATE = 15.0
"""Pictures a second of a film recorded in the window."""

MOST_EPISODES = 2_000
"""That can be chosen from in a dialog; ``--episode`` takes any."""


class FileDialogs(QObject):
    """Asks, and does; what fails becomes a dialog of the window."""

    progressed = pyqtSignal(int)
    """Pictures left of the films that are being finished."""

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        self._window = window
        self._finishing: list[Film] = []
        self._watch = QTimer(self)
        self._watch.setInterval(50)
        self._watch.timeout.connect(self._look_after)
        self.film: Film | None = None
        self._clock, self._filmed = QElapsedTimer(), 0

    def do(self, name: str) -> None:
        """Carry out the action ``name`` of the File menu."""
        verbs = {
            "open_agent": self._open_agent, "name_agent": self._name_agent, "open_recording": self._open_recording,
            "save_episode": self._save_episode, "export": self._export, "screenshot": self._screenshot,
            "copy": self._copy, "record": self._record,
        }  # fmt: skip
        self._attempt(verbs[name])

    def open_dropped(self, folder: Path) -> None:
        """Open a folder that was dropped on the window: a data set, or else an agent."""
        if (folder / "zarr.json").is_file():
            self._attempt(lambda: self._choose_episode(folder))
        else:
            self._window.session.send(told.LoadAgent(str(folder)))

    def _attempt(self, verb: Callable[[], None]) -> None:
        try:
            verb()
        except JowaError as error:
            self._window.fail("Not possible", str(error))
        except OSError as error:
            self._window.fail("Not written", describe_os_error(error))

    def ask(self, title: str, kind: str = "folder", pattern: str = "", name: str = "") -> Path | None:
        """A path from the person: a ``folder`` that exists, or a file to ``save``."""
        if kind == "folder":
            chosen = QFileDialog.getExistingDirectory(self._window, title)
        else:
            chosen, _ = QFileDialog.getSaveFileName(self._window, title, name, pattern)
        return Path(chosen) if chosen else None

    def _open_agent(self) -> None:
        if folder := self.ask("Open an agent folder"):
            self._window.session.send(told.LoadAgent(str(folder)))

    def _name_agent(self) -> None:
        text = "Folder, demo, or the id of an agent on the hub (owner/name):"
        name, ok = QInputDialog.getText(self._window, "Open an agent", text)
        if ok and name.strip():
            self._window.session.send(told.LoadAgent(name.strip()))

    def _open_recording(self) -> None:
        if folder := self.ask("Open a recording or data set"):
            self._choose_episode(folder)

    def _choose_episode(self, folder: Path) -> None:
        store = EpisodeStore.open(folder)
        episodes = [(game, number) for game in store.games for number in range(store.num_episodes(game))]
        episodes = episodes[:MOST_EPISODES]
        names = [f"{game} {number}: {store.episode(game, number).length:,} steps, score "
                 f"{store.episode(game, number).score:g}" for game, number in episodes]  # fmt: skip
        first = "Episode:" if len(names) < MOST_EPISODES else f"Episode (the first {MOST_EPISODES:,} of the data set):"
        chosen, ok = QInputDialog.getItem(self._window, "Replay", first, names, 0, False)
        if ok:
            game, number = episodes[names.index(chosen)]
            self._window.session.send(told.OpenRecording(folder, game, number))

    def _save_episode(self) -> None:
        if folder := self.ask("Append the episode to the data set in this folder"):
            self._window.session.send(told.SaveEpisode(folder))

    def _export(self) -> None:
        if path := self.ask("Export this decision", "save", "JSON and PNG (*.json)", f"decision-{_now()}.json"):
            path = path.with_suffix(".json")
            latest = self._window.feed.latest  # of a session that runs, another moment is shown by and by
            save_picture(self._window, path.with_suffix(".png"))
            self._window.session.send(told.ExportMoment(path, None if latest is None else latest.index))

    def _screenshot(self) -> None:
        if path := self.ask("Save a screenshot", "save", "PNG (*.png)", f"viewer-{_now()}.png"):
            path = path.with_suffix(".png")
            save_picture(self._window, path)
            self._window.notice(f"Saved {path}")

    def _copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setPixmap(self._window.grab())
            self._window.notice("Copied the picture of this window")

    def _record(self) -> None:
        if self.film is not None:
            self.stop_film()
            return
        if path := self.ask("Record a film", "save", "Films (*.mp4 *.gif)", f"viewer-{_now()}.mp4"):
            self.start_film(path)
        self._show_recording()

    def start_film(self, path: Path) -> None:
        """Record the window into ``path`` from now on."""
        self.film, self._filmed = Film(path, FILM_RATE), 0
        self._clock.start()
        self._show_recording()

    def film_now(self) -> None:
        """Add what the window shows, as often as the film's time asks for."""
        if self.film is None:
            return
        due = int(self._clock.elapsed() / 1000 * FILM_RATE) + 1 - self._filmed
        if due > 0:
            self._filmed += due
            picture = picture_of(self._window)
            # What lasted longer is repeated, at most for a second: nobody films a pause.
            for _ in range(min(due, round(FILM_RATE))):
                self.film.add(picture, wait=False)

    def stop_film(self) -> None:
        """Take no more pictures, if a film runs; it is finished beside whatever follows."""
        film, self.film = self.film, None
        if film is not None:
            film.finish()
            self._finishing.append(film)
            self._watch.start()
        self._show_recording()

    @property
    def finishing(self) -> int:
        """Pictures of films that are still being written, 0: none is; what is left to close counts as one."""
        return sum(film.left + 1 for film in self._finishing)

    def abandon_films(self) -> None:
        """Leave what is not written yet."""
        for film in self._finishing:
            film.abandon()

    def _look_after(self) -> None:
        """Tell how far the films are that are being finished."""
        for film in [film for film in self._finishing if film.done]:
            self._finishing.remove(film)
            self._tell_of(film)
        if self._finishing:
            self._window.notice(f"Finishing {self._finishing[0].path.name}: {plural(self.finishing, 'picture')} left")
        else:
            self._watch.stop()
        self.progressed.emit(self.finishing)

    def _tell_of(self, film: Film) -> None:
        try:
            film.close()
        except JowaError as error:
            self._window.fail("The film was not written", str(error))
        except OSError as error:
            self._window.fail("The film was not written", describe_os_error(error))
        else:
            left_out = f"; {film.dropped} were left out" if film.dropped else ""
            saved = f"Saved {film.path}, {plural(film.pictures, 'picture')}{left_out}"
            self._window.notice(f"{film.path.name} was left out" if film.abandoned else saved)

    def _show_recording(self) -> None:
        on = self.film is not None
        self._window.actions_["record"].setChecked(on)
        self._window.controls.record.setChecked(on)
        self._window.controls.record.setText("■ Stop" if on else "● Record")


def _now() -> str:
    return datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


def folder_in(what: QMimeData | None) -> Path | None:
    """The one folder that is dragged, if it is one."""
    paths = [Path(url.toLocalFile()) for url in what.urls() if url.isLocalFile()] if what is not None else []
    return paths[0] if len(paths) == 1 and paths[0].is_dir() else None
