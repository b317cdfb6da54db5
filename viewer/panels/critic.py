"""What the critic says of every legal action: Q with the ensemble's spread, or the whole distributions."""

from __future__ import annotations

import numpy as np
from PyQt6.QtCore import QPointF, QRectF, Qt
from PyQt6.QtGui import QPainter, QPainterPath, QPen
from PyQt6.QtWidgets import QPushButton

from jowa.viewer import theme
from jowa.viewer.commands import AskDistributions
from jowa.viewer.events import Distributions, Moment
from jowa.viewer.feed import Feed
from jowa.viewer.panels.panel import Canvas, Panel, short, spoken

NAME, NUMBER, AXIS, LEGEND = 138, 52, 20, 20
MOST_ROW, ROOMY = 56.0, 24.0
TAIL = 0.005
"""Share of a distribution at either end that need not be in sight."""


class CriticPanel(Panel):
    """One row an action."""

    title = "Critic"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self.found: Distributions | None = None
        self.toggle = QPushButton("Distributions")
        self.toggle.setCheckable(True)
        self.toggle.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.toggle.setToolTip("The value distribution of each action instead of its mean (D)")
        self.toggle.toggled.connect(self._ask)
        self._header.addWidget(self.toggle)
        self._canvas = Canvas(self._paint, 260, 120)
        self.body.addWidget(self._canvas, 1)
        feed.distributions.connect(self._show_distributions)

    def _ask(self, wanted: bool) -> None:
        self.feed.session.send(AskDistributions(wanted))
        if not wanted:
            self.found = None
        self._canvas.update()

    @property
    def _spread_out(self) -> bool:
        """Whether distributions are drawn: once they were asked for and came."""
        return self.found is not None and self.toggle.isChecked()

    def _show_distributions(self, found: Distributions) -> None:
        self.found = found
        self._canvas.update()

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        if moment.planner.name == "none" or moment.planner.depth == 0:
            self.aside.setText("greedy play")
        elif moment.changed:
            self.aside.setText(f'<span style="color: {theme.colours().greedy}">planning disagrees</span>')
        else:
            self.aside.setText("planning agrees")
        q = moment.q
        best = f"planned {spoken(moment.advice)}, greedy {spoken(moment.greedy)}"
        self._canvas.setAccessibleDescription(f"{best}, Q {q[moment.greedy]:.2f}")
        self._canvas.update()

    def restyle(self) -> None:
        """See :meth:`Panel.restyle`."""
        if self.moment is not None:
            self.show_moment(self.moment)

    def _paint(self, painter: QPainter, place: QRectF) -> None:
        if self.moment is None:
            return
        actions = np.flatnonzero(self.moment.legal)
        area = place.adjusted(0, 0, 0, -AXIS - LEGEND)
        spread = self._spread_out
        # Where rows are low, each distribution rises into the row above, or nothing could be seen of it.
        rise = 1.0 if spread and area.height() / len(actions) < ROOMY else 0.0
        row = min(area.height() / (len(actions) + rise), MOST_ROW)
        low, high = self._range(actions)
        span = QRectF(NAME, 0, place.width() - NAME - NUMBER, row * (len(actions) + rise))
        self._axis(painter, span, low, high)
        for number, action in enumerate(actions.tolist()):
            line = QRectF(0, (number + rise) * row, place.width(), row)
            self._names(painter, line, action)
            bar = QRectF(span.left(), line.top(), span.width(), row)
            if spread:
                self._ridge(painter, bar.adjusted(0, -rise * row, 0, 0), action, low, high)
            else:
                self._bar(painter, bar, action, low, high)
        self._legend(painter, QRectF(0, span.bottom() + AXIS, place.width(), LEGEND))

    def _range(self, actions: np.ndarray) -> tuple[float, float]:
        assert self.moment is not None
        if self._spread_out:
            assert self.found is not None
            below = self.found.probabilities[:, actions].mean(0).cumsum(1)
            atoms = self.found.atoms[((below > TAIL) & (below < 1 - TAIL)).any(0)]
            step = float(self.found.atoms[1] - self.found.atoms[0])
            return (float(atoms[0]) - step, float(atoms[-1]) + 2 * step) if len(atoms) else (-step, step)
        q, spread = self.moment.q[actions], self.moment.spread[actions]
        low, high = float((q - spread).min()), float((q + spread).max())
        room = max((high - low) * 0.12, 0.02)
        low, high = low - room, high + room
        near = max(low, -high) < (high - low) / 2  # then the bars begin at zero, and their lengths can be compared
        return (min(low, 0.0), max(high, 0.0)) if near else (low, high)

    def _names(self, painter: QPainter, line: QRectF, action: int) -> None:
        moment, colours = self.moment, theme.colours()
        assert moment is not None
        planned, greedy = action == moment.advice, action == moment.greedy
        tone = "plan" if planned else "greedy" if greedy else "text"
        size = min(theme.TEXT, max(line.height() * 0.55, 6.5))
        painter.setFont(theme.font(size, bold=planned or greedy))
        painter.setPen(colours.color(tone))
        painter.drawText(QRectF(14, line.top(), 26, line.height()), Qt.AlignmentFlag.AlignVCenter, short(action))
        words = QRectF(42, line.top(), NAME - 46, line.height())
        painter.drawText(words, Qt.AlignmentFlag.AlignVCenter, spoken(action))
        painter.setPen(Qt.PenStyle.NoPen)
        middle = line.center().y()
        if planned:
            painter.setBrush(colours.color("plan"))
            painter.drawPolygon(QPointF(2, middle - 5), QPointF(10, middle), QPointF(2, middle + 5))
        elif greedy:
            painter.setBrush(colours.color("greedy"))
            painter.drawPolygon(*_diamond(6, middle))
        painter.setFont(theme.font(size, fixed=True))
        painter.setPen(colours.color(tone))
        number = QRectF(line.right() - NUMBER, line.top(), NUMBER, line.height())
        painter.drawText(number, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter,
                         f"{moment.q[action]:+.2f}")  # fmt: skip

    def _tone(self, action: int) -> str:
        assert self.moment is not None
        return "plan" if action == self.moment.advice else "greedy" if action == self.moment.greedy else "muted"

    def _bar(self, painter: QPainter, place: QRectF, action: int, low: float, high: float) -> None:
        assert self.moment is not None
        colours = theme.colours()
        q, spread = float(self.moment.q[action]), float(self.moment.spread[action])

        def at(value: float) -> float:
            return place.left() + (value - low) / (high - low) * place.width()

        thick = min(place.height() * 0.55, 18)
        zero = at(min(max(0.0, low), high))
        bar = QRectF(min(zero, at(q)), place.center().y() - thick / 2, abs(at(q) - zero), thick)
        painter.fillRect(bar, colours.color(self._tone(action), 0.75))
        if spread > 0:
            middle = place.center().y()
            painter.setPen(QPen(colours.color("text"), 1.2))
            painter.drawLine(QPointF(at(q - spread), middle), QPointF(at(q + spread), middle))
            for end in (q - spread, q + spread):
                painter.drawLine(QPointF(at(end), middle - thick / 3), QPointF(at(end), middle + thick / 3))

    def _ridge(self, painter: QPainter, place: QRectF, action: int, low: float, high: float) -> None:
        assert self.found is not None and self.moment is not None
        colours = theme.colours()
        members, atoms = self.found.probabilities[:, action], self.found.atoms
        top = max(float(self.found.probabilities[:, self.moment.legal].mean(0).max()), 1e-6)
        base, height = place.bottom() - 2, place.height() - 5

        def curve(probabilities: np.ndarray) -> QPainterPath:
            path = QPainterPath(QPointF(place.left(), base))
            for value, share in zip(atoms.tolist(), probabilities.tolist(), strict=True):
                if low <= value <= high:
                    x = place.left() + (value - low) / (high - low) * place.width()
                    path.lineTo(x, base - min(share / top, 1.0) * height)
            path.lineTo(place.right(), base)
            return path

        tone, whole = self._tone(action), curve(members.mean(0))
        painter.fillPath(whole, colours.color("surface", 0.6))  # what rises behind it stays behind it
        painter.setPen(QPen(colours.color(tone), 1.3))
        painter.setBrush(colours.color(tone, 0.35))
        painter.drawPath(whole)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(colours.color("text", 0.35), 0.8))
        for member in members:
            painter.drawPath(curve(member))

    def _axis(self, painter: QPainter, span: QRectF, low: float, high: float) -> None:
        colours = theme.colours()
        step = _nice((high - low) / 5)
        painter.setFont(theme.font(theme.SMALL))
        for tick in np.arange(np.ceil(low / step) * step, high, step):
            x = span.left() + (tick - low) / (high - low) * span.width()
            painter.setPen(QPen(colours.color("line"), 1))
            painter.drawLine(QPointF(x, span.top()), QPointF(x, span.bottom()))
            painter.setPen(colours.color("muted"))
            digits = 2 if step < 0.1 else 1 if step < 1 else 0
            words = QRectF(x - 30, span.bottom() + 2, 60, AXIS - 2)
            painter.drawText(words, Qt.AlignmentFlag.AlignCenter, f"{round(tick, digits) or 0.0:.{digits}f}")

    def _legend(self, painter: QPainter, place: QRectF) -> None:
        colours = theme.colours()
        painter.setFont(theme.font(theme.SMALL))
        what = "return" if self._spread_out else "Q ± spread"
        painter.setPen(colours.color("muted"))
        painter.drawText(
            place, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{what}, in clipped reward"
        )
        middle = place.center().y()
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colours.color("plan"))
        painter.drawPolygon(QPointF(2, middle - 5), QPointF(10, middle), QPointF(2, middle + 5))
        painter.setBrush(colours.color("greedy"))
        painter.drawPolygon(*_diamond(62, middle))
        painter.setPen(colours.color("muted"))
        painter.drawText(QRectF(14, place.top(), 44, place.height()), Qt.AlignmentFlag.AlignVCenter, "plan")
        painter.drawText(QRectF(70, place.top(), 60, place.height()), Qt.AlignmentFlag.AlignVCenter, "greedy")


def _diamond(x: float, y: float) -> tuple[QPointF, ...]:
    """Not a circle, which stands for the button."""
    return QPointF(x - 5, y), QPointF(x, y - 5), QPointF(x + 5, y), QPointF(x, y + 5)


def _nice(step: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(max(step, 1e-9)))
    return float(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999))
