"""Lets the tests of planners import what they share, and gives them a model and four roots."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from planner_cases import ragged_context, vivid_model

from jowa.model import WorldActionModel
from jowa.planner import Context


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    """:func:`planner_cases.vivid_model`."""
    return vivid_model()


@pytest.fixture(scope="module")
def context() -> Context:
    """:func:`planner_cases.ragged_context`."""
    return ragged_context()
