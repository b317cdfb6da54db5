"""One imagined frame, large, in the corner of its panel: the one that is pointed at, else the one that is pinned."""

from __future__ import annotations

from PyQt6.QtCore import QRectF, Qt, pyqtSignal
from PyQt6.QtGui import QPainter, QPen
from PyQt6.QtWidgets import QWidget

from jowa.viewer import theme
from jowa.viewer.events import Moment
from jowa.viewer.panels.panel import draw_crisp, image_of, plural, spoken


class Magnifier(QWidget):
    """Hidden while nothing is pointed at or pinned."""

    SIDE, FOOT = 252, 56
    changed = pyqtSignal()
    """Something else is pinned, or nothing any more."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.resize(self.SIDE + 2 * theme.GAP, self.SIDE + self.FOOT + theme.GAP)
        self.pinned: int | None = None
        """A node of the moment's tree."""
        self._pointed: int | None = None
        self._moment: Moment | None = None
        self.hide()

    @property
    def node(self) -> int | None:
        """That is shown."""
        return self.pinned if self._pointed is None else self._pointed

    def set_moment(self, moment: Moment) -> None:
        """What is pinned stays as long as the same decision is shown."""
        if self._moment is None or _search(moment) != _search(self._moment):
            self._pointed = self.pinned = None
            self.changed.emit()
        self._moment = moment
        self._show()

    def point(self, node: int | None) -> None:
        """Show ``node``; None: what is pinned, if anything is."""
        self._pointed = node
        self._show()

    def pin(self, node: int | None) -> None:
        """Keep ``node`` shown; None, or what is pinned already: let go."""
        self.pinned = None if node == self.pinned else node
        self._pointed = None
        self._show()
        self.changed.emit()

    def _show(self) -> None:
        tree = None if self._moment is None else self._moment.tree
        parent = self.parentWidget()
        if self.node is None or tree is None or parent is None:
            self.hide()
            return
        self.move(parent.width() - self.width() - theme.MARGIN, parent.height() - self.height() - theme.MARGIN)
        self.show()
        self.raise_()
        self.update()

    def paintEvent(self, event: object) -> None:
        """The frame and what is known of it."""
        del event
        node = self.node
        if self._moment is None or node is None or self._moment.tree is None:
            return
        tree, colours = self._moment.tree, theme.colours()
        pinned = node == self.pinned
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(colours.color("greedy" if pinned else "line"), 2))
        painter.setBrush(colours.color("surface"))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), theme.RADIUS, theme.RADIUS)
        frame, place = tree.frame(node), QRectF(theme.GAP, theme.GAP, self.SIDE, self.SIDE)
        painter.setFont(theme.font(theme.TEXT))
        if frame is not None:
            draw_crisp(painter, image_of(frame), place)
        else:
            painter.setPen(colours.color("muted"))
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, "not drawn: so many states\nwere imagined")
        painter.setPen(colours.color("text"))
        words = QRectF(theme.GAP, self.SIDE + theme.GAP, self.SIDE, self.FOOT - theme.GAP)
        note = " · pinned" if pinned else ""
        end = " · predicted end" if tree.ended[node] else ""
        text = (
            f"{plural(int(tree.depth[node]), 'step')} ahead, after {spoken(int(tree.action[node]))}{note}\n"
            f"reward {float(tree.reward[node]) or 0:g} · value {float(tree.value[node]):.2f}{end}"
        )
        painter.drawText(words, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, text)


def _search(moment: Moment) -> tuple[object, ...]:
    """What two looks at the same decision have in common, and no others."""
    nodes = None if moment.tree is None else (moment.tree.parent.tobytes(), moment.tree.action.tobytes())
    return moment.index, moment.episode, moment.step, moment.planner, nodes
