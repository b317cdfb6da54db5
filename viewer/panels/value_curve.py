"""The critic's value over the remembered moments, with rewards and the places where planning changed the choice."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PyQt6.QtCore import Qt

from jowa.viewer import theme
from jowa.viewer.commands import GoTo
from jowa.viewer.events import Moment
from jowa.viewer.feed import Feed
from jowa.viewer.panels.panel import MOST_SHOWN, Panel, legend, small_label


class ValueCurve(Panel):
    """Click on a moment to go there."""

    title = "Value"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self.plot = pg.PlotWidget()
        self.plot.setMinimumHeight(96)
        self.plot.setMenuEnabled(False)
        self.plot.setMouseEnabled(x=False, y=False)
        self.plot.hideButtons()
        self.plot.getPlotItem().setContentsMargins(0, 8, 4, 0)
        self._curve = self.plot.plot([], [], antialias=True)
        self._changed = pg.ScatterPlotItem(size=6, pxMode=True)
        self._gains = pg.ScatterPlotItem(size=9, pxMode=True, symbol="t1")
        self._losses = pg.ScatterPlotItem(size=9, pxMode=True, symbol="t")
        self._begins = [pg.InfiniteLine(angle=90) for _ in range(12)]
        self._now = pg.InfiniteLine(angle=90)
        for item in (self._changed, self._gains, self._losses, *self._begins, self._now):
            self.plot.addItem(item)
        self.plot.scene().sigMouseClicked.connect(self._clicked)
        self.body.addWidget(self.plot, 1)
        self._legend = small_label()
        self.body.addWidget(self._legend)
        self.restyle()

    def show_moment(self, moment: Moment) -> None:
        """See :meth:`Panel.show_moment`."""
        trace = moment.trace
        middle = int(np.searchsorted(trace.index, moment.index))
        last = min(max(middle + MOST_SHOWN // 2, MOST_SHOWN), len(trace.index))
        part = slice(max(last - MOST_SHOWN, 0), last)
        x, y = trace.index[part], trace.value[part]
        # A dream or another episode is another curve.
        connect = np.append(~trace.begins[part][1:], False)
        self._curve.setData(x, y, connect=connect)
        for marks, chosen in (
            (self._changed, trace.changed[part]), (self._gains, trace.reward[part] > 0),
            (self._losses, trace.reward[part] < 0),
        ):  # fmt: skip
            marks.setData(x[chosen], y[chosen])
        begins = x[trace.begins[part]][-len(self._begins) :].tolist()
        for number, line in enumerate(self._begins):
            line.setVisible(number < len(begins))
            if number < len(begins):
                line.setPos(begins[number])
        self._now.setPos(moment.index)
        self.plot.setXRange(float(x[0]), float(max(x[-1], x[0] + 20)), padding=0.02)
        share = trace.changed[part].mean()
        self.aside.setText(f"now {moment.value:+.2f} · planning changed {share:.0%}")

    def restyle(self) -> None:
        """See :meth:`Panel.restyle`."""
        colours = theme.colours()
        self.plot.setBackground(colours.color("surface"))
        self._curve.setPen(pg.mkPen(colours.color("text"), width=1.4))
        for marks, tone in ((self._changed, "greedy"), (self._gains, "gain"), (self._losses, "loss")):
            marks.setPen(pg.mkPen(None))
            marks.setBrush(pg.mkBrush(colours.color(tone)))
        for line in self._begins:
            line.setPen(pg.mkPen(colours.color("line"), style=Qt.PenStyle.DashLine))
        self._now.setPen(pg.mkPen(colours.color("plan"), width=1.5))
        for name in ("left", "bottom"):
            axis = self.plot.getPlotItem().getAxis(name)
            axis.setPen(pg.mkPen(colours.color("line")))
            axis.setTextPen(pg.mkPen(colours.color("muted")))
            axis.setStyle(tickFont=theme.font(theme.SMALL), tickLength=-4)
        self._legend.setText(legend(("greedy", "●", "planning changed the choice"), ("gain", "▲", "reward"),
                                    ("loss", "▼", "loss")))  # fmt: skip
        self.plot.getPlotItem().getAxis("bottom").setHeight(20)

    def _clicked(self, event: object) -> None:
        view = self.plot.getPlotItem().vb
        where = view.mapSceneToView(event.scenePos())  # type: ignore[attr-defined]
        self.feed.session.send(GoTo(max(round(where.x()), 0)))
