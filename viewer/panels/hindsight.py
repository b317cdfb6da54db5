"""What was imagined some steps ago beside what then happened."""

from __future__ import annotations

import numpy as np
from PyQt6.QtCore import QPointF, QRectF, QSizeF, Qt
from PyQt6.QtGui import QPainter, QPen

from jowa.viewer import theme
from jowa.viewer.events import Hindsight, Moment
from jowa.viewer.feed import Feed
from jowa.viewer.panels.panel import MOST_SHOWN, Canvas, Panel, draw_crisp, image_of, plural

GAP, WORDS, MOST_SIDE, CURVE, MOST_CURVE = 10, 52, 220.0, 130.0, 240.0
GRID = 6
"""Tokens along each side of a frame."""


def _grid(count: int, place: QRectF) -> tuple[float, int]:
    """Side of the frames and columns of the grid in which ``count`` of them are largest, above the curve."""

    def side(columns: int) -> float:
        rows = -(-count // columns)
        across = (place.width() - GAP * (columns - 1)) / columns
        return min(across, (place.height() - CURVE) / rows - WORDS, MOST_SIDE)

    # One row unless several make the frames much larger.
    columns = max(range(1, count + 1), key=lambda number: side(number) * (1.0 if number == count else 0.75))
    return max(side(columns), 40.0), columns


class HindsightPanel(Panel):
    """What happened stands left, what was imagined of it one, two, … steps before stands right."""

    title = "Imagined and real"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._canvas = Canvas(self._paint, 240, 150)
        self.body.addWidget(self._canvas, 1)

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        self.aside.setText("red: tokens that did not come true · share of the 36 that did")
        self._canvas.update()

    def _paint(self, painter: QPainter, place: QRectF) -> None:
        if self.moment is None:
            return
        looks = self.moment.hindsight
        colours = theme.colours()
        side, columns = _grid(1 + max(len(looks), 1), place)
        draw_crisp(painter, image_of(self.moment.reconstruction), QRectF(0, 0, side, side))
        painter.setFont(theme.font(theme.TEXT, bold=True))
        painter.setPen(colours.color("text"))
        painter.drawText(QRectF(0, side + 4, side, 18), Qt.AlignmentFlag.AlignLeft, "happened")
        painter.setFont(theme.font(theme.SMALL))
        painter.setPen(colours.color("muted"))
        painter.drawText(QRectF(0, side + 22, side, 18), Qt.AlignmentFlag.AlignLeft, "as its tokens")
        if not looks:
            painter.setFont(theme.font())
            painter.setPen(colours.color("muted"))
            words = QRectF(side + 2 * GAP, 0, place.width() - side - 2 * GAP, side)
            painter.drawText(
                words, Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextWordWrap,
                "Step once or twice with a planner: then its imagination can be compared.",
            )  # fmt: skip
        for number, look in enumerate(looks, 1):
            row, column = divmod(number, columns)
            self._column(painter, QRectF(column * (side + GAP), row * (side + WORDS), side, side), look)
        bottom = -(-(1 + max(len(looks), 1)) // columns) * (side + WORDS)
        if (room := place.height() - bottom) >= CURVE - 1:
            self._curve(painter, QRectF(0, bottom + 24, place.width(), min(room, MOST_CURVE) - 24))

    def _curve(self, painter: QPainter, box: QRectF) -> None:
        """The share imagined one step before, over the last moments."""
        assert self.moment is not None
        colours, trace = theme.colours(), self.moment.trace
        recent = slice(max(len(trace.index) - MOST_SHOWN, 0), None)
        index, shares = trace.index[recent], trace.came_true[recent]
        painter.setFont(theme.font(theme.SMALL))
        painter.setPen(colours.color("muted"))
        painter.drawText(
            box.translated(0, -20),
            Qt.AlignmentFlag.AlignLeft,
            "came true of what was imagined 1 step ago, over time",
        )
        plot = box.adjusted(40, 4, -3, -6)
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
        ago = f"{plural(look.steps, 'step')} ago"
        line = QRectF(box.left(), box.bottom() + 4, box.width(), 18)
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft, ago)
        if look.mean is None:
            return
        words, share = line.translated(0, 18), look.came_true
        painter.setFont(theme.font(theme.SMALL))
        painter.setPen(colours.color("muted"))
        painter.drawText(words, Qt.AlignmentFlag.AlignRight, f"mean {look.mean:.0%}")
        if share is not None:
            painter.setFont(theme.font(theme.TEXT, bold=True))
            painter.setPen(colours.color("gain" if share >= 0.9 else "greedy" if share >= 0.7 else "loss"))
            painter.drawText(words, Qt.AlignmentFlag.AlignLeft, f"{share:.0%}")
