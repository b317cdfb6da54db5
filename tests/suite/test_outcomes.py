"""What jobs wrote becomes results: scores, curve, parameters, commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from torch.utils.tensorboard import SummaryWriter

from jowa.errors import DataError
from jowa.suite.curves import POINTS, learning_curve
from jowa.suite.jobs import OUT, Job, Measured
from jowa.suite.ledger import Ledger
from jowa.suite.outcomes import keep_missing_results, keep_result, parameters
from jowa.suite.results import Planned, read_results


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A training and its evaluation, both finished."""
    train = Job("train/a", "jowa.train", ("--out", f"{OUT}/work/a"), "work/a", ("work/a/agent/model.safetensors",))
    measured = Measured("a/beam", ("methods", "scale"), "jowa", "M", 2, planned=Planned("beam", 2, 1),
                        trained_by="train/a", steps=30)  # fmt: skip
    play = Job("evaluate/a", "jowa.evaluate", (f"{OUT}/work/a/agent",), "a.json", ("a.json",), ("train/a",),
               measured=measured)  # fmt: skip
    agent = tmp_path / "work/a/agent"
    agent.mkdir(parents=True)
    weights = {"q_head.a": np.zeros((2, 3)), "target_q_head.a": np.zeros((2, 3)), "b": np.zeros(4)}
    save_file(weights, agent / "model.safetensors")
    save_file({"c": np.zeros((5, 1))}, agent / "tokenizer.safetensors")
    (tmp_path / "work/a/config.json").write_text(json.dumps({"seed": 2}))
    document = {
        "jowa": "0.1", "date": "today", "device": "cpu", "torch": "2", "steps": {"Pong": [7, 8]},
        "settings": {"protocol": {"name": "sticky", "max_steps": 9}, "seed": 1002, "episodes": 2},
        "games": [{"game": "Pong", "scores": [1.0, -2.0], "mean": -0.5}],
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(document))
    found = Ledger(tmp_path, [train, play])
    for name, seconds in (("train/a", 12.5), ("evaluate/a", 1.0)):
        found.begin(name)
        assert found.end(name, seconds, 0) == "done"
    return found


def write_events(folder: Path, steps: range, began: float) -> None:
    with SummaryWriter(str(folder)) as writer:
        for step in steps:
            writer.add_scalar("stage2/td", 1.0 / step, step, walltime=began + step)
            writer.add_scalar("speed/steps_per_second", 3.0, step, walltime=began + step + 0.1)


def test_a_result_holds_all_that_the_report_needs(ledger: Ledger, tmp_path: Path) -> None:
    keep_result(ledger, ledger.jobs["evaluate/a"])
    (result,) = read_results(tmp_path / "results")
    assert (result.id, result.groups, result.size, result.seed) == ("a/beam", ("methods", "scale"), "M", 2)
    assert result.games["Pong"].scores == (1.0, -2.0) and result.games["Pong"].steps == (7, 8)
    assert result.planned == Planned("beam", 2, 1) and result.settings == {"seed": 2}
    assert result.protocol == {"name": "sticky", "max_steps": 9, "seed": 1002, "episodes": 2}
    assert (result.training.seconds, result.training.steps, result.training.parameters) == (12.5, 30, 15)
    train, play = result.command.splitlines()
    assert train == f"python -m jowa.train --out {tmp_path}/work/a" and play.startswith("python -m jowa.evaluate")
    assert result.machine["torch"] == "2" and result.machine["cores"] >= 1 and "commit" in result.machine
    assert keep_result(ledger, ledger.jobs["train/a"]) is None


def test_missing_results_and_other_groups_are_written_anew(ledger: Ledger, tmp_path: Path) -> None:
    keep_missing_results(ledger)
    path = tmp_path / "results/a/beam.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"groups": ["planning"]}))
    keep_missing_results(ledger)
    assert json.loads(path.read_text()) == document


def test_target_copies_are_not_trained_parameters(ledger: Ledger, tmp_path: Path) -> None:
    assert parameters(tmp_path / "work/a/agent") == 6 + 4 + 5
    assert parameters(tmp_path / "nothing") == 0


@pytest.mark.parametrize("damage", ["{", "[]", '{"games": 3}', '{"games": [{"game": "Pong"}], "settings": {}}'])
def test_damaged_scores_are_named(ledger: Ledger, tmp_path: Path, damage: str) -> None:
    (tmp_path / "a.json").write_text(damage)
    with pytest.raises(DataError, match=r"a\.json (cannot be read|holds no).*run the suite again"):
        keep_result(ledger, ledger.jobs["evaluate/a"])


def test_a_curve_from_tensorboard_goes_on_over_restarts(tmp_path: Path) -> None:
    folder = tmp_path / "tensorboard"
    write_events(folder, range(1, 11), began=1000.0)
    (folder / sorted(path.name for path in folder.iterdir())[0]).rename(folder / "events.out.tfevents.1")
    write_events(folder, range(8, 13), began=9000.0)  # an hour later, from its checkpoint at 7
    curve = learning_curve(tmp_path)
    assert [point["step"] for point in curve] == list(range(1, 13))
    assert [round(point["td"], 4) for point in curve][7] == 0.125 and curve[7]["speed/steps_per_second"] == 3.0
    seconds = [point["seconds"] for point in curve]
    assert seconds[0] == 0.0 and seconds[6] == 6.0 and seconds[7] == pytest.approx(6.0, abs=0.2)
    assert seconds[-1] == pytest.approx(10.0, abs=0.2) and seconds == sorted(seconds)


def test_a_curve_of_lines_and_none(tmp_path: Path) -> None:
    assert learning_curve(tmp_path) == []
    points: list[dict[str, Any]] = [{"step": step, "seconds": step / 2, "loss": 1.0} for step in range(1, 1001)]
    (tmp_path / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    curve = learning_curve(tmp_path)
    assert len(curve) == POINTS and curve[-1] == points[-1]
    (tmp_path / "curve.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"curve\.jsonl is no curve"):
        learning_curve(tmp_path)
