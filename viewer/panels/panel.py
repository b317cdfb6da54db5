"""What every panel is: a titled frame that draws the moments of a feed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PyQt6.QtCore import QEvent, QRectF, Qt
from PyQt6.QtGui import QColor, QImage, QKeyEvent, QPainter, QPen
from PyQt6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from jowa.games import ACTIONS
from jowa.viewer import theme
from jowa.viewer.events import Moment
from jowa.viewer.feed import Feed

ARROWS = {
    "UP": "↑", "DOWN": "↓", "LEFT": "←", "RIGHT": "→", "UPRIGHT": "↗", "UPLEFT": "↖", "DOWNRIGHT": "↘",
    "DOWNLEFT": "↙",
}  # fmt: skip
MOST_SHOWN = 300
"""Moments of a curve; the timeline holds them all."""


class Panel(QFrame):
    """Base of the panels.  Override :meth:`show_moment`; put widgets into :attr:`body`."""

    title = ""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.setProperty("panel", True)
        self.feed = feed
        self.moment: Moment | None = None
        self._header = QHBoxLayout()
        self._header.setSpacing(theme.GAP)
        self.heading = QLabel(self.title)
        self.heading.setProperty("role", "title")
        self.aside = QLabel("")
        self.aside.setProperty("role", "muted")
        self.aside.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.aside.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._header.addWidget(self.heading)
        self._header.addWidget(self.aside, 1)
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(theme.MARGIN, theme.GAP, theme.MARGIN, theme.MARGIN)
        self.body.setSpacing(theme.GAP)
        self.body.addLayout(self._header)
        self.setAccessibleName(self.title)
        feed.moment.connect(self._take)
        theme.changed.connect(self.restyle)

    def _take(self, moment: Moment) -> None:
        self.moment = moment
        if self.isVisible():
            self.show_moment(moment)

    def showEvent(self, event: object) -> None:
        """A panel that was hidden catches up."""
        super().showEvent(event)  # type: ignore[arg-type]
        if self.moment is None:
            self.moment = self.feed.latest
        if self.moment is not None:
            self.show_moment(self.moment)

    def show_moment(self, moment: Moment) -> None:
        """Draw ``moment``."""

    def restyle(self) -> None:
        """The theme has changed."""
        self.update()


class Keyed(QWidget):
    """A widget that keys do something to while it has the focus, before they are shortcuts of the window."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: Mapping[Qt.Key, Callable[[], object]] = {}

    def set_keys(self, keys: Mapping[Qt.Key, Callable[[], object]], policy: Qt.FocusPolicy) -> None:
        """Let ``keys`` do these things, and Escape give the focus back."""
        self._keys = {Qt.Key.Key_Escape: self.clearFocus, **keys}
        self.setFocusPolicy(policy)

    def event(self, event: QEvent | None) -> bool:
        """Qt asks before it makes a shortcut of a key."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.ShortcutOverride and self._verb(event):
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Do what the key says."""
        verb = None if event is None else self._verb(event)
        if verb is None:
            super().keyPressEvent(event)
        else:
            verb()
            self.update()

    def _verb(self, event: QKeyEvent) -> Callable[[], object] | None:
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        return self._keys.get(Qt.Key(event.key())) if plain and event.key() else None


class Canvas(Keyed):
    """A widget that somebody else paints."""

    def __init__(self, paint: Callable[[QPainter, QRectF], None], width: int = 0, height: int = 0) -> None:
        super().__init__()
        self._paint = paint
        self.setMinimumSize(width, height)
        theme.changed.connect(self.update)

    def paintEvent(self, event: object) -> None:
        """Qt asks for a picture."""
        del event
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._paint(painter, QRectF(self.rect()))


def image_of(array: NDArray[np.uint8]) -> QImage:
    """A picture of uint8 (height, width) or (height, width, 3); keeps its own copy."""
    array = np.ascontiguousarray(array)
    height, width = array.shape[:2]
    kind = QImage.Format.Format_Grayscale8 if array.ndim == 2 else QImage.Format.Format_RGB888
    return QImage(array.tobytes(), width, height, array.strides[0], kind).copy()


def draw_crisp(painter: QPainter, image: QImage, place: QRectF) -> None:
    """``image`` in ``place`` with even, sharp pixels at any scale.

    First to the next whole multiple, pixel by pixel, then smoothly down: no pixel is wider than its neighbour.
    """
    device = painter.device()
    ratio = 1.0 if device is None else device.devicePixelRatioF()
    factor_x = max(int(np.ceil(place.width() * ratio / image.width())), 1)
    factor_y = max(int(np.ceil(place.height() * ratio / image.height())), 1)
    large = image.scaled(image.width() * factor_x, image.height() * factor_y)
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
    painter.drawImage(place, large)


def fit(width: float, height: float, place: QRectF) -> QRectF:
    """The largest rectangle of that shape in the middle of ``place``."""
    scale = min(place.width() / width, place.height() / height)
    size = QRectF(0, 0, width * scale, height * scale)
    size.moveCenter(place.center())
    return size


def short(action: int) -> str:
    """An action in as few signs as possible: an arrow, ● for the button, ○ for nothing."""
    name = ACTIONS[action]
    if name == "NOOP":
        return "○"
    fire = name.endswith("FIRE")
    return ARROWS.get(name.removesuffix("FIRE"), "") + "●" * fire


def spoken(action: int) -> str:
    """An action in words."""
    name = ACTIONS[action].lower()
    if name == "noop":
        return "nothing"
    fire = name.endswith("fire")
    direction = name.removesuffix("fire")
    for vertical in ("up", "down"):
        if direction.startswith(vertical):
            direction = f"{vertical} {direction.removeprefix(vertical)}".strip()
    return " ".join(filter(None, [direction, "fire" * fire]))


def draw_joystick(painter: QPainter, place: QRectF, action: int) -> None:
    """A stick on its base, pushed where ``action`` says, and the button."""
    name = ACTIONS[action]
    colours = theme.colours()
    base = fit(1, 1, place)
    radius = base.width() * 0.34
    center = base.center()
    painter.setPen(QPen(colours.color("line"), 1.5))
    painter.setBrush(colours.color("raised"))
    painter.drawEllipse(center, radius, radius)
    dx = ("RIGHT" in name) - ("LEFT" in name)
    dy = ("DOWN" in name) - ("UP" in name)
    reach = radius * (0.7 if dx and dy else 0.95)
    tip = center.__class__(center.x() + dx * reach, center.y() + dy * reach)
    moved = bool(dx or dy)
    painter.setPen(QPen(colours.color("plan" if moved else "muted"), radius * 0.32, Qt.PenStyle.SolidLine,
                        Qt.PenCapStyle.RoundCap))  # fmt: skip
    painter.drawLine(center, tip)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colours.color("plan" if moved else "muted"))
    painter.drawEllipse(tip, radius * 0.36, radius * 0.36)
    button = center.__class__(base.right() - radius * 0.3, base.top() + radius * 0.3)
    painter.setBrush(colours.color("loss") if name.endswith("FIRE") else QColor(0, 0, 0, 0))
    painter.setPen(QPen(colours.color("loss" if name.endswith("FIRE") else "line"), 1.5))
    painter.drawEllipse(button, radius * 0.28, radius * 0.28)


def legend(*marks: tuple[str, str, str]) -> str:
    """Signs with what they mean, as rich text, each a colour of the theme, a sign, words."""
    colours = theme.colours()
    return "&nbsp;&nbsp; ".join(
        f'<span style="color: {getattr(colours, tone)}">{sign}</span>&nbsp;{words}' for tone, sign, words in marks
    )


def small_label() -> QLabel:
    """An empty line of small, muted words that asks for no width."""
    label = QLabel("")
    label.setProperty("role", "muted")
    label.setFont(theme.font(theme.SMALL))
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return label


def plural(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def seconds_text(seconds: float) -> str:
    """A time with the unit that fits it."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.2f} s"
