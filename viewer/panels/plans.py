"""The plans that were weighed: a row of imagined frames each, with actions, rewards, ends, score and rank."""

from __future__ import annotations

from dataclasses import dataclass

from PyQt6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, QTimer, pyqtSignal
from PyQt6.QtGui import QMouseEvent, QPainter, QPen, QResizeEvent
from PyQt6.QtWidgets import QScrollArea, QSizePolicy

from jowa.viewer import theme
from jowa.viewer.events import Moment, Path
from jowa.viewer.feed import Feed
from jowa.viewer.panels.magnifier import Magnifier
from jowa.viewer.panels.panel import Keyed, Panel, draw_crisp, image_of, plural, short, small_label

SMALLEST, LARGEST, LABEL, CAPTION, ROW_GAP, SCROLLBAR = 84, 336, 96, 20, 10, 12


NO_SEARCH = "Greedy play imagines nothing.\nPress B for beam search, or T for Monte Carlo tree search."


@dataclass(frozen=True)
class Spot:
    """A frame on the sheet."""

    place: QRectF
    node: int
    path: Path


class Sheet(Keyed):
    """The rows."""

    walked = pyqtSignal(QRectF)
    """By key, to the frame in this place."""

    def __init__(self, magnifier: Magnifier) -> None:
        super().__init__()
        self._magnifier = magnifier
        self.moment: Moment | None = None
        self.spots: list[Spot] = []
        self.side = SMALLEST
        self.at = -1
        self.setMouseTracking(True)
        self.set_keys({
            Qt.Key.Key_Right: lambda: self._walk(1), Qt.Key.Key_Left: lambda: self._walk(-1),
            Qt.Key.Key_Down: lambda: self._walk(1, 1), Qt.Key.Key_Up: lambda: self._walk(-1, -1),
            Qt.Key.Key_PageDown: lambda: self._walk(1), Qt.Key.Key_PageUp: lambda: self._walk(-1),
            Qt.Key.Key_Return: self._pin, Qt.Key.Key_Enter: self._pin,
        }, Qt.FocusPolicy.StrongFocus)  # fmt: skip
        magnifier.changed.connect(self.update)
        self.setSizePolicy(QSizePolicy.Policy.MinimumExpanding, QSizePolicy.Policy.Minimum)
        theme.changed.connect(self.update)

    @property
    def _row(self) -> int:
        return self.side + CAPTION + ROW_GAP

    def set_moment(self, moment: Moment, room: QSize) -> None:
        """Lay the rows out anew, as large as there is ``room``, and not too small."""
        self.moment, self.spots = moment, []
        paths = moment.tree.paths if moment.tree is not None else ()
        deepest = max((len(path.nodes) for path in paths), default=1) or 1
        across = (room.width() - LABEL - SCROLLBAR) // deepest - theme.GAP
        down = room.height() // min(max(len(paths), 1), 4) - CAPTION - ROW_GAP
        self.side = min(max(min(across, down), SMALLEST), LARGEST)
        for row, path in enumerate(paths):
            for column, node in enumerate(path.nodes):
                left = LABEL + column * (self.side + theme.GAP)
                self.spots.append(Spot(QRectF(left, row * self._row, self.side, self.side), node, path))
        self.at = min(self.at, len(self.spots) - 1)
        self.setMinimumSize(LABEL + deepest * (self.side + theme.GAP), max(len(paths), 1) * self._row)
        self.update()

    def paintEvent(self, event: object) -> None:
        """Only the rows that can be seen."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        seen = QRectF(event.rect())  # type: ignore[attr-defined]
        tree = self.moment.tree if self.moment is not None else None
        if self.moment is None:
            return
        if tree is None:
            painter.setPen(theme.colours().color("muted"))
            painter.drawText(QRectF(self.rect()), Qt.AlignmentFlag.AlignCenter, NO_SEARCH)
            return
        for row, path in enumerate(tree.paths):
            if seen.intersects(QRectF(0, row * self._row, self.width(), self._row)):
                self._label(painter, row, path)
        for number, spot in enumerate(self.spots):
            if seen.intersects(spot.place.adjusted(0, 0, 0, CAPTION)):
                self._frame(painter, number, spot)

    def _label(self, painter: QPainter, row: int, path: Path) -> None:
        colours, top = theme.colours(), row * self._row
        chosen = row == 0 and path.rank == 0
        if chosen:
            painter.fillRect(QRectF(0, top, 4, self.side), colours.color("plan"))
        painter.setFont(theme.font(theme.TEXT, bold=chosen))
        painter.setPen(colours.color("plan" if chosen else "text" if path.rank >= 0 else "muted"))
        name = "chosen" if chosen else f"rank {path.rank + 1}" if path.rank >= 0 else "pruned"
        painter.drawText(QPointF(12, top + 16), name)
        painter.setFont(theme.font(theme.LARGE - 3, bold=True))
        painter.setPen(colours.color("text" if path.rank >= 0 else "muted"))
        painter.drawText(QPointF(12, top + 40), f"{path.score:+.2f}")
        painter.setFont(theme.font(theme.SMALL))
        painter.setPen(colours.color("muted"))
        painter.drawText(QPointF(12, top + 56), "Q" if path.visits is not None else "return")
        if path.visits is not None:
            painter.drawText(QPointF(12, top + 74), f"{path.visits:,} visits")

    def _frame(self, painter: QPainter, number: int, spot: Spot) -> None:
        assert self.moment is not None and self.moment.tree is not None
        tree, colours = self.moment.tree, theme.colours()
        frame = tree.frame(spot.node)
        painter.setOpacity(1.0 if spot.path.rank >= 0 else 0.55)
        if frame is None:
            painter.fillRect(spot.place, colours.color("raised"))
        else:
            draw_crisp(painter, image_of(frame), spot.place)
        painter.setOpacity(1.0)
        ring = "loss" if tree.ended[spot.node] else "line"
        if self._magnifier.pinned == spot.node:
            ring = "greedy"
        elif number == self.at and self.hasFocus():
            ring = "plan"
        painter.setPen(QPen(colours.color(ring), 1 if ring == "line" else 2))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(spot.place)
        words = QRectF(spot.place.left(), spot.place.bottom() + 2, self.side, CAPTION - 2)
        painter.setFont(theme.font(theme.TEXT))
        painter.setPen(colours.color("text" if spot.path.rank >= 0 else "muted"))
        painter.drawText(words, Qt.AlignmentFlag.AlignLeft, short(int(tree.action[spot.node])))
        reward = float(tree.reward[spot.node])
        if tree.ended[spot.node]:
            painter.setPen(colours.color("loss"))
            painter.drawText(words, Qt.AlignmentFlag.AlignRight, "end" + (f" {reward:+g}" if reward else ""))
        elif reward:
            painter.setPen(colours.color("gain" if reward > 0 else "loss"))
            painter.drawText(words, Qt.AlignmentFlag.AlignRight, f"{reward:+g}")
        else:
            painter.setPen(colours.color("muted"))
            painter.drawText(words, Qt.AlignmentFlag.AlignRight, f"V {tree.value[spot.node]:.2f}")

    def spot_at(self, point: QPointF) -> int | None:
        """The number of the frame there."""
        return next((number for number, spot in enumerate(self.spots) if spot.place.contains(point)), None)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Hovering shows the frame large."""
        if event is not None:
            number = self.spot_at(event.position())
            self.point(number)

    def leaveEvent(self, event: QEvent | None) -> None:
        """Hovering ends."""
        del event
        self._magnifier.point(None)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Clicking pins."""
        if event is not None:
            number = self.spot_at(event.position())
            self.at = -1 if number is None else number
            self._magnifier.pin(None if number is None else self.spots[number].node)

    def point(self, number: int | None) -> None:
        """Show the frame of that number large."""
        panel = self._magnifier.parentWidget()
        if number is None or panel is None:
            self._magnifier.point(None)
            return
        spot = self.spots[number]
        corner = QPointF(self.mapTo(panel, spot.place.topLeft().toPoint()))
        self._magnifier.point(spot.node, QRectF(corner, spot.place.size()))

    def _pin(self) -> None:
        if self.at >= 0:
            self._magnifier.pin(self.spots[self.at].node)

    def _walk(self, across: int, down: int = 0) -> None:
        """To a frame so many places further in the reading order, or so many rows."""
        if not self.spots:
            return
        to = min(max(self.at + across, 0), len(self.spots) - 1)
        if down and self.at >= 0:
            place = self.spots[self.at].place.translated(0, down * self._row)
            there = [n for n, spot in enumerate(self.spots) if spot.place.top() == place.top()]
            to = min(there, key=lambda n: abs(self.spots[n].place.left() - place.left()), default=self.at)
        self.at = to
        self.walked.emit(self.spots[to].place.adjusted(0, 0, 0, CAPTION))  # which may scroll
        self.point(to)


class PlansPanel(Panel):
    """The rows, and beside them the frame that is pointed at or pinned."""

    title = "Plans"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self.large = Magnifier(self)
        self.sheet = Sheet(self.large)
        self.sheet.setAccessibleName("Imagined frames: arrow keys walk, Enter pins")
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.area.setWidget(self.sheet)
        self.body.addWidget(self.area, 1)
        self._legend = small_label()
        self._legend.setText("Below each frame: action (○ nothing, ● button); reward, or value V")
        self.body.addWidget(self._legend)
        self.sheet.walked.connect(self._follow)

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        self.large.set_moment(moment)
        self._legend.setVisible(moment.tree is not None)
        self._fit()
        self.aside.setText(summary(moment))

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """The rows fit the room that there is now."""
        super().resizeEvent(event)
        if self.moment is not None:
            QTimer.singleShot(0, self._fit)  # once the room has its new size too

    def _fit(self) -> None:
        if self.moment is not None:
            self.sheet.set_moment(self.moment, self.area.maximumViewportSize())

    def _follow(self, place: QRectF) -> None:
        """Keep the frame that keys walked to in sight."""
        self.area.ensureVisible(round(place.center().x()), round(place.center().y()), round(place.width() / 2),
                                round(place.height() / 2) + 4)  # fmt: skip


def summary(moment: Moment) -> str:
    """How the decision was reached, in one line."""
    config = moment.planner
    if moment.tree is None:
        return "greedy play: the action with the highest Q"
    count = len(moment.tree.parent)
    if config.name == "mcts":
        return f"MCTS · {plural(count, 'imagined state')}"
    pruned = sum(path.rank < 0 for path in moment.tree.paths)
    kept = len(moment.tree.paths) - pruned
    weighed = "" if config.td_lambda == 1 else f" · lambda {config.td_lambda:g}"
    return f"beam of {config.width}, {plural(config.horizon, 'step')} ahead · {kept} kept, {pruned} pruned{weighed}"
