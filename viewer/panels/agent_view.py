"""What the agent sees: the frame, what its tokens keep of it, and what they lose."""

from __future__ import annotations

import numpy as np
from PyQt6.QtCore import QRectF, Qt
from PyQt6.QtGui import QPainter

from jowa.viewer import theme
from jowa.viewer.events import Moment
from jowa.viewer.feed import Feed
from jowa.viewer.panels.panel import Canvas, Panel, draw_crisp, fit, image_of

CAPTIONS = ("84 × 84 frame", "from its tokens", "difference")
CAPTION_HEIGHT = 18


class AgentView(Panel):
    """Frame, reconstruction, difference."""

    title = "What the agent sees"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._canvas = Canvas(self._paint, 252, 84 + CAPTION_HEIGHT)
        self.body.addWidget(self._canvas, 1)

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        error = np.abs(moment.frame.astype(np.int16) - moment.reconstruction).mean()
        self.aside.setText(f"mean difference {error:.1f} of 255")
        self._canvas.update()

    def _paint(self, painter: QPainter, place: QRectF) -> None:
        if self.moment is None:
            return
        difference = np.abs(self.moment.frame.astype(np.int16) - self.moment.reconstruction).astype(np.uint8)
        width = (place.width() - 2 * theme.GAP) / 3
        painter.setFont(theme.font(theme.SMALL))
        pictures = (self.moment.frame, self.moment.reconstruction, difference)
        for column, (picture, caption) in enumerate(zip(pictures, CAPTIONS, strict=True)):
            cell = QRectF(column * (width + theme.GAP), 0, width, place.height() - CAPTION_HEIGHT)
            target = fit(1, 1, cell)
            draw_crisp(painter, image_of(picture), target)
            painter.setPen(theme.colours().color("muted"))
            words = QRectF(cell.left(), target.bottom(), width, CAPTION_HEIGHT)
            painter.drawText(words, Qt.AlignmentFlag.AlignCenter, caption)
