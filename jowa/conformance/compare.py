"""How far apart two sets of numbers may be, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.errors import DataError


@dataclass(frozen=True)
class Tolerance:
    """What counts as agreement in one precision."""

    relative: float
    """A float agrees within this share of the expected value,"""
    absolute: float
    """or within this,"""
    of_largest: float
    """or within this share of the largest magnitude in its array (0: no such allowance)."""
    share: float
    """Share of tokens, rewards and ends that must be equal."""
    actions: bool
    """Whether chosen actions must be equal (otherwise they are only reported)."""
    scores: float
    """Share of the expected value within which planning scores agree."""

    def floats(self) -> str:
        """The rule for floats in a few words."""
        rule = f"rel {self.relative:g} or abs {self.absolute:g}"
        return f"{rule} or {self.of_largest:g} of max" if self.of_largest else rule


TOLERANCES = {
    "float32": Tolerance(relative=1e-4, absolute=1e-5, of_largest=0.0, share=1.0, actions=True, scores=1e-4),
    "float16": Tolerance(relative=1e-2, absolute=1e-3, of_largest=1e-2, share=0.9, actions=False, scores=2e-2),
    "bfloat16": Tolerance(relative=5e-2, absolute=5e-3, of_largest=5e-2, share=0.6, actions=False, scores=5e-2),
}
"""By precision.  float32 is the specification's.  The others say that nothing is broken: with random weights
many tokens and actions are near ties, and one other token changes all that is imagined after it."""


@dataclass
class Result:
    """One row of the report; :meth:`floats` and :meth:`equal` add values to it."""

    group: str
    values: int = 0
    largest_absolute: float = 0.0
    largest_relative: float = 0.0
    rules: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True when something was compared and all of it agreed."""
        return self.values > 0 and not self.failures

    def floats(self, name: str, computed: Any, expected: NDArray[Any], tolerance: Tolerance) -> None:
        """Compare float arrays of one shape; infinities must be equal, NaN never is."""
        computed, expected = _same_shape(name, computed, expected)
        finite = np.isfinite(computed) & np.isfinite(expected)
        error = np.abs(np.where(finite, computed, 0.0) - np.where(finite, expected, 0.0))
        magnitude = np.abs(np.where(finite, expected, 0.0))
        allowed = np.maximum(tolerance.relative * magnitude, tolerance.absolute)
        allowed = np.maximum(allowed, tolerance.of_largest * magnitude.max(initial=0.0))
        wrong = int((np.where(finite, error > allowed, computed != expected)).sum())
        relative = error[magnitude > tolerance.absolute] / magnitude[magnitude > tolerance.absolute]
        self.largest_absolute = max(self.largest_absolute, float(error.max(initial=0.0)))
        self.largest_relative = max(self.largest_relative, float(relative.max(initial=0.0)))
        self._count(name, computed.size, wrong, wrong > 0, tolerance.floats())

    def equal(self, name: str, computed: Any, expected: NDArray[Any], share: float) -> None:
        """Compare arrays of integers or flags, of which at least ``share`` must be equal."""
        computed, expected = _same_shape(name, computed, expected)
        wrong = int((computed != expected).sum())
        rule = "equal" if share == 1.0 else f"{share:.0%} equal"
        self._count(name, computed.size, wrong, wrong > (1.0 - share) * computed.size, rule)

    def _count(self, name: str, size: int, wrong: int, failed: bool, rule: str) -> None:
        self.values += size
        if rule not in self.rules:
            self.rules.append(rule)
        if failed:
            self.failures.append(f"{name}: {wrong} of {size} differ")


def _same_shape(name: str, computed: Any, expected: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both in float64; :class:`DataError` if their shapes differ (a file of other sizes)."""
    computed = np.asarray(computed, dtype=np.float64)
    if computed.shape != expected.shape:
        raise DataError(f"expected.npz: {name} has shape {expected.shape}, these sizes give {computed.shape}")
    return computed, expected.astype(np.float64)


def table(results: list[Result]) -> str:
    """The report: one line a group, then one a failure."""
    head = ("group", "values", "max abs err", "max rel err", "tolerance", "result")
    rows = [
        (
            result.group,
            str(result.values),
            f"{result.largest_absolute:.2g}",
            f"{result.largest_relative:.2g}",
            ", ".join(result.rules),
            "pass" if result.passed else "FAIL",
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    failures = [f"  {result.group}: {failure}" for result in results for failure in result.failures]
    empty = [f"  {result.group}: nothing to compare in expected.npz" for result in results if not result.values]
    return "\n".join([line.rstrip() for line in lines] + failures + empty)
