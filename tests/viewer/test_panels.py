"""What the panels draw: shapes, marks, widths; and the panel that CONTRIBUTING.md shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PyQt6.QtWidgets")
pytest.importorskip("pyqtgraph")

from PyQt6.QtCore import QRectF, Qt
from PyQt6.QtGui import QColor, QImage, QPainter
from PyQt6.QtWidgets import QLabel, QWidget
from pytestqt.qtbot import QtBot

from jowa.viewer import commands as told
from jowa.viewer import theme
from jowa.viewer.events import Hindsight, Moment
from jowa.viewer.feed import Feed
from jowa.viewer.keep import picture_of
from jowa.viewer.panels.panel import Panel, draw_crisp, fit, image_of
from jowa.viewer.window import Window

Open = Callable[..., Window]
Settled = Callable[[Window], None]


def pixels_of(widget: QWidget, tone: str) -> np.ndarray:
    """bool (height, width): where ``widget`` has a colour of the theme."""
    return (picture_of(widget) == QColor(getattr(theme.colours(), tone)).getRgb()[:3]).all(2)


@pytest.mark.parametrize(("width", "height"), [(387, 290), (160, 210), (1003, 752)])
def test_pictures_are_crisp_at_any_size(width: int, height: int) -> None:
    source = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (210, 160))
    page = QImage(width, height, QImage.Format.Format_Grayscale8)
    painter = QPainter(page)
    draw_crisp(painter, image_of(source), QRectF(0, 0, width, height))
    painter.end()
    bits = page.constBits()
    drawn = np.frombuffer(bits.asarray(page.sizeInBytes()), np.uint8).reshape(height, -1)[:, :width].astype(int)
    down = np.clip(((np.arange(210) + 0.5) * height / 210).astype(int), 0, height - 1)
    across = np.clip(((np.arange(160) + 0.5) * width / 160).astype(int), 0, width - 1)
    assert ((drawn[down][:, across] > 127) == (source > 127)).mean() > 0.995
    # Blurred, most of what is drawn would be grey: only borders of pixels may be.
    assert ((drawn > 40) & (drawn < 215)).mean() <= 0.75 * (width % 160 or height % 210 != 0)


def test_the_game_keeps_its_shape(open_window: Open) -> None:
    window = open_window()
    view = window.game.screen_view
    window.game.moment = replace(window.feed.latest, screen=np.full((210, 160, 3), 255, np.uint8), reward=0.0)
    window.game._image = image_of(window.game.moment.screen)
    for square, ratio in ((False, 4 / 3), (True, 160 / 210)):
        window.game.set_square_pixels(square)
        rows, columns = np.nonzero((picture_of(view) == 255).all(2))
        assert np.ptp(columns) / np.ptp(rows) == pytest.approx(ratio, rel=0.02)
        assert fit(ratio, 1, QRectF(view.rect())).height() == pytest.approx(np.ptp(rows), abs=3)


def test_the_critic_marks_where_planning_changed_the_choice(open_window: Open) -> None:
    critic = open_window().critic
    moment = critic.moment
    other = next(int(a) for a in np.flatnonzero(moment.legal) if a != moment.greedy)
    critic.show_moment(replace(moment, advice=moment.greedy))
    critic.moment = replace(moment, advice=moment.greedy)
    assert critic.aside.text() == "planning agrees"
    agreed = pixels_of(critic._canvas, "greedy").sum()
    critic.moment = replace(moment, advice=other)
    critic.show_moment(critic.moment)
    assert "planning disagrees" in critic.aside.text()
    assert pixels_of(critic._canvas, "greedy").sum() > agreed + 20  # a diamond more than in the legend
    assert pixels_of(critic._canvas, "plan").any()


def test_distributions_replace_the_bars(open_window: Open, settled: Settled, qtbot: QtBot) -> None:
    window = open_window()
    bars = picture_of(window.critic._canvas)
    qtbot.mouseClick(window.critic.toggle, Qt.MouseButton.LeftButton)
    settled(window)
    qtbot.waitUntil(lambda: window.critic.found is not None)
    assert (picture_of(window.critic._canvas) != bars).any()
    qtbot.mouseClick(window.critic.toggle, Qt.MouseButton.LeftButton)
    settled(window)
    assert (picture_of(window.critic._canvas) == bars).all()


def test_the_value_curve_goes_where_it_is_clicked_and_marks_changes(
    open_window: Open, settled: Settled, qtbot: QtBot
) -> None:
    window = open_window()
    window.session.send(*[told.Step()] * 12)
    settled(window)
    plot, trace = window.value.plot, window.feed.latest.trace
    assert window.value._changed.getData()[0].tolist() == trace.index[trace.changed].tolist()
    view = plot.getPlotItem().vb
    place = plot.mapFromScene(view.mapViewToScene(view.viewRect().center()))
    place.setX(plot.mapFromScene(view.mapViewToScene(view.viewRect().center().__class__(4.0, 0.0))).x())
    qtbot.mouseClick(plot.viewport(), Qt.MouseButton.LeftButton, pos=place)
    settled(window)
    assert window.feed.latest.index == 4


def test_wrong_tokens_are_framed_in_red(open_window: Open, settled: Settled) -> None:
    window = open_window()
    window.tabs.setCurrentWidget(window.hindsight)
    panel, moment = window.hindsight, window.feed.latest
    framed = []
    for wrong in (0, 1, 9):
        look = Hindsight(1, moment.frame, np.arange(36) >= wrong, 1 - wrong / 36, 0.75)
        panel.moment = replace(moment, hindsight=(look,))
        framed.append(pixels_of(panel._canvas, "loss")[: panel._canvas.height() // 2].sum())
    assert framed[0] == 0 < framed[1] < framed[2]


def test_branches_are_as_wide_as_visits_or_scores(open_window: Open, settled: Settled) -> None:
    window = open_window()
    window.session.send(told.SetPlanner.to(name="mcts", simulations=25, horizon=2))
    settled(window)
    window.tabs.setCurrentWidget(window.tree)
    panel, tree = window.tree, window.feed.latest.tree
    assert np.allclose(panel._weights(tree), tree.visits / tree.visits.max())
    visits = picture_of(panel.graph)
    panel.width_by.setCurrentIndex(1)
    assert (picture_of(panel.graph) != visits).any()
    count = len(tree.score)
    assert np.allclose(panel._weights(replace(tree, score=np.linspace(-2, 3, count))), np.linspace(0, 1, count))
    assert np.ptp(panel._weights(replace(tree, score=np.full(count, 7.0)))) == 0  # nobody is best


def test_the_agents_view_shows_frame_tokens_and_difference(open_window: Open) -> None:
    view = open_window().agent_view
    frame, kept = np.full((84, 84), 200, np.uint8), np.full((84, 84), 80, np.uint8)
    view.moment = replace(view.moment, frame=frame, reconstruction=kept)
    view.show_moment(view.moment)
    assert view.aside.text() == "mean difference 120.0 of 255"
    canvas = picture_of(view._canvas)
    middle = canvas[canvas.shape[0] // 2]
    third = canvas.shape[1] // 3
    assert [int(middle[third * part + third // 2, 0]) for part in range(3)] == [200, 80, 120]


def test_the_panel_of_the_page_for_contributors_works(open_window: Open, qtbot: QtBot) -> None:
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    code = re.search(r"( +)```python\n( +class Advantage.*?)```", page, re.DOTALL)
    assert code is not None
    names = {"Panel": Panel, "Feed": Feed, "Moment": Moment, "QLabel": QLabel, "np": np}
    exec(re.sub(rf"^{code[1]}", "", code[2], flags=re.MULTILINE), names)
    window = open_window()
    panel = names["Advantage"](window.feed)
    qtbot.addWidget(panel)
    panel.show()
    moment = window.feed.latest
    best, second = np.sort(moment.q[moment.legal])[[-1, -2]]
    assert panel.number.text() == f"{best - second:+.2f}"
