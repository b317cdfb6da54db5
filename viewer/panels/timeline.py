"""All remembered moments as a strip: where one stands, and what happened where."""

from __future__ import annotations

from PyQt6.QtCore import QPointF, QRectF, Qt
from PyQt6.QtGui import QMouseEvent, QPainter, QPen
from PyQt6.QtWidgets import QWidget

from jowa.viewer import theme
from jowa.viewer.commands import GoTo
from jowa.viewer.events import Moment
from jowa.viewer.feed import Feed
from jowa.viewer.history import LENGTH
from jowa.viewer.panels.panel import Canvas, Panel


class _Strip(Canvas):
    """Goes where it is clicked or dragged."""

    def __init__(self, panel: Timeline) -> None:
        super().__init__(panel.paint, 200, 26)
        self._panel = panel
        self.setFixedHeight(26)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Go there."""
        if event is not None:
            self._panel.go_to(event.position().x())

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Only while a button is down."""
        if event is not None:
            self._panel.go_to(event.position().x())


class Timeline(Panel):
    """The last thousand decisions, oldest left."""

    title = "Timeline"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self.strip: QWidget = _Strip(self)
        self.body.addWidget(self.strip)
        self.body.setContentsMargins(theme.MARGIN, theme.UNIT, theme.MARGIN, theme.GAP)
        self.body.setSpacing(theme.UNIT)

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        back = moment.newest - moment.index
        where = f"{back:,} before the newest" if back else "newest"
        self.aside.setText(f"moment {moment.index:,} · {where} · {moment.newest - moment.oldest + 1:,} remembered")
        self.strip.update()

    def go_to(self, x: float) -> None:
        """Show the moment at that place."""
        if self.moment is not None:
            first, count = self._range()
            index = first + round(x / self.strip.width() * (count - 1))
            self.feed.session.send(GoTo(min(max(index, self.moment.oldest), self.moment.newest)))

    def _range(self) -> tuple[int, int]:
        """First index and number of moments of the strip, which fills up once and then moves on."""
        assert self.moment is not None
        return self.moment.oldest, max(self.moment.newest - self.moment.oldest + 1, min(LENGTH, 200))

    def paint(self, painter: QPainter, place: QRectF) -> None:
        """Draw the strip."""
        colours = theme.colours()
        rail = QRectF(0, 10, place.width(), 6)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colours.color("line"))
        painter.drawRoundedRect(rail, 3, 3)
        if self.moment is None:
            return
        first, count = self._range()
        trace = self.moment.trace

        def at(index: int) -> float:
            return (index - first) / (count - 1) * place.width()

        painter.setBrush(colours.color("plan", 0.45))
        painter.drawRoundedRect(QRectF(0, 10, at(self.moment.newest), 6), 3, 3)
        # The latest trace that arrived may be one moment behind what is shown; its own columns agree.
        for column, tone, top, height in (
            (trace.dreamt, "dream", 10, 6), (trace.changed, "greedy", 5, 4), (trace.reward > 0, "gain", 17, 6),
            (trace.reward < 0, "loss", 17, 6),
        ):  # fmt: skip
            painter.setBrush(colours.color(tone))
            width = max(place.width() / count, 1.5)
            for index in trace.index[column].tolist():
                painter.drawRect(QRectF(at(index), top, width, height))
        painter.setPen(QPen(colours.color("muted"), 1))
        for index in trace.index[trace.begins].tolist():
            painter.drawLine(QPointF(at(index), 4), QPointF(at(index), 22))
        painter.setPen(QPen(colours.color("surface"), 2))
        painter.setBrush(colours.color("plan"))
        painter.drawEllipse(QPointF(min(max(at(self.moment.index), 7), place.width() - 7), 13), 7, 7)
