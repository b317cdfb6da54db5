"""SVG figures that take their colours from the page, so that they fit its light and its dark dress.

matplotlib draws with colours that stand for CSS variables, which are put in afterwards; text stays text.
"""

from __future__ import annotations

import html
import io
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from jowa.report.document import Drawing
from jowa.suite.bootstrap import Interval

VARIABLES = ("ink", "muted", "grid", *(f"series-{number}" for number in range(8)))
"""CSS variables of the page."""
_STANDS_FOR = {name: f"#0101{number:02x}" for number, name in enumerate(VARIABLES)}
MARKERS = "os^DvPX*"
SIGNS = "●■▲◆▼✚✖★"
"""The same as text, for legends."""
DASHES: tuple[object, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
FONT = 11.0
WIDE_LABEL, NARROW_LABEL = 36, 22
"""Characters of a label beside a row, after which it is cut; the table has the whole."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": FONT, "axes.titlesize": FONT,
    "axes.labelsize": FONT, "xtick.labelsize": FONT - 1, "ytick.labelsize": FONT - 1, "lines.linewidth": 1.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.unicode_minus": True,
}  # fmt: skip
_drawing = threading.Lock()


@dataclass(frozen=True)
class Mark:
    """A number with its interval, in a row of its own."""

    label: str
    interval: Interval
    series: int
    tip: str = ""
    """Shown when the pointer rests on it."""
    href: str = ""


@dataclass(frozen=True)
class Curve:
    """Points joined by a line, with or without intervals."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    series: int
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    band: bool = False
    """Intervals as a shade rather than as whiskers."""
    marks: bool = True
    dash: int = 0
    faint: bool = False
    tips: Sequence[str] = ()
    hrefs: Sequence[str] = ()


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


class _Ticks(ScalarFormatter):
    """matplotlib's own, with thousands set apart."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:,.0f}".replace("-", "−") if abs(x) >= 1000 else super().__call__(x, pos)


def colour(name: str) -> str:
    """What matplotlib draws with where the page has the variable ``name``."""
    return _STANDS_FOR[name]


def rows_drawing(
    marks: Sequence[Mark], label: str, alt: str, reference: float | None = None, bars: bool = False,
    title: str = "", wide: bool = True, limits: tuple[float, float] | None = None,
) -> Drawing:  # fmt: skip
    """One row a mark, from the top: a dot or a bar with its interval.

    ``reference``: a line to compare with; ``label``: of the horizontal axis.
    """

    def draw(axes: Axes, note: Callable[[str, str], str]) -> None:
        for row, mark in enumerate(marks):
            tint, value = colour(f"series-{mark.series}"), mark.interval
            gid = note(mark.tip, mark.href)
            if bars:
                axes.barh(row, value.value, height=0.62, color=tint, alpha=0.55, gid=gid)
                axes.plot([value.low, value.high], [row, row], color=colour("ink"), linewidth=1.4)
            else:
                axes.plot(
                    [value.low, value.high], [row, row], color=tint, linewidth=5, alpha=0.35, solid_capstyle="butt"
                )
                axes.plot([value.value], [row], MARKERS[mark.series], color=tint, markersize=7, gid=gid)
        axes.set_yticks(
            range(len(marks)), [_shortened(mark.label, WIDE_LABEL if wide else NARROW_LABEL) for mark in marks]
        )
        axes.xaxis.set_major_formatter(_Ticks())
        axes.set_ylim(len(marks) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(bars)
        if reference is not None:
            axes.axvline(reference, color=colour("muted"), linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        if limits:
            axes.set_xlim(*limits)
        axes.set_xlabel(label)
        axes.grid(True, axis="x")

    height = 0.62 + 0.29 * max(len(marks), 2)
    return Drawing(_svg((5.6 if wide else 3.4, height), draw, alt), title, alt, wide)


def curves_drawing(
    curves: Sequence[Curve], x_label: str, y_label: str, alt: str, title: str = "", log: bool = False,
    wide: bool = False, reference: float | None = None, x_ticks: Sequence[tuple[float, str]] = (),
    from_zero: bool = False,
) -> Drawing:  # fmt: skip
    """Lines over a common axis; ``log``: of the horizontal one."""

    def draw(axes: Axes, note: Callable[[str, str], str]) -> None:
        for curve in curves:
            _draw_curve(axes, curve, note)
        axes.xaxis.set_major_formatter(_Ticks())
        axes.yaxis.set_major_formatter(_Ticks())
        if log:
            axes.set_xscale("log")
        if x_ticks:
            axes.set_xticks([place for place, _ in x_ticks], [text for _, text in x_ticks])
            axes.minorticks_off()
        if reference is not None:
            axes.axhline(reference, color=colour("muted"), linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        if from_zero:
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(True)

    return Drawing(_svg((5.6, 3.0) if wide else (3.6, 2.7), draw, alt), title, alt, wide)


def _draw_curve(axes: Axes, curve: Curve, note: Callable[[str, str], str]) -> None:
    tint = colour(f"series-{curve.series}")
    fade = 0.35 if curve.faint else 1.0
    axes.plot(curve.x, curve.y, color=tint, linestyle=DASHES[curve.dash], alpha=fade)
    if curve.low and curve.band:
        axes.fill_between(curve.x, curve.low, curve.high, color=tint, alpha=0.16, linewidth=0)
    elif curve.low:
        axes.vlines(curve.x, curve.low, curve.high, color=tint, linewidth=4, alpha=0.3)
    if curve.marks:
        tips = curve.tips or [""] * len(curve.x)
        hrefs = curve.hrefs or [""] * len(curve.x)
        for x, y, tip, href in zip(curve.x, curve.y, tips, hrefs, strict=True):
            axes.plot([x], [y], MARKERS[curve.series], color=tint, markersize=6, alpha=fade, gid=note(tip, href))


def _svg(size: tuple[float, float], draw: Callable[[Axes, Callable[[str, str], str]], None], alt: str) -> Markup:
    """An SVG element of what ``draw`` puts on its axes; ``note`` gives the id under which a tip is put in."""
    notes: list[tuple[str, str]] = []

    def note(tip: str, href: str) -> str:
        notes.append((tip, href))
        return f"note-{len(notes) - 1}"

    with _drawing, matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"{alt}{size}"}):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(color=colour("grid"), linewidth=0.8)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_color(colour("grid"))
        axes.tick_params(color=colour("grid"), labelcolor=colour("muted"))
        axes.xaxis.label.set_color(colour("muted"))
        axes.yaxis.label.set_color(colour("muted"))
        draw(axes, note)
        with io.StringIO() as file:
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
            text = file.getvalue()
    return Markup(_dressed(text, notes, alt))


def _dressed(svg: str, notes: Sequence[tuple[str, str]], alt: str) -> str:
    """``svg`` without its head, with the page's colours and font, with tips and links."""
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body).groups()  # type: ignore[union-attr]
    opening = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(alt)}">'
    body = opening + re.sub(r"<defs>\s*<style.*?</defs>", "", body[body.index(">") + 1 :], count=1, flags=re.DOTALL)
    for name, stand_in in _STANDS_FOR.items():
        body = body.replace(stand_in, f"var(--{name})")
    body = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font: \1 var(--font)", body)
    for number, (tip, href) in enumerate(notes):
        body = _noted(body, f'<g id="note-{number}"', tip, href)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # the same in every figure
    return re.sub(r"\n\s*", "\n", body).strip()


def _noted(svg: str, opening: str, tip: str, href: str) -> str:
    """``svg`` with a tip and a link on the group that begins with ``opening``."""
    start = svg.index(">", svg.index(opening)) + 1
    depth, end = 1, start
    for tag in re.finditer(r"<g\b[^>]*>|</g>", svg[start:]):
        depth += -1 if tag[0] == "</g>" else 0 if tag[0].endswith("/>") else 1
        if depth == 0:
            end = start + tag.start()
            break
    said = f"<title>{html.escape(tip)}</title>" if tip else ""
    inner = f'<a href="{html.escape(href)}">{said}{svg[start:end]}</a>' if href else said + svg[start:end]
    return svg[:start] + inner + svg[end:]
