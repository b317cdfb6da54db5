"""Positional arguments that may be given by name as well."""

from __future__ import annotations

import pytest

from jowa.options import in_front


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
