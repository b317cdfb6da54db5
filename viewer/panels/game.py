"""The game in colour, with score, step, rewards, the joystick and how fast decisions come."""

from __future__ import annotations

from PyQt6.QtCore import QRectF, Qt
from PyQt6.QtGui import QFontMetrics, QImage, QPainter
from PyQt6.QtWidgets import QGridLayout, QLabel

from jowa.viewer import theme
from jowa.viewer.events import Moment, State
from jowa.viewer.feed import Feed
from jowa.viewer.panels.panel import Canvas, Panel, draw_crisp, draw_joystick, fit, image_of, seconds_text, spoken

TELEVISION = 4 / 3
"""Width to height of the picture on the screens that the console was made for."""


class GamePanel(Panel):
    """Live play."""

    title = "Game"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self.square_pixels = False
        self._image: QImage | None = None
        self._flash = 0.0
        self.screen_view = Canvas(self._paint_screen, 240, 180)
        self.body.addWidget(self.screen_view, 1)
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(theme.MARGIN)
        self._grid.setVerticalSpacing(0)
        self.values: dict[str, QLabel] = {}
        fonts = {
            name: theme.font(size, bold=True) for name, size in (("large", theme.LARGE), ("small", theme.TEXT + 2))
        }
        deeper = QFontMetrics(fonts["large"]).descent() - QFontMetrics(fonts["small"]).descent()
        for column, name in enumerate(("score", "reward", "step", "decision", "per second")):
            label = QLabel(name)
            label.setProperty("role", "muted")
            value = self.values[name] = QLabel("–")
            value.setFont(fonts["large" if name == "score" else "small"])
            value.setContentsMargins(0, 0, 0, 0 if name == "score" else deeper)  # all stand on one line
            self._grid.addWidget(value, 0, column, Qt.AlignmentFlag.AlignBottom)
            self._grid.addWidget(label, 1, column)
            self._grid.setColumnStretch(column, 1)
        self._joystick = Canvas(self._paint_joystick, 52, 44)
        self.action = QLabel("")
        self.action.setProperty("role", "muted")
        self.action.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self._grid.addWidget(self._joystick, 0, 5)
        self._grid.addWidget(self.action, 1, 5)
        self._grid.setColumnMinimumWidth(5, 84)
        self.body.addLayout(self._grid)
        feed.state.connect(self._show_state)

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        self._image = image_of(moment.screen)
        self.heading.setText({"dream": "Dream", "replay": "Recording"}.get(moment.mode, "Game"))
        what = f"episode {moment.episode}"
        if moment.mode == "replay":
            grey = moment.screen.shape[:2] == moment.frame.shape
            what = "as recorded, in grey" if grey else "played again in colour"
        if moment.who == "person":
            what = f"advice: {spoken(moment.advice)}"
        self.aside.setText(f"{moment.game} · {'game over' if moment.ended else what}")
        self.values["score"].setText(f"{moment.score:,g}")
        self.values["step"].setText(f"{moment.step:,}")
        reward = self.values["reward"]
        earned = moment.reward or 0.0
        tone = theme.colours().gain if earned > 0 else theme.colours().loss if earned < 0 else theme.colours().muted
        reward.setText(f'<span style="color: {tone}">{f"{earned:+g}" if earned else "0"}</span>')
        self.values["decision"].setText(seconds_text(moment.seconds))
        self.action.setText(spoken(moment.action))
        self.screen_view.setAccessibleDescription(f"score {moment.score:g}, action {self.action.text()}")
        self.screen_view.update()
        self._joystick.update()

    def _show_state(self, state: State) -> None:
        self.values["per second"].setText(f"{state.rate:.0f}" if state.running else "–")

    def set_square_pixels(self, square: bool) -> None:
        """Show the console's pixels as squares instead of the picture as on a television."""
        self.square_pixels = square
        self.screen_view.update()

    def _paint_screen(self, painter: QPainter, place: QRectF) -> None:
        if self._image is None or self.moment is None:
            return
        height, width = self.moment.screen.shape[:2]
        square = self.square_pixels or height == width
        target = fit(width, height, place) if square else fit(TELEVISION, 1, place)
        draw_crisp(painter, self._image, target)
        if self.moment.reward or self.moment.mode == "dream":
            earned = self.moment.reward
            painter.setPen(theme.colours().color("gain" if earned > 0 else "loss" if earned < 0 else "dream"))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            for inset in range(3):
                painter.drawRect(target.adjusted(inset, inset, -inset, -inset))

    def _paint_joystick(self, painter: QPainter, place: QRectF) -> None:
        if self.moment is not None:
            draw_joystick(painter, place, self.moment.action)
