"""The plans that were weighed: a row of imagined frames each, with actions, rewards, ends, score and rank."""

from __future__ import annotations

from dataclasses import dataclass

from PyQt6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, pyqtSignal
from PyQt6.QtGui import QKeyEvent, QMouseEvent, QPainter, QPen
from PyQt6.QtWidgets import QScrollArea, QSizePolicy, QWidget

from jowa.viewer import theme
from jowa.viewer.events import Moment, Path
from jowa.viewer.feed import Feed
from jowa.viewer.panels.panel import Panel, draw_crisp, image_of, short, spoken

SMALLEST, LARGEST, LABEL, CAPTION, ROW_GAP = 84, 168, 96, 20, 10


@dataclass(frozen=True)
class Spot:
    """A frame on the sheet."""

    place: QRectF
    node: int
    path: Path


class Sheet(QWidget):
    """The rows."""

    pointed = pyqtSignal(object)
    """At a :class:`Spot`, or None."""
    pinned = pyqtSignal(object)

    def __init__(self) -> None:
        super().__init__()
        self.moment: Moment | None = None
        self.spots: list[Spot] = []
        self.side = SMALLEST
        self.at = -1
        self.pin: int | None = None
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
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
        across = (room.width() - LABEL) // deepest - theme.GAP
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
        if self.moment is None or tree is None:
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
        ring = "greedy" if self.pin == spot.node else "plan" if number == self.at and self.hasFocus() else None
        ring = ring or ("loss" if tree.ended[spot.node] else "line")
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

    def spot_at(self, point: QPointF) -> Spot | None:
        """The frame there."""
        return next((spot for spot in self.spots if spot.place.contains(point)), None)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Hovering shows the frame large."""
        if event is not None:
            self.pointed.emit(self.spot_at(event.position()))

    def leaveEvent(self, event: QEvent | None) -> None:
        """Hovering ends."""
        del event
        self.pointed.emit(None)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Clicking pins."""
        if event is not None:
            self._pin(self.spot_at(event.position()))

    def _pin(self, spot: Spot | None) -> None:
        self.pin = None if spot is None or spot.node == self.pin else spot.node
        self.pinned.emit(None if self.pin is None else spot)
        self.update()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Page keys walk through the frames, Enter pins."""
        if event is None or not self.spots:
            return super().keyPressEvent(event)
        move = {Qt.Key.Key_PageDown: 1, Qt.Key.Key_PageUp: -1}.get(Qt.Key(event.key()))
        if move is not None:
            self.at = min(max(self.at + move, 0), len(self.spots) - 1)
            self.pointed.emit(self.spots[self.at])
            self.update()
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.at >= 0:
            self._pin(self.spots[self.at])
        else:
            super().keyPressEvent(event)


class PlansPanel(Panel):
    """The rows, and beside them the frame that is pointed at or pinned."""

    title = "Plans"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self.sheet = Sheet()
        self.sheet.setAccessibleName("Imagined frames: Page Up and Page Down walk, Enter pins")
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.area.setWidget(self.sheet)
        self.body.addWidget(self.area, 1)
        self.large = Magnifier(self)
        self.large.hide()
        self.sheet.pointed.connect(self._point)
        self.sheet.pinned.connect(self._pin)
        self._pinned: Spot | None = None

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        if self._pinned is not None and (self.large.index != moment.index):
            self._pinned, self.sheet.pin = None, None
            self.large.hide()
        self.sheet.set_moment(moment, self.area.maximumViewportSize())
        self.aside.setText(summary(moment))

    def _point(self, spot: Spot | None) -> None:
        self._magnify(spot or self._pinned)

    def _pin(self, spot: Spot | None) -> None:
        self._pinned = spot
        self._magnify(spot)

    def _magnify(self, spot: Spot | None) -> None:
        if spot is None or self.moment is None:
            self.large.hide()
        else:
            self.large.set_spot(self.moment, spot, self._pinned is not None and spot.node == self._pinned.node)


class Magnifier(QWidget):
    """One imagined frame, large, in the corner of the panel."""

    SIDE, FOOT = 252, 56

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.resize(self.SIDE + 2 * theme.GAP, self.SIDE + self.FOOT + theme.GAP)
        self.moment: Moment | None = None
        self.spot: Spot | None = None
        self.pinned = False

    @property
    def index(self) -> int:
        """Of the moment it shows."""
        return -1 if self.moment is None else self.moment.index

    def set_spot(self, moment: Moment, spot: Spot, pinned: bool) -> None:
        """Show that frame."""
        self.moment, self.spot, self.pinned = moment, spot, pinned
        parent = self.parentWidget()
        if parent is not None:
            self.move(parent.width() - self.width() - theme.MARGIN, parent.height() - self.height() - theme.MARGIN)
        self.show()
        self.raise_()
        self.update()

    def paintEvent(self, event: object) -> None:
        """The frame and what is known of it."""
        del event
        if self.moment is None or self.spot is None or self.moment.tree is None:
            return
        tree, node, colours = self.moment.tree, self.spot.node, theme.colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(colours.color("greedy" if self.pinned else "line"), 2))
        painter.setBrush(colours.color("surface"))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), theme.RADIUS, theme.RADIUS)
        frame = tree.frame(node)
        if frame is not None:
            draw_crisp(painter, image_of(frame), QRectF(theme.GAP, theme.GAP, self.SIDE, self.SIDE))
        painter.setPen(colours.color("text"))
        painter.setFont(theme.font(theme.TEXT))
        words = QRectF(theme.GAP, self.SIDE + theme.GAP, self.SIDE, self.FOOT - theme.GAP)
        pinned = " · pinned" if self.pinned else ""
        end = " · predicted end" if tree.ended[node] else ""
        text = (
            f"{plural(int(tree.depth[node]), 'step')} ahead, after {spoken(int(tree.action[node]))}{pinned}\n"
            f"reward {float(tree.reward[node]) or 0:g} · value {float(tree.value[node]):.2f}{end}"
        )
        painter.drawText(words, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, text)


def plural(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def summary(moment: Moment) -> str:
    """How the decision was reached, in one line."""
    config = moment.planner
    if moment.tree is None:
        return "no plans: greedy in Q, nothing is imagined"
    count = len(moment.tree.parent)
    if config.name == "mcts":
        return f"MCTS · {count:,} imagined states"
    pruned = sum(path.rank < 0 for path in moment.tree.paths)
    return f"beam {config.width} × {config.horizon} · {len(moment.tree.paths) - pruned} kept, {pruned} pruned"
