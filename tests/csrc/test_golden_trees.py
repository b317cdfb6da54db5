"""Recorded searches, replayed call by call: no rule of either search may change unnoticed."""

from __future__ import annotations

import json

import pytest
from golden_cases import FOLDER, answers, decode
from search_cases import assert_same, needs_native

from jowa.planner.tree import MCTSSettings, NativeBeamTree, NativeMCTSTree, ReferenceBeamTree, ReferenceMCTSTree

PATHS = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=needs_native)])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_recorded_searches_are_repeated(path, native):
    case = json.loads(path.read_text(encoding="utf-8"))
    calls = case.pop("calls")
    if path.stem.startswith("beam"):
        for name in ("widths", "horizons"):
            case[name] = decode({"dtype": "int64", "values": case[name]})
        tree = (NativeBeamTree if native else ReferenceBeamTree)(**case)
    else:
        case["settings"] = MCTSSettings(gumbel=case.pop("gumbel"))
        tree = (NativeMCTSTree if native else ReferenceMCTSTree)(**case)
    for call in calls:
        result = getattr(tree, call["method"])(*map(decode, call["arguments"]))
        assert_same(answers(result), [decode(answer) for answer in call["answers"]])


def test_there_are_recorded_searches_of_both_kinds():
    assert [path.stem for path in PATHS] == [
        "beam-with-ends", "beam-without-ends", "mcts-with-gumbel", "mcts-without-gumbel",
    ]  # fmt: skip
