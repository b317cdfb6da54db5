"""From the options to a window that runs: settings, session, and what Qt needs around them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from jowa.errors import UsageError
from jowa.games import get_game

HEADLESS = "python -m jowa.viewer --headless --out clip.mp4 --steps 300"
HINT = f"there is no display to open a window on: run it on a desktop, or render a film with {HEADLESS}"
LIBRARIES = (
    "install the libraries that it misses (on Debian and Ubuntu: apt install libxcb-cursor0 libxcb-icccm4 "
    "libxcb-keysyms1 libxcb-image0 libxcb-render-util0 libxkbcommon-x11-0)"
)


@dataclass(frozen=True)
class Options:
    """Watch an agent play and think."""

    agent: str | None = None
    """Folder of an agent, demo (the shipped one), or an id on the Hugging Face hub (owner/name). Default: the last one
    used, else the shipped one, else runs/demo/agent."""
    game: str | None = None
    """Game to play, for example Pong. Default: the last one, or the first that the agent was trained on."""
    planner: Literal["none", "beam", "mcts"] | None = None
    """How to choose actions; default: as last time, or the agent's own."""
    width: int | None = None
    """Beam width."""
    horizon: int | None = None
    """Imagined steps."""
    simulations: int | None = None
    """MCTS: simulations a decision."""
    seed: int | None = None
    """Of the first episode."""
    recording: Path | None = None
    """A recorded session or data set to replay instead of playing; --game and --episode choose from it."""
    episode: int = 0
    """Which episode of --recording, from 0."""
    theme: Literal["dark", "light"] | None = None
    """Colours; default: as last time, at first dark."""
    size: tuple[int, int] = (1280, 800)
    """Width and height of the window; a film has this size."""
    headless: bool = False
    """Render a film of the window without a display, into --out."""
    out: Path = Path("clip.mp4")
    """The film of --headless: .mp4 or .gif."""
    steps: int = 300
    """Decisions in the film."""
    fps: float = 15.0
    """Decisions a second in the film; 15 is the speed of the game."""
    screenshots: Path | None = None
    """Write pictures of every part of the viewer into this folder, without a display, and end."""
    settings: Path | None = None
    """Ini file to keep settings in; default: the user's own. Headless, nothing is kept unless it is given."""

    def check(self) -> None:
        """Raise :class:`UsageError` for what cannot be."""
        if self.game is not None:
            get_game(self.game)
        if self.steps < 1 or self.fps <= 0 or min(self.size) < 200:
            raise UsageError(
                f"steps {self.steps}, fps {self.fps:g}, size {self.size[0]} {self.size[1]}: expected at least 1, above "
                "0, and at least 200 pixels each"
            )
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed is {self.seed}: expected at least 0")
        if self.episode and self.recording is None:
            raise UsageError("--episode chooses from a recording: name one with --recording")

    @property
    def windowless(self) -> bool:
        """Whether no display is needed."""
        return self.headless or self.screenshots is not None


def check_display(windowless: bool) -> None:
    """Make sure that a QApplication can be made: Qt ends the process where it cannot.

    Raises :class:`UsageError` without PyQt6 or a display.
    """
    if windowless:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    try:
        import pyqtgraph
        from PyQt6 import QtWidgets
    except ImportError as error:
        raise UsageError(
            f"the viewer needs PyQt6 and pyqtgraph ({error}): install them with pip install pyqt6 pyqtgraph av"
        ) from None
    del pyqtgraph, QtWidgets
    chosen = os.environ.get("QT_QPA_PLATFORM", "")
    if not sys.platform.startswith("linux") or chosen.startswith(("offscreen", "minimal", "vnc")):
        return
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and not chosen:
        raise UsageError(HINT)
    # A display that does not answer, or libraries that Qt misses, would end this process without a word from us.
    trial = "from PyQt6.QtGui import QGuiApplication; QGuiApplication([])"
    tried = subprocess.run([sys.executable, "-c", trial], capture_output=True, text=True, check=False)
    if tried.returncode and "connect to display" in tried.stderr:
        raise UsageError(HINT)
    if tried.returncode:
        raise UsageError(f"Qt cannot open a window: {LIBRARIES}, or render a film with {HEADLESS}")


_KEPT: list[Any] = []
"""Qt's application: it must not go before the widgets that Python has yet to collect."""


def leave(code: int) -> NoReturn:
    """End this process without Python taking itself apart.

    Widgets, scenes and the application would be destroyed in any order then, and a thread may be in the midst of a
    search: either crashes now and then, after all was done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(options: Options) -> int:
    """Open the window, or render without one; the exit code."""
    options.check()
    check_display(options.windowless)
    from PyQt6.QtWidgets import QApplication

    from jowa.viewer.settings import open_settings

    application = QApplication.instance() or QApplication(sys.argv[:1])
    assert isinstance(application, QApplication)
    _KEPT.append(application)
    if not options.windowless or options.settings is not None:
        return _run_with(options, application, open_settings(options.settings))
    with tempfile.TemporaryDirectory(prefix="jowa-viewer-") as folder:
        return _run_with(options, application, open_settings(Path(folder) / "viewer.ini"))


def _run_with(options: Options, application: Any, settings: Any) -> int:
    """See :func:`run`."""
    from jowa.viewer.settings import last_agent

    if options.theme is not None:
        settings.setValue("window/theme", options.theme)
    agent = options.agent or last_agent(settings)
    if options.windowless and agent is None:
        raise UsageError(
            "there is no agent to film: name one with --agent, or train a small one with python -m jowa.train"
        )
    window = open_window(options, settings, agent)
    if options.windowless:
        return _render(options, window)
    window.show()
    code = int(application.exec())
    settings.sync()
    return code


def open_window(options: Options, settings: Any, agent: str | None) -> Any:
    """The window with its session at work."""
    from jowa.viewer import commands as told
    from jowa.viewer.session import Session
    from jowa.viewer.settings import begin_with, recalled
    from jowa.viewer.window import Window

    begin: dict[str, Any] = begin_with(settings)
    begin |= {name: value for name, value in (("game", options.game), ("seed", options.seed)) if value is not None}
    session = Session(**begin)
    window = Window(session, settings)
    window.resize(*options.size)
    session.send(*recalled(settings))
    changes = {name: getattr(options, name) for name in ("width", "horizon", "simulations")}
    changes["name"] = options.planner
    if given := {name: value for name, value in changes.items() if value is not None}:
        session.send(told.SetPlanner(tuple(given.items())))
    if agent is not None:
        session.send(told.LoadAgent(agent, own_game=options.game is None))
    if options.recording is not None:
        session.send(told.OpenRecording(options.recording, options.game, options.episode))
    session.start()
    return window


def _render(options: Options, window: Any) -> int:
    """The film or the pictures."""
    from PyQt6.QtCore import qInstallMessageHandler

    from jowa.viewer import headless

    # Without a display Qt says of every window that it cannot hint at its size.
    qInstallMessageHandler(lambda kind, where, text: None if "propagateSizeHints" in (text or "") else
                           print(text, file=sys.stderr))  # fmt: skip
    window.show()
    try:
        if options.screenshots is not None:
            ratio = window.devicePixelRatioF()
            size = "x".join(str(round(side * ratio)) for side in options.size)
            name = options.theme or "dark"
            for path in headless.screenshots(window, options.screenshots, f"{name}-{size}"):
                print(path)
        else:
            headless.film(window, options.out, options.steps, options.fps)
            print(f"written to {options.out}")
    finally:
        window.close()
        window.session.close(headless.PATIENCE)
    return 0
