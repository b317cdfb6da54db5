"""Pictures of a diagnosis, 1280 pixels wide, in colours that the colour-blind can tell apart (Okabe and Ito)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jowa.diagnose.critic import Bin
from jowa.diagnose.estimates import Estimate
from jowa.diagnose.imagination import StepFigures
from jowa.diagnose.measure import GameFigures
from jowa.files import atomic_write

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#555555"
WIDE = (12.8, 5.4)
DPI = 100
FONT = 11.0


def save_plots(folder: Path, figures: Mapping[str, GameFigures]) -> list[Path]:
    """Three PNGs a game and, if something was planned, one of planning; each written atomically.

    Those of an earlier diagnosis that this one does not replace are deleted: ``diagnosis.json`` speaks of others.
    """
    pictures: dict[str, Figure] = {}
    for game, found in figures.items():
        pictures[f"imagination-{game}.png"] = imagination_plot(game, found)
        pictures[f"events-{game}.png"] = events_plot(game, found)
        pictures[f"critic-{game}.png"] = critic_plot(game, found)
    planned = {game: found for game, found in figures.items() if found.planning is not None}
    if planned:
        pictures["planning.png"] = planning_plot(planned)
    for name, picture in pictures.items():
        atomic_write(folder / name, partial(picture.savefig, format="png", dpi=DPI))
    for pattern in ("imagination-*.png", "events-*.png", "critic-*.png", "planning.png"):
        for path in folder.glob(pattern):
            if path.name not in pictures:
                path.unlink()
    return [folder / name for name in pictures]


def imagination_plot(game: str, found: GameFigures) -> Figure:
    """Tokens, whole frames and moving pixels by k."""
    figure, (tokens, frames, pixels) = _panels(f"{game}: imagined frames under the recorded actions", 3)
    rows = found.imagination
    _curve(tokens, rows, "tokens", "all tokens", BLUE, "o-")
    _curve(tokens, rows, "tokens_copy", "all, copying the last frame", ORANGE, "s--")
    _curve(tokens, rows, "changed_tokens", "tokens that changed (copying: 0)", GREEN, "^-")
    _curve(frames, rows, "frames", "imagined", BLUE, "o-")
    _curve(frames, rows, "frames_copy", "copying the last frame", ORANGE, "s--")
    _curve(pixels, rows, "pixels", "imagined", BLUE, "o-")
    _curve(pixels, rows, "pixels_copy", "copying the last frame", ORANGE, "s--")
    _curve(pixels, rows, "pixels_tokenizer", "real, through the tokenizer", GREEN, "^:")
    for axes, label in ((tokens, "share of tokens right"), (frames, "share of frames right in all 36 tokens")):
        _steps_axis(axes, rows, label)
        axes.set_ylim(-0.03, 1.03)
    _steps_axis(pixels, rows, "mean error of moving pixels (grey levels of 255)")
    pixels.set_ylim(bottom=0)
    return _legends(figure, tokens, frames, pixels)


def events_plot(game: str, found: GameFigures) -> Figure:
    """Recall and precision of rewards and ends by k."""
    figure, (rewards, ends) = _panels(f"{game}: imagined rewards and ends (saying neither: recall 0)", 2)
    rows = found.imagination
    for axes, name in ((rewards, "reward"), (ends, "end")):
        _curve(axes, rows, f"{name}_recall", "recall: of the real ones, said", BLUE, "o-")
        _curve(axes, rows, f"{name}_precision", "precision: of those said, real", ORANGE, "s--")
        real, said = (sum(getattr(row, f"{name}_{kind}").n for row in rows) for kind in ("recall", "precision"))
        what = "non-zero rewards, sign included" if name == "reward" else "ends of the game"
        axes.set_title(f"{what}: {real} real, {said} said over all k", fontsize=FONT)
        _steps_axis(axes, rows, "share")
        axes.set_ylim(-0.03, 1.03)
        if not axes.lines:
            axes.text(0.5, 0.5, "none, real or imagined", transform=axes.transAxes, ha="center", color=GREY)
    return _legends(figure, rewards, ends)


def critic_plot(game: str, found: GameFigures) -> Figure:
    """Q against return, bias by return, and error by the ensemble's spread."""
    figure, (joint, bias, spread) = _panels(f"{game}: the critic against the return that followed", 3)
    _joint(figure, joint, found)
    _binned(bias, found.critic.by_return, BLUE)
    bias.axhline(0, color=GREY, linewidth=1)
    bias.set_xlabel("return (clipped reward, mean of tenths)")
    bias.set_ylabel("mean Q - return (clipped reward)")
    _binned(spread, found.critic.by_spread, BLUE)
    if found.critic.by_spread:
        spread.set_ylim(bottom=0)
        highest = max(b.centre for b in found.critic.by_spread)
        spread.plot([0, highest], [0, highest * (2 / np.pi) ** 0.5], "--", color=ORANGE, label="if it were calibrated")
    else:
        spread.text(0.5, 0.5, "an ensemble of one has no spread", transform=spread.transAxes, ha="center", color=GREY)
    spread.set_xlabel("spread of the ensemble (clipped reward)")
    spread.set_ylabel("mean |Q - return| (clipped reward)")
    for axes in (bias, spread):
        axes.grid(True, color="#DDDDDD")
    return _legends(figure, joint, bias, spread)


def planning_plot(figures: Mapping[str, GameFigures]) -> Figure:
    """Share of decisions changed, and gains imagined and real, by game."""
    figure, (changed, gains) = _panels(
        "planning against the greedy action", 2, height=max(4.0, 2.4 + 0.9 * len(figures))
    )
    names = list(figures)
    for row, found in enumerate(figures.values()):
        plan, real = found.planning, found.real
        assert plan is not None, "only games in which something was planned are drawn"
        first = row == 0
        _bar(changed, row + 0.15, plan.changed, BLUE, "o", "recorded moments" if first else None)
        _bar(gains, row + 0.2, plan.gain, BLUE, "o", "imagined, recorded moments" if first else None)
        if real is not None:
            _bar(changed, row - 0.15, real.changed, ORANGE, "s", "in the real game" if first else None)
            _bar(gains, row, real.imagined, ORANGE, "s", "imagined, in the real game" if first else None)
            _bar(gains, row - 0.2, real.gain, VERMILION, "D", "real, in the real game" if first else None)
    changed.set_xlabel("share of decisions in which planned is not greedy")
    changed.set_xlim(-0.03, 1.03)
    steps = next((found.real.steps for found in figures.values() if found.real), None)
    gains.set_xlabel("mean gain where it is not (clipped reward" + (f"; real: over {steps} steps)" if steps else ")"))
    gains.axvline(0, color=GREY, linewidth=1)
    for axes in (changed, gains):
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(True, axis="x", color="#DDDDDD")
    return _legends(figure, changed, gains)


def _panels(title: str, count: int, height: float = WIDE[1]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDE[0], height), facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=FONT + 3)
    axes = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for one in axes:
        one.tick_params(labelsize=FONT - 1)
        one.xaxis.label.set_fontsize(FONT)
        one.yaxis.label.set_fontsize(FONT)
    return figure, axes


def _curve(axes: Axes, rows: Sequence[StepFigures], name: str, label: str, color: str, style: str) -> None:
    """One line over the k at which there is a figure, with intervals unless it is what copying gets; a little beside
    the lines drawn before."""
    aside = 0.012 * len(rows) * (len(axes.containers) - 1)
    points = [(row.k, estimate) for row in rows if (estimate := getattr(row, name)).value is not None]
    if points:
        values = [estimate.value for _, estimate in points]
        bare = name.endswith("_copy")
        errors = None if bare else np.array([_reach(estimate) for _, estimate in points]).T
        axes.errorbar(
            [k + aside for k, _ in points], values, errors, fmt=style, color=color, label=label, capsize=3, markersize=6
        )


def _reach(estimate: Estimate) -> tuple[float, float]:
    """How far the interval reaches below and above; 0 without one."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return 0.0, 0.0
    return max(0.0, estimate.value - estimate.low), max(0.0, estimate.high - estimate.value)


def _steps_axis(axes: Axes, rows: Sequence[StepFigures], label: str) -> None:
    axes.set_xlabel("imagined steps k")
    axes.set_ylabel(label)
    axes.set_xticks([row.k for row in rows][:: max(1, len(rows) // 10)])
    axes.grid(True, color="#DDDDDD")


def _joint(figure: Figure, axes: Axes, found: GameFigures) -> None:
    """Two-dimensional histogram of return and Q with the diagonal."""
    axes.set_xlabel("return (clipped reward)")
    axes.set_ylabel("Q of the recorded action (clipped reward)")
    if not len(found.q):
        axes.text(0.5, 0.5, "every return is cut off", transform=axes.transAxes, ha="center", color=GREY)
        return
    low = min(found.q.min(), found.returns.min())
    high = max(found.q.max(), found.returns.max(), low + 1e-3)
    counts = axes.hist2d(found.returns, found.q, bins=30, range=[[low, high]] * 2, cmap="cividis_r", cmin=1)[3]
    axes.plot([low, high], [low, high], "--", color=VERMILION, label="Q = return")
    figure.colorbar(counts, ax=axes, label="moments", ticks=MaxNLocator(integer=True))


def _binned(axes: Axes, bins: Sequence[Bin], color: str) -> None:
    if bins:
        values = [b.error.value if b.error.value is not None else np.nan for b in bins]
        errors = np.array([_reach(b.error) for b in bins]).T
        axes.errorbar([b.centre for b in bins], values, errors, fmt="o-", color=color, capsize=3, label="measured")


def _bar(axes: Axes, at: float, estimate: Estimate, color: str, marker: str, label: str | None) -> None:
    """A point with its interval, lying."""
    if estimate.value is not None:
        errors = np.array([_reach(estimate)]).T
        axes.errorbar([estimate.value], [at], xerr=errors, fmt=marker, color=color, capsize=4, label=label)


def _legends(figure: Figure, *panels: Axes) -> Figure:
    for axes in panels:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=FONT - 1, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    return figure
