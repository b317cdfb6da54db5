"""All remembered moments, or all of a recording, as a strip: where one stands, and what happened where."""

from __future__ import annotations

import numpy as np
from PyQt6.QtCore import QPointF, QRectF, Qt
from PyQt6.QtGui import QMouseEvent, QPainter, QPen

from jowa.viewer import theme
from jowa.viewer.commands import GoTo, Seek
from jowa.viewer.events import Moment
from jowa.viewer.feed import Feed
from jowa.viewer.history import LENGTH
from jowa.viewer.panels.panel import Canvas, Panel, legend, small_label

PAGE = 20
"""Moments that a page key moves."""


class _Strip(Canvas):
    """Goes where it is clicked or dragged, or by keys."""

    def __init__(self, panel: Timeline) -> None:
        super().__init__(panel.paint, 200, 26)
        self._panel = panel
        self.setFixedHeight(26)
        self.setAccessibleName("Timeline: arrow and page keys move")
        # A click does not take the focus: then the arrow keys would no longer step.
        self.set_keys({
            Qt.Key.Key_Right: lambda: panel.move_by(1), Qt.Key.Key_Left: lambda: panel.move_by(-1),
            Qt.Key.Key_PageDown: lambda: panel.move_by(PAGE), Qt.Key.Key_PageUp: lambda: panel.move_by(-PAGE),
        }, Qt.FocusPolicy.TabFocus)  # fmt: skip

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Go there."""
        if event is not None:
            self._panel.go_to(event.position().x())

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Only while a button is down."""
        if event is not None:
            self._panel.go_to(event.position().x())


class Timeline(Panel):
    """The last thousand decisions, oldest left; in a replay, the whole recording."""

    title = "Timeline"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self.strip = _Strip(self)
        self._wanted = 0
        """Where keys have gone, which may be ahead of what is shown."""
        self._legend = small_label()
        self._header.insertWidget(1, self._legend, 1)
        self.body.addWidget(self.strip)
        self.body.setContentsMargins(theme.MARGIN, theme.UNIT, theme.MARGIN, theme.GAP)
        self.body.setSpacing(theme.UNIT)
        self.restyle()

    def restyle(self) -> None:
        """See :meth:`Panel.restyle`."""
        self._legend.setText(legend(("greedy", "■", "planning changed the choice"), ("gain", "■", "reward"),
                                    ("loss", "■", "loss"), ("dream", "■", "dreamt")))  # fmt: skip

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        if moment.recorded is not None:
            self.aside.setText(f"step {moment.step:,} of {len(moment.recorded) - 1:,} recorded")
        else:
            back = moment.newest - moment.index
            where = f"{back:,} before the newest" if back else "newest"
            self.aside.setText(f"moment {moment.index:,} · {where} · {moment.newest - moment.oldest + 1:,} remembered")
        self._wanted = self._now(moment)
        self.strip.update()

    @staticmethod
    def _now(moment: Moment) -> int:
        return moment.index if moment.recorded is None else moment.step

    def go_to(self, x: float) -> None:
        """Show the moment at that place."""
        if self.moment is not None:
            first, count = self._range(self.moment)
            self._show(first + round(x / self.strip.width() * (count - 1)))

    def move_by(self, moments: int) -> None:
        """Show the moment so many further."""
        self._show(self._wanted + moments)

    def _show(self, place: int) -> None:
        moment = self.moment
        if moment is None:
            return
        if moment.recorded is None:
            self._wanted = min(max(place, moment.oldest), moment.newest)
            self.feed.session.send(GoTo(self._wanted))
        else:
            self._wanted = min(max(place, 0), len(moment.recorded) - 1)
            self.feed.session.send(Seek(self._wanted))

    @staticmethod
    def _range(moment: Moment) -> tuple[int, int]:
        """First place and number of places of the strip, which fills up once and then moves on."""
        if moment.recorded is not None:
            return 0, max(len(moment.recorded), 2)
        return moment.oldest, max(moment.newest - moment.oldest + 1, min(LENGTH, 200))

    def paint(self, painter: QPainter, place: QRectF) -> None:
        """Draw the strip."""
        colours, moment = theme.colours(), self.moment
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colours.color("line"))
        painter.drawRoundedRect(QRectF(0, 10, place.width(), 6), 3, 3)
        if moment is None:
            return
        first, count = self._range(moment)

        def at(position: int) -> float:
            return (position - first) / (count - 1) * place.width()

        trace = moment.trace
        places, part = trace.index, np.ones(len(trace.index), bool)
        rewards, scored = trace.reward, trace.index
        if moment.recorded is not None:  # of what is remembered, only this recording has a place here
            part = trace.episode == moment.episode
            places = trace.index - moment.index + moment.step
            rewards, scored = moment.recorded, np.arange(1, len(moment.recorded) + 1)
        known = places[part]
        painter.setBrush(colours.color("plan", 0.45))
        painter.drawRoundedRect(QRectF(at(int(known[0])), 10, at(int(known[-1])) - at(int(known[0])), 6), 3, 3)
        width = max(place.width() / count, 1.5)
        for marked, tone, top, height in (
            (places[part & trace.dreamt], "dream", 10, 6), (places[part & trace.changed], "greedy", 5, 4),
            (scored[rewards > 0], "gain", 17, 6), (scored[rewards < 0], "loss", 17, 6),
        ):  # fmt: skip
            painter.setBrush(colours.color(tone))
            for position in marked.tolist():
                painter.drawRect(QRectF(min(at(position), place.width() - width), top, width, height))
        painter.setPen(QPen(colours.color("muted"), 1))
        for position in places[part & trace.begins].tolist():
            painter.drawLine(QPointF(at(position), 4), QPointF(at(position), 22))
        painter.setPen(QPen(colours.color("text" if self.strip.hasFocus() else "surface"), 2))
        painter.setBrush(colours.color("plan"))
        painter.drawEllipse(QPointF(min(max(at(self._now(moment)), 7), place.width() - 7), 13), 7, 7)
