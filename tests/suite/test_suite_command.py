"""``python -m jowa.suite`` as a user meets it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from jowa.errors import JowaError
from jowa.suite.__main__ import end
from jowa.suite.jobs import Job
from jowa.suite.ledger import Ledger
from jowa.suite.results import read_results
from jowa.suite.runner import Outcome


def test_a_dry_run_lists_all_and_writes_nothing(command: Any, tmp_path: Path) -> None:
    done = command("jowa.suite", "--out", tmp_path / "s", "--dry-run", "--only", "planning", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    for text in ("record/Pong", "train/jowa-M-context-4-seed0", "/mcts-16", "to do", "time left", "planning"):
        assert text in done.stdout
    assert "mtbc" not in done.stdout and not (tmp_path / "s").exists()
    status = command("jowa.suite", "status", "--out", tmp_path / "s", "--only", "planning", "--seeds", "1")
    assert status.stdout == done.stdout


def test_the_papers_dry_run(command: Any, tmp_path: Path) -> None:
    done = command("jowa.suite", "--paper", "--dry-run", "--out", tmp_path / "s", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    assert "train/jowa-150M-seed0" in done.stdout and "GPU days" in done.stdout and not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--games", "Pongg"], "unknown training game 'Pongg': did you mean Pong"),
        (["--held-out", "Pong"], "Pong is a training game too"),
        (["--held-out", "Nogame"], "unknown game"),
        (["--seeds", "0"], "seeds is 0, expected at least 1: set --seeds"),
        (["--scale", "0"], "scale is 0.0, expected above 0"),
        (["--sizes", "S", "S"], "name each once"),
        (["--only", "everything"], "everything"),
    ],
)
def test_mistakes_are_explained(command: Any, tmp_path: Path, options: list[str], said: str) -> None:
    done = command("jowa.suite", "--out", tmp_path / "s", *options)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_how_itended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job("train/a", "jowa.train", (), "a", ("a",))
    ledger = Ledger(tmp_path, [job])
    end(ledger, [job], Outcome(done=["train/a"]))
    assert capsys.readouterr().out == "1 of 1 jobs done\n"
    failed = Outcome(failed=["train/a"], skipped=["train/b"])
    with pytest.raises(JowaError, match=r"train/a failed: see .*logs/train/a\.log\ntrain/b was skipped") as found:
        end(ledger, [job], failed)
    assert found.value.exit_code == 1
    failed.stopped_by = signal.SIGTERM
    with pytest.raises(SystemExit) as ended:
        end(ledger, [job], failed)
    said = capsys.readouterr().out
    assert ended.value.code == 143 and "train/a failed" in said and "stopped: run the same command again" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_very_small_study(command: Any, tmp_path: Path) -> None:
    """Recorded, trained, ablated, played and compared; another scale is refused; the second time nothing runs."""
    small = [
        "--out", tmp_path / "s", "--scale", "0.0005", "--games", "Breakout", "Boxing", "--methods", "jowa",
        "--sizes", "M", "--seeds", "1", "--episodes", "2", "--max-steps", "12", "--only", "methods", "--device", "cpu",
    ]  # fmt: skip
    done = command("jowa.suite", *small)
    assert done.returncode == 0, done.stderr
    results = {result.id: result for result in read_results(tmp_path / "s/results")}
    assert set(results) == {
        "random",
        "data",
        "jowa-M-seed0/none",
        "jowa-M-seed0/beam-2x1",
        "jowa-M-seed0/beam-2x1-lambda-0.25",
    }
    agent = results["jowa-M-seed0/beam-2x1"]
    assert set(agent.games) == {"Breakout", "Boxing"} and all(one.steps == (12, 12) for one in agent.games.values())
    assert agent.training.parameters > 1e6 and agent.training.seconds > 0 and agent.protocol["max_steps"] == 12
    assert "python -m jowa.train --preset tiny" in agent.command and agent.settings["preset"] == "tiny"
    for name, share in (("beam-2x1", 1.0), ("beam-2x1-lambda-0.25", 0.25)):
        played = json.loads((tmp_path / f"s/evaluations/jowa-M-seed0/{name}.json").read_text())
        assert played["settings"]["planner"]["td_lambda"] == share
    summary = json.loads((tmp_path / "s/summary.json").read_text())
    assert {one["contender"]["name"] for one in summary["methods"]["standings"]} >= {"jowa M", "random", "data"}
    assert "jowa M has 1 of 3 seeds" in done.stdout and not (tmp_path / "s/work/jowa-M-seed0/checkpoints").exists()
    again = command("jowa.suite", *small)
    assert again.returncode == 0 and "started" not in again.stderr and "8 of 8 jobs done" in again.stdout
    for action in ((), ("status",), ("--dry-run",)):
        refused = command("jowa.suite", *action, *small[:3], "1.0", *small[4:])
        assert refused.returncode == 2 and "begun with scale 0.0005, now it is 1.0" in refused.stderr
