"""The search tree as a graph: depth from left to right, width by visits or score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PyQt6.QtCore import QEvent, QPointF, QRectF, Qt
from PyQt6.QtGui import QColor, QMouseEvent, QPainter, QPainterPath, QPen
from PyQt6.QtWidgets import QComboBox

from jowa.viewer import theme
from jowa.viewer.events import Moment, Tree
from jowa.viewer.feed import Feed
from jowa.viewer.panels.magnifier import Magnifier
from jowa.viewer.panels.panel import Canvas, Panel, draw_crisp, image_of, plural, short
from jowa.viewer.panels.plans import NO_SEARCH, summary

MOST_NODES = 160
"""That are drawn: more could not be told apart."""
THUMBNAIL, SMALLEST, POINT = 44.0, 22.0, 8.0
"""Sides of a frame where there is room, of the smallest worth drawing, and of a node without one."""
HEAD, FOOT, WORDS, LINE = 36.0, 40.0, 60.0, 13.0


class _Graph(Canvas):
    """Tells where the mouse is, and walks by keys."""

    def __init__(self, panel: TreeGraph) -> None:
        super().__init__(panel.paint, 200, 160)
        self._panel = panel
        self.setMouseTracking(True)
        self.setAccessibleName("Search tree: arrow keys walk, Enter pins")
        walk = panel.walk
        self.set_keys({
            Qt.Key.Key_Right: lambda: walk(1, 0), Qt.Key.Key_Left: lambda: walk(-1, 0),
            Qt.Key.Key_Down: lambda: walk(0, 1), Qt.Key.Key_Up: lambda: walk(0, -1),
            Qt.Key.Key_Return: panel.pin, Qt.Key.Key_Enter: panel.pin,
        }, Qt.FocusPolicy.StrongFocus)  # fmt: skip

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Hovering shows the frame large."""
        if event is not None:
            self._panel.point(self._panel.node_at(event.position()))

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Clicking pins."""
        if event is not None:
            self._panel.at = self._panel.node_at(event.position())
            self._panel.pin()

    def leaveEvent(self, event: QEvent | None) -> None:
        """Hovering ends."""
        del event
        self._panel.large.point(None)


class TreeGraph(Panel):
    """Beam and Monte Carlo trees."""

    title = "Search tree"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._places: dict[int, QPointF] = {}
        self.at: int | None = None
        """The node that keys walked to, or that was clicked; None: the root."""
        self.width_by = QComboBox()
        self.width_by.addItems(["width by visits", "width by score"])
        self.width_by.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.width_by.setAccessibleName("Width of the tree's branches")
        self.width_by.currentIndexChanged.connect(self.update)
        self._header.addWidget(self.width_by)
        self.large = Magnifier(self)
        self.graph = _Graph(self)
        self.body.addWidget(self.graph, 1)
        self.large.changed.connect(self.graph.update)

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        counted = moment.tree is not None and moment.tree.visits is not None
        self.width_by.setVisible(counted)
        shown = 0 if moment.tree is None else min(len(moment.tree.parent), MOST_NODES)
        hidden = 0 if moment.tree is None else len(moment.tree.parent) - shown
        self.aside.setText(summary(moment) + (f" · {shown} shown" if hidden else ""))
        self._places = {} if moment.tree is None else place_nodes(moment.tree)
        self.large.set_moment(moment)
        if self.at not in self._places:
            self.at = None
        self.graph.update()

    def node_at(self, where: QPointF) -> int | None:
        """The node that is drawn there, or near."""
        nodes = [node for node in self._places if node >= 0]
        nearest = min(nodes, key=lambda node: (self._at(node) - where).manhattanLength(), default=None)
        if nearest is None or (self._at(nearest) - where).manhattanLength() > THUMBNAIL:
            return None
        return nearest

    def point(self, node: int | None) -> None:
        """Show the frame of ``node`` large."""
        near = QRectF()
        if node is not None:
            near = QRectF(0, 0, THUMBNAIL, THUMBNAIL)
            near.moveCenter(self._at(node) + QPointF(self.graph.pos()))
        self.large.point(node, near)

    def pin(self) -> None:
        """Keep the frame of the node at hand, or let go."""
        self.large.pin(self.at)

    def walk(self, deeper: int, down: int) -> None:
        """Towards the leaves or the root, or among the nodes of a depth."""
        if self.moment is None or self.moment.tree is None:
            return
        tree, at = self.moment.tree, self.at
        if at is None:
            self.at = next(iter(tree.paths[0].nodes), None)
        elif deeper < 0:
            self.at = int(tree.parent[at]) if tree.parent[at] >= 0 else at
        elif deeper > 0:
            children = [node for node in tree.paths[0].nodes if tree.parent[node] == at]
            children += [node for node in self._places if node >= 0 and tree.parent[node] == at]
            self.at = children[0] if children else at
        else:
            level = [node for node in self._places if node >= 0 and tree.depth[node] == tree.depth[at]]
            level.sort(key=lambda node: self._places[node].y())
            self.at = level[min(max(level.index(at) + down, 0), len(level) - 1)]
        self.point(self.at)

    def _at(self, node: int) -> QPointF:
        place = QRectF(self.graph.rect()).adjusted(THUMBNAIL / 2 + 2, HEAD, -THUMBNAIL / 2 - WORDS, -FOOT)
        unit = self._places[node]
        return QPointF(place.left() + unit.x() * place.width(), place.top() + unit.y() * place.height())

    def paint(self, painter: QPainter, place: QRectF) -> None:
        """Branches, then nodes."""
        if self.moment is None:
            return
        tree, colours = self.moment.tree, theme.colours()
        if tree is None:
            painter.setPen(colours.color("muted"))
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, NO_SEARCH)
            return
        chosen = set(tree.paths[0].nodes)
        kept = {node for path in tree.paths if path.rank >= 0 for node in path.nodes}
        weights = self._weights(tree)
        for node in self._places:
            if node >= 0:
                tone = "plan" if node in chosen else "text" if node in kept else "muted"
                painter.setPen(QPen(_ink(tone), 1 + 7 * float(weights[node]), cap=Qt.PenCapStyle.RoundCap))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawPath(_branch(self._at(int(tree.parent[node])), self._at(node)))
        self._words(painter, place, tree)
        room = self._room(tree)
        side = min(min(room.values()) - 4, THUMBNAIL)
        side = side if side >= SMALLEST else POINT
        for node in self._places:
            self._node(painter, tree, node, node in chosen, side if node >= 0 else THUMBNAIL)
            if node >= 0 and (node in chosen or room[int(tree.depth[node])] >= LINE):
                self._label(painter, tree, node, node in chosen, side)

    def _words(self, painter: QPainter, place: QRectF, tree: Tree) -> None:
        """Depths above, what colours mean below."""
        colours = theme.colours()
        painter.setFont(theme.font(theme.SMALL))
        painter.setPen(colours.color("muted"))
        for node in {int(depth): node for node, depth in enumerate(tree.depth) if node in self._places}.values():
            column = QRectF(self._at(node).x() - 40, 0, 80, 16)
            painter.drawText(column, Qt.AlignmentFlag.AlignCenter, plural(int(tree.depth[node]), "step"))
        painter.drawText(QRectF(0, 0, 60, 16), Qt.AlignmentFlag.AlignLeft, "now")
        left = 0.0
        for tone, text in (("plan", "chosen"), ("text", "kept"), ("muted", "pruned"), ("loss", "predicted end")):
            if tone == "muted" and tree.visits is not None:
                continue
            painter.setPen(QPen(_ink(tone), 3, cap=Qt.PenCapStyle.RoundCap))
            painter.drawLine(QPointF(left + 2, place.bottom() - 7), QPointF(left + 18, place.bottom() - 7))
            painter.setPen(colours.color("muted"))
            painter.drawText(QPointF(left + 25, place.bottom() - 3), text)
            left += 43 + painter.fontMetrics().horizontalAdvance(text)

    def _weights(self, tree: Tree) -> NDArray[np.float64]:
        if tree.visits is not None and self.width_by.currentIndex() == 0:
            return tree.visits / max(int(tree.visits.max()), 1)
        low, high = float(np.nanmin(tree.score)), float(np.nanmax(tree.score))
        if high == low:
            return np.full(len(tree.score), 0.5)
        return np.nan_to_num((tree.score.astype(np.float64) - low) / (high - low))

    def _room(self, tree: Tree) -> dict[int, float]:
        """At each depth, the smallest distance from a node to the next."""
        heights: dict[int, list[float]] = {}
        for node in self._places:
            if node >= 0:
                heights.setdefault(int(tree.depth[node]), []).append(self._at(node).y())
        return {depth: float(np.diff(sorted(ys)).min(initial=1e9)) for depth, ys in heights.items()}

    def _node(self, painter: QPainter, tree: Tree, node: int, chosen: bool, side: float) -> None:
        colours, at = theme.colours(), self._at(node)
        assert self.moment is not None
        frame = self.moment.reconstruction if node < 0 else tree.frame(node)
        ended = node >= 0 and bool(tree.ended[node])
        tone = "plan" if chosen or node < 0 else "loss" if ended else "line"
        at_hand = node >= 0 and node == self.at and self.graph.hasFocus()
        marked = at_hand or (node >= 0 and node == self.large.pinned)
        ring = colours.color("greedy" if marked else tone)
        if side == POINT or frame is None:
            painter.setPen(QPen(ring, 2.5 if marked else 1.5))
            painter.setBrush(colours.color("plan" if chosen else "surface"))
            painter.drawEllipse(at, *((6, 6) if marked else (4, 4)))
        else:
            box = QRectF(at.x() - side / 2, at.y() - side / 2, side, side)
            draw_crisp(painter, image_of(frame), box)
            painter.setPen(QPen(ring, 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(box)

    def _label(self, painter: QPainter, tree: Tree, node: int, chosen: bool, side: float) -> None:
        """The action that leads to a node, and what it is worth where there is room."""
        at, said = self._at(node), short(int(tree.action[node]))
        painter.setFont(theme.font(theme.SMALL, bold=chosen))
        painter.setPen(theme.colours().color("plan" if chosen else "muted"))
        leaf = not (tree.parent == node).any()
        left, worth = at.x() + side / 2 + 5, f"{float(tree.score[node]):+.2f}"
        if leaf and side >= 2 * LINE:
            painter.drawText(QPointF(left, at.y() - 3), said)
            painter.drawText(QPointF(left, at.y() + 12), worth)
        elif leaf:
            painter.drawText(QPointF(left, at.y() + 4), said if side == POINT else f"{said} {worth}")
        else:
            painter.drawText(QPointF(left, at.y() - max(side / 2 - 6, 6)), said)


def place_nodes(tree: Tree) -> dict[int, QPointF]:
    """Places in the unit square of the nodes that are drawn, the root (-1) among them: leaves evenly, best first."""
    weight = tree.score if tree.visits is None else tree.visits
    drawn = set(np.argsort(-weight, kind="stable")[:MOST_NODES].tolist())
    for node in list(drawn):  # nobody without their ancestors
        while tree.parent[node] >= 0:
            node = int(tree.parent[node])
            drawn.add(node)
    children: dict[int, list[int]] = {}
    for node in sorted(drawn, key=lambda node: -float(weight[node])):
        children.setdefault(int(tree.parent[node]), []).append(node)
    deepest = int(tree.depth[list(drawn)].max())
    rows: dict[int, float] = {}
    leaves = 0

    def visit(node: int) -> float:
        nonlocal leaves
        below = [visit(child) for child in children.get(node, [])]
        if not below:
            leaves += 1
            rows[node] = leaves - 0.5
        else:
            rows[node] = (below[0] + below[-1]) / 2
        return rows[node]

    visit(-1)
    return {
        node: QPointF((0 if node < 0 else int(tree.depth[node])) / deepest, row / leaves) for node, row in rows.items()
    }


def _ink(tone: str) -> QColor:
    """Of branches, and of their legend: only the chosen ones stand out."""
    return theme.colours().color(tone, 0.45 if tone in ("text", "muted") else 1.0)


def _branch(start: QPointF, end: QPointF) -> QPainterPath:
    path = QPainterPath(start)
    middle = (start.x() + end.x()) / 2
    path.cubicTo(QPointF(middle, start.y()), QPointF(middle, end.y()), end)
    return path
