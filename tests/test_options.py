"""Positional arguments that may be given by name as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from jowa.errors import UsageError
from jowa.options import in_front, parse_options


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ([], []),
        (["x", "--games", "Pong"], ["x", "--games", "Pong"]),
        (["--agent", "x"], ["x"]),
        (["--games", "Pong", "Freeway", "--agent", "x"], ["x", "--games", "Pong", "Freeway"]),
        (["--agent=a/b", "--seed", "1"], ["a/b", "--seed", "1"]),
        (["store", "--agent", "x", "--steps", "1"], ["x", "store", "--steps", "1"]),
        (["--agent"], ["--agent"]),  # the parser's to complain about
        (["--agents", "x"], ["--agents", "x"]),
    ],
)
def test_the_named_one_comes_first(given: list[str], understood: list[str]) -> None:
    assert in_front(given, "--agent") == understood


@dataclass(frozen=True)
class _Options:
    planner: Literal["beam", "none"] | None = None


def test_choices_are_those_that_one_may_type() -> None:
    with pytest.raises(UsageError, match=r"^invalid choice 'x' .*; python -m it --help lists the options$") as refused:
        parse_options(_Options, "python -m it", arguments=["--planner", "x"])
    assert "'beam'" in str(refused.value) and "None" not in str(refused.value)
