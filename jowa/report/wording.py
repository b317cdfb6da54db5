"""Numbers and names as a reader wants them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from jowa.evaluate.report import number
from jowa.games import get_game
from jowa.suite.aggregate import Contender
from jowa.suite.bootstrap import Interval

METHODS = {
    "jowa": "JOWA", "mtbc": "MTBC", "mgdt": "MGDT", "scaled-ql": "Scaled-QL",
    "random": "Random play", "data": "Data trained on",
}  # fmt: skip
DASH = "–"


def label(contender: Contender) -> str:
    """``JOWA M + beam 2×1``, ``MTBC M fine-tuned``: the suite's name for it, dressed."""
    name = METHODS[contender.method] + contender.name.removeprefix(contender.method)
    before, plus, planned = name.rpartition("+ ")
    return before + plus + re.sub(r"\b(\d+)x(\d+)\b", r"\1×\2", planned).replace("mcts ", "MCTS ") if plus else name


def share(value: float) -> str:
    """A normalised score or a probability; no minus before what rounds to zero."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def points(value: float) -> str:
    """Game points."""
    return number(value).replace("-", "−")


def signed(value: float) -> str:
    """A difference of normalised scores."""
    text = share(value)
    return text if text.startswith("−") or text == "0.00" else f"+{text}"


def ends(interval: Interval, how: str = "share") -> str:
    """``[0.41, 0.52]``."""
    said = {"share": share, "points": points, "signed": signed}[how]
    return f"[{said(interval.low)}, {said(interval.high)}]"


def with_ends(interval: Interval, how: str = "share") -> str:
    """``0.47 [0.41, 0.52]``."""
    said = {"share": share, "points": points, "signed": signed}[how]
    return f"{said(interval.value)} {ends(interval, how)}"


def overlap(one: Interval, other: Interval) -> bool:
    """Whether two intervals have a point in common."""
    return one.low <= other.high and other.low <= one.high


def verdict(gain: Interval) -> str:
    """What the interval of a difference lets one say."""
    if gain.low > 0:
        return "the interval lies above 0"
    if gain.high < 0:
        return "the interval lies below 0"
    return "the interval includes 0, so the two cannot be told apart here"


def listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *most, last = list(words)
    return f"{', '.join(most)} and {last}" if most else last


def counted(count: int, singular: str, plural: str = "") -> str:
    """``1 game``, ``6 games``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def spread(counts: Sequence[int], singular: str) -> str:
    """``1 seed``, ``3 seeds``, or ``1 to 3 seeds`` where they differ."""
    low, high = min(counts), max(counts)
    return counted(low, singular) if low == high else f"{low:,} to {counted(high, singular)}"


def parameters(count: int) -> str:
    """``1.2 M``."""
    if count >= 10_000_000:
        return f"{count / 1e6:.0f} M"
    return f"{count / 1e6:.1f} M" if count >= 1_000_000 else f"{count / 1e3:.0f} k" if count else DASH


def duration(seconds: float) -> str:
    """``42 s``, ``17 min``, ``5.4 h``, ``3.1 days``."""
    for unit, length in (("days", 86400.0), ("h", 3600.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def human(game: str) -> float | None:
    """The reference human's score, where there is one."""
    scores = get_game(game).scores
    return None if scores is None else scores.human
