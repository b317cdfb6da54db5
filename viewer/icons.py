"""The transport's signs, drawn: fonts do not all have them, and these take the theme's colours."""

from __future__ import annotations

from PyQt6.QtCore import QPointF, QRectF, Qt
from PyQt6.QtGui import QIcon, QPainter, QPen, QPixmap

from jowa.viewer import theme

SIDE = 16


def icon(name: str) -> QIcon:
    """The sign called ``name``: run, pause, step, back, oldest, newest, reset."""
    made = QIcon()
    for mode, tone, alpha in ((QIcon.Mode.Normal, "text", 1.0), (QIcon.Mode.Disabled, "muted", 0.5)):
        pixels = QPixmap(SIDE * 3, SIDE * 3)
        pixels.setDevicePixelRatio(3)
        pixels.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixels)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        colour = theme.colours().color(tone, alpha)
        painter.setBrush(colour)
        painter.setPen(Qt.PenStyle.NoPen)
        _draw(painter, name, QPen(colour, 2, cap=Qt.PenCapStyle.RoundCap))
        painter.end()
        made.addPixmap(pixels, mode)
    return made


def _draw(painter: QPainter, name: str, pen: QPen) -> None:
    if name == "pause":
        painter.drawRoundedRect(QRectF(3, 2, 3.5, 12), 1, 1)
        painter.drawRoundedRect(QRectF(9.5, 2, 3.5, 12), 1, 1)
    elif name == "reset":
        painter.setPen(pen)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawArc(QRectF(3, 3, 10, 10), 60 * 16, 290 * 16)
        painter.drawPolyline(QPointF(8.2, 0.8), QPointF(11.2, 3.8), QPointF(8.0, 6.2))
    elif name == "run":
        painter.drawPolygon(QPointF(4, 2), QPointF(14, 8), QPointF(4, 14))
    else:
        if name in ("back", "oldest"):
            painter.translate(SIDE, 0)
            painter.scale(-1, 1)
        bar = 12.0 if name in ("step", "back") else 13.0
        painter.drawRoundedRect(QRectF(bar, 2.5, 2, 11), 1, 1)
        for left in (3.0,) if name in ("step", "back") else (1.0, 6.5):
            width = 8.0 if name in ("step", "back") else 6.0
            painter.drawPolygon(QPointF(left, 2.5), QPointF(left + width, 8), QPointF(left, 13.5))
