"""A diagnosis as tables and as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import jowa
from jowa.agent import Agent, Planning
from jowa.devices import device_name, precision_name
from jowa.diagnose.estimates import Estimate
from jowa.diagnose.measure import HIDDEN, GameFigures
from jowa.files import atomic_write_text

if TYPE_CHECKING:
    from jowa.diagnose.__main__ import DiagnoseConfig

LOG_WIDTH = 140
"""Columns where nobody's terminal sets them."""
POLICY_NOTE = "the data were played by others, so bias and error are relative to their play, not to the greedy policy"


def diagnosis_document(
    config: DiagnoseConfig, agent: Agent, plannings: Mapping[str, Planning], figures: Mapping[str, GameFigures]
) -> dict[str, Any]:
    """Everything about a diagnosis, ready for JSON."""
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in vars(config).items()}
    return {
        "jowa": jowa.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device_name(agent.device),
        "precision": precision_name(agent.autocast),
        "torch": torch.__version__,
        "settings": asked,
        "planning": {game: dataclasses.asdict(planning) for game, planning in plannings.items()},
        "notes": {
            "critic": POLICY_NOTE,
            "hidden": f"returns of which a cut-off hides more than {HIDDEN} of the discount are left out",
            "weights": "moments near rewards and ends are drawn oftener and weighted back: figures of imagination",
            "episodes": "the last of each game; whether the agent was trained on them is not known here",
            "bound": "an estimate in shares, not the theorem's constants",
        },
        "games": {game: _game(found) for game, found in figures.items()},
    }


def _game(found: GameFigures) -> dict[str, Any]:
    """Without the points of the plot."""
    whole = dataclasses.asdict(found)
    return {name: value for name, value in whole.items() if not isinstance(value, np.ndarray)}


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write ``document`` as JSON, atomically."""
    atomic_write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def print_tables(figures: Mapping[str, GameFigures]) -> None:
    """All tables, game by game."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    for game, found in figures.items():
        console.print(_frames_table(game, found))
        console.print(_events_table(game, found))
        console.print(_critic_table(game, found))
        console.print(_bound_table(game, found))
        console.print(_planning_table(game, found))
    console.print(f"[dim]intervals: 95%, bootstrap; {POLICY_NOTE}[/dim]")


def shown(estimate: Estimate, digits: int = 3) -> str:
    """``0.931 [0.920, 0.941]``; a dash where nothing was measured."""
    if estimate.value is None:
        return "-"
    value = f"{estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _bare(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _table(title: str, *columns: str, caption: str | None = None) -> Table:
    table = Table(title=title, caption=caption, caption_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 else "right")
    return table


def _frames_table(game: str, found: GameFigures) -> Table:
    table = _table(
        f"{game}: imagined frames, {found.moments} + {found.extra_moments} moments of {len(found.episodes)} episode(s)",
        "k", "tokens right", "copy", "changed ones", "frames right", "copy", "moving pixels off by", "copy",
        "tokenizer",
        caption=f"units of the intervals: {found.units} {found.unit}; copy: the last real frame; pixels in grey levels",
    )  # fmt: skip
    for row in found.imagination:
        table.add_row(
            str(row.k), shown(row.tokens), _bare(row.tokens_copy.value), shown(row.changed_tokens), shown(row.frames),
            _bare(row.frames_copy.value), shown(row.pixels, 1), _bare(row.pixels_copy.value, 1),
            _bare(row.pixels_tokenizer.value, 1),
        )  # fmt: skip
    return table


def _events_table(game: str, found: GameFigures) -> Table:
    table = _table(
        f"{game}: imagined rewards and ends",
        "k", "signs right", "saying 0", "precision", "recall", "rewards", "end precision", "end recall", "ends",
        caption="precision and recall of non-zero rewards, with their sign; rewards, ends: real ones among the moments",
    )  # fmt: skip
    for row in found.imagination:
        table.add_row(
            str(row.k), shown(row.rewards), _bare(row.rewards_copy.value), shown(row.reward_precision, 2),
            shown(row.reward_recall, 2), str(row.reward_recall.n), shown(row.end_precision, 2),
            shown(row.end_recall, 2), str(row.end_recall.n),
        )  # fmt: skip
    return table


def _critic_table(game: str, found: GameFigures) -> Table:
    critic = found.critic
    bins = [f"{b.centre:.2f}: {b.error.value:+.2f}" for b in critic.by_return if b.error.value is not None]
    table = _table(
        f"{game}: critic against returns at {critic.n} moments ({critic.hidden} left out: cut off)", "", "",
        caption="bias by mean return of each tenth: " + "; ".join(bins) if bins else None,
    )  # fmt: skip
    rows = {
        "bias, mean Q - return": critic.bias, "RMSE": critic.rmse, "RMSE of a constant": critic.rmse_constant,
        "mean |Q - return|": critic.absolute_error, "correlation": critic.correlation,
        "spread of the ensemble": critic.spread, "rank correlation of spread and error": critic.spread_rank_correlation,
        "gap, best - second Q": critic.gap, "recorded action is greedy": critic.agreement,
    }  # fmt: skip
    for name, estimate in rows.items():
        table.add_row(name, shown(estimate))
    table.add_row("median gap", _bare(critic.gap_median, 4))
    return table


def _bound_table(game: str, found: GameFigures) -> Table:
    table = _table(
        f"{game}: terms of the bound on planning k steps ahead",
        "k", "tokens wrong", "frames wrong", "rewards wrong", "ends wrong", "γ^k · |Q error|",
        caption="discounted sums of the shares that are wrong 1 to k steps ahead: an estimate in shares, not the "
        "theorem's constants",
    )  # fmt: skip
    for row in found.bound:
        values = (row.tokens, row.frames, row.rewards, row.ends, row.critic)
        table.add_row(str(row.k), *(_bare(value) for value in values))
    return table


def _planning_table(game: str, found: GameFigures) -> Table:
    table = _table(f"{game}: planning", "", "")
    if found.planning is None:
        table.add_row("the planner is greedy in Q: nothing is planned (choose one with --planner)", "")
        return table
    table.add_row("recorded moments: planned action is not the greedy one", shown(found.planning.changed))
    table.add_row("  imagined gain there", shown(found.planning.gain))
    table.add_row("  a plan with the greedy action was weighed", shown(found.planning.greedy_weighed))
    if found.real is None:
        return table
    real = found.real
    table.add_row(f"real game, {real.decisions} decisions: planned is not greedy", shown(real.changed))
    table.add_row(f"  imagined gain at {real.gain.n} of these moments", shown(real.imagined))
    table.add_row(f"  real gain there within {real.steps} steps, {real.repeats} repeats", shown(real.gain))
    table.add_row("  better / worse", f"{shown(real.better, 2)} / {shown(real.worse, 2)}")
    table.add_row("  real gain a decision", _bare(real.gain_a_decision, 5))
    return table
