"""What was imagined some steps ago beside what then happened."""

from __future__ import annotations

import numpy as np
from PyQt6.QtCore import QPointF, QRectF, QSizeF, Qt
from PyQt6.QtGui import QPainter, QPen

from jowa.viewer import theme
from jowa.viewer.events import Hindsight, Moment
from jowa.viewer.feed import Feed
from jowa.viewer.panels.panel import MOST_SHOWN, Canvas, Panel, draw_crisp, image_of

GAP, WORDS, MOST_SIDE, CURVE = 10, 48, 196.0, 96.0
GRID = 6
"""Tokens along each side of a frame."""


class HindsightPanel(Panel):
    """What happened stands left, what was imagined of it one, two, … steps before stands right."""

    title = "Imagined and real"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._canvas = Canvas(self._paint, 240, 150)
        self.body.addWidget(self._canvas, 1)

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        self.aside.setText("share of 36 tokens that came true; red: those that did not")
        self._canvas.update()

    def _paint(self, painter: QPainter, place: QRectF) -> None:
        if self.moment is None:
            return
        looks = self.moment.hindsight
        colours = theme.colours()
        columns = 1 + max(len(looks), 1)
        side = min((place.width() - GAP * (columns - 1)) / columns, place.height() - WORDS, MOST_SIDE)
        top = 0.0
        draw_crisp(painter, image_of(self.moment.reconstruction), QRectF(0, top, side, side))
        painter.setFont(theme.font(theme.TEXT, bold=True))
        painter.setPen(colours.color("text"))
        painter.drawText(QRectF(0, top + side + 4, side, 18), Qt.AlignmentFlag.AlignLeft, "what happened")
        if not looks:
            painter.setFont(theme.font())
            painter.setPen(colours.color("muted"))
            words = QRectF(side + 2 * GAP, top, place.width() - side - 2 * GAP, side)
            painter.drawText(words, Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextWordWrap,
                             "Step once or twice with a planner: then its imagination can be compared.")  # fmt: skip
        for number, look in enumerate(looks, 1):
            self._column(painter, QRectF(number * (side + GAP), top, side, side), look)
        if place.height() - side - WORDS > CURVE:
            self._curve(painter, QRectF(0, side + WORDS + 24, place.width(), CURVE))

    def _curve(self, painter: QPainter, box: QRectF) -> None:
        """The share imagined one step before, over the last moments."""
        assert self.moment is not None
        colours, trace = theme.colours(), self.moment.trace
        recent = slice(max(len(trace.index) - MOST_SHOWN, 0), None)
        index, shares = trace.index[recent], trace.came_true[recent]
        painter.setFont(theme.font(theme.SMALL))
        painter.setPen(colours.color("muted"))
        painter.drawText(box.translated(0, -20), Qt.AlignmentFlag.AlignLeft, "imagined 1 step before, over time")
        plot = box.adjusted(40, 4, 0, -6)
        for share in (0.0, 0.5, 1.0):
            y = plot.bottom() - share * plot.height()
            painter.setPen(QPen(colours.color("line"), 1))
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            painter.setPen(colours.color("muted"))
            painter.drawText(QRectF(0, y - 8, 34, 16), Qt.AlignmentFlag.AlignRight, f"{share:.0%}")
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colours.color("plan"))
        span = max(int(index[-1] - index[0]), 20)
        for at, share in zip(index.tolist(), shares.tolist(), strict=True):
            if share == share:  # not imagined: NaN
                x = plot.left() + (at - int(index[0])) / span * plot.width()
                painter.drawEllipse(QPointF(x, plot.bottom() - share * plot.height()), 2, 2)

    def _column(self, painter: QPainter, box: QRectF, look: Hindsight) -> None:
        colours = theme.colours()
        if look.frame is not None:
            draw_crisp(painter, image_of(look.frame), box)
            if look.right is not None:
                painter.setPen(QPen(colours.color("loss"), 1.2))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                cell = box.width() / GRID
                for token in np.flatnonzero(~look.right).tolist():
                    row, column = divmod(token, GRID)
                    corner = QPointF(box.left() + column * cell, box.top() + row * cell)
                    painter.drawRect(QRectF(corner, QSizeF(cell, cell)).adjusted(1, 1, -1, -1))
        else:
            painter.setPen(QPen(colours.color("line"), 1, Qt.PenStyle.DashLine))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(box)
            painter.setPen(colours.color("muted"))
            painter.setFont(theme.font(theme.SMALL))
            painter.drawText(box.adjusted(6, 6, -6, -6), Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap,
                             "not imagined: other actions were searched")  # fmt: skip
        painter.setFont(theme.font(theme.TEXT, bold=True))
        painter.setPen(colours.color("text"))
        ago = "1 step ago" if look.steps == 1 else f"{look.steps} steps ago"
        line = QRectF(box.left(), box.bottom() + 4, box.width(), 18)
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft, ago)
        if look.came_true is not None:
            tone = "gain" if look.came_true >= 0.9 else "greedy" if look.came_true >= 0.7 else "loss"
            painter.setPen(colours.color(tone))
            painter.drawText(line, Qt.AlignmentFlag.AlignRight, f"{look.came_true:.0%}")
        if look.mean is not None:
            painter.setFont(theme.font(theme.SMALL))
            painter.setPen(colours.color("muted"))
            painter.drawText(line.translated(0, 20), Qt.AlignmentFlag.AlignLeft, f"mean of last 100: {look.mean:.0%}")
