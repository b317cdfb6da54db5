"""One imagined frame, large, in a corner of its panel: the one that is pointed at, else the one that is pinned."""

from __future__ import annotations

from PyQt6.QtCore import QRectF, Qt, pyqtSignal
from PyQt6.QtGui import QPainter, QPen
from PyQt6.QtWidgets import QWidget

from jowa.viewer import theme
from jowa.viewer.events import Moment
from jowa.viewer.panels.panel import draw_crisp, image_of, plural, spoken

PIXELS = 84
"""Along each side of a frame."""


class Magnifier(QWidget):
    """Hidden while nothing is pointed at or pinned."""

    FOOT = 56
    changed = pyqtSignal()
    """Something else is pinned, or nothing any more."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.side = 3 * PIXELS
        self.pinned: int | None = None
        """A node of the moment's tree."""
        self._pointed: int | None = None
        self._near = QRectF()
        """Where in the panel the frame itself is drawn, which must stay in sight."""
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

    def point(self, node: int | None, near: QRectF | None = None) -> None:
        """Show ``node``, which the panel draws at ``near``; None: what is pinned, if anything is."""
        self._pointed = node
        if near is not None:
            self._near = near
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
        self._place(parent)
        self.show()
        self.raise_()
        self.update()

    def _place(self, parent: QWidget) -> None:
        """As large as there is room, in the corner where it hides least of the frame that it shows."""
        self.side = min(max(int(0.45 * min(parent.width(), parent.height()) / PIXELS), 3), 6) * PIXELS
        self.resize(self.side + 2 * theme.GAP, self.side + self.FOOT + theme.GAP)
        right, left = parent.width() - self.width() - theme.MARGIN, theme.MARGIN
        bottom, top = parent.height() - self.height() - theme.MARGIN, theme.MARGIN
        corners = [(right, bottom), (right, top), (left, bottom), (left, top)]

        def hidden(corner: tuple[int, int]) -> float:
            common = QRectF(*corner, self.width(), self.height()).intersected(self._near)
            return common.width() * common.height()

        self.move(*min(corners, key=hidden))

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
        frame, place = tree.frame(node), QRectF(theme.GAP, theme.GAP, self.side, self.side)
        painter.setFont(theme.font(theme.TEXT))
        if frame is not None:
            draw_crisp(painter, image_of(frame), place)
        else:
            painter.setPen(colours.color("muted"))
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, "not drawn: so many states\nwere imagined")
        painter.setPen(colours.color("text"))
        words = QRectF(theme.GAP, self.side + theme.GAP, self.side, self.FOOT - theme.GAP)
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
