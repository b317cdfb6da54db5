"""The viewer over a long session: memory, and how long its window's event loop ever stands still."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PyQt6.QtWidgets")
pytest.importorskip("pyqtgraph")

from PyQt6.QtCore import Qt, QTimer
from PyQt6.QtWidgets import QApplication

from jowa.agent import Agent, Planning
from jowa.config import ModelConfig, TokenizerConfig
from jowa.model import WorldActionModel
from jowa.planner import Plan, Planner, PlannerConfig
from jowa.tokenizer import Tokenizer
from jowa.viewer import commands as told
from jowa.viewer.session import Session

STEPS = int(os.environ.get("VIEWER_STEPS", "20000"))


class SlowAgent(Agent):
    """Searches again and again for two seconds: this small model's tree is exhausted sooner."""

    def planner(self, config: PlannerConfig) -> Planner:
        planner = super().planner(config)
        plan = planner.plan

        def slowly(*arguments: Any, **settings: Any) -> Plan:
            stop = time.perf_counter() + 2
            while (found := plan(*arguments, **settings)) and time.perf_counter() < stop:
                pass
            return found

        planner.plan = slowly  # type: ignore[method-assign]
        return planner


def make_agent(planner: PlannerConfig, width: int = 32, kind: type[Agent] = Agent) -> Agent:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig("local", vocab_size=64, code_dim=8, channels=32))
    model = WorldActionModel(
        ModelConfig(layers=2, heads=2, width=width, q_width=32, q_ensemble=2, vocab_size=64, context_steps=6)
    )
    return kind(tokenizer, model, {"Pong": 39}, planning=Planning(planner, context=2))


def resident() -> float:
    """MiB of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_of_a_long_session(compare) -> None:
    session = Session("Pong")
    session.use(make_agent(PlannerConfig("beam", 2, 1)), "benchmark")
    session.start()
    session.send(told.SetSpeed(None), told.Run())
    history = session._play.history
    while history.newest < 300:  # what is loaded once has been loaded
        time.sleep(0.05)
    gc.collect()
    before, marks, start = resident(), {}, time.perf_counter()
    while history.newest < STEPS:
        time.sleep(0.5)
        marks[history.newest] = resident() - before
    seconds = time.perf_counter() - start
    growth = resident() - before
    assert session.close(10)
    compare.note(
        "viewer: memory of a session", f"{STEPS:,} decisions, Pong, beam 2 x 1", growth_mib=growth,
        most_mib=max(marks.values()), decisions_per_second=STEPS / seconds,
    )  # fmt: skip
    assert growth < 50


def test_event_loop_beside_a_slow_planner(compare, tmp_path: Path) -> None:
    from jowa.viewer.settings import open_settings
    from jowa.viewer.window import Window

    application = QApplication.instance() or QApplication([])
    session = Session("Pong")
    config = PlannerConfig("mcts", horizon=4, simulations=200, reuse=False)
    session.use(make_agent(config, 128, SlowAgent), "benchmark")
    window = Window(session, open_settings(tmp_path / "viewer.ini"))
    window.show()
    session.start()
    session.send(told.SetSpeed(None), told.Run())
    gaps: list[float] = []
    last = time.perf_counter()

    def beat() -> None:
        nonlocal last
        now = time.perf_counter()
        gaps.append(now - last)
        last = now
        window.game.screen_view.update()

    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(beat)
    timer.start(5)
    stop = time.perf_counter() + 3
    while time.perf_counter() < stop:
        application.processEvents()
    gaps.clear()
    stop = time.perf_counter() + 12
    while time.perf_counter() < stop:
        application.processEvents()
    latest = window.feed.latest
    assert latest is not None
    window.close()
    session.close(10)
    compare.note(
        "viewer: event loop while the planner thinks", f"{latest.seconds:.1f} s a decision, MCTS", beats=len(gaps),
        median_ms=float(np.median(gaps)) * 1000, p99_ms=float(np.quantile(gaps, 0.99)) * 1000,
        longest_ms=max(gaps) * 1000,
    )  # fmt: skip
    assert np.quantile(gaps, 0.99) < 1 / 30
