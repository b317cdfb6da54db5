"""Checkpoints that are written while the run goes on: one at a time, whole, and a failure costs nothing."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jowa.errors import CheckpointError
from jowa.train.checkpoint import CheckpointWriter, checkpoints, read_best, read_manifest, step_of
from jowa.train.config import CheckpointConfig
from jowa.train.feed import Feed
from jowa.train.loop import Trainer
from jowa.train.saving import CheckpointStore
from jowa.train.step import Part


@pytest.fixture
def make_store(tmp_path: Path, alone: Any) -> Callable[..., CheckpointStore]:
    return lambda **settings: CheckpointStore(tmp_path / "checkpoints", CheckpointConfig(**settings), alone)


def state(value: float = 0.0) -> dict[str, Any]:
    return {"model": {"weight": torch.full((3,), value)}}


def steps(store: CheckpointStore) -> list[int]:
    return [step_of(path) for path in checkpoints(store.folder)]


def fail(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let writes fail when half is written."""

    def write(self: CheckpointWriter, *arguments: Any) -> None:
        self.partial.mkdir(parents=True, exist_ok=True)
        (self.partial / "__0_0.distcp").write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(CheckpointWriter, "write_data", write)


def test_the_newest_and_the_best_are_kept(make_store: Any) -> None:
    store = make_store(keep=2, asynchronous=False)
    for step, score, is_best in ((1, 0.5, True), (2, 0.7, True), (3, 0.6, False), (4, 0.7, False), (5, 0.1, False)):
        store.save(step, state(), {})
        assert store.mark_best(step, score) == is_best
    assert steps(store) == [2, 4, 5] and read_best(store.folder) == (2, 0.7)
    store.save(6, state(), {})
    assert store.mark_best(6, 0.8) and steps(store) == [2, 5, 6]
    store.save(7, state(), {})
    assert steps(store) == [6, 7], "what was the best is not kept any more"
    assert not store.mark_best(1, 3.0), "there is no such checkpoint"


def test_a_best_checkpoint_that_is_gone_is_none(make_store: Any) -> None:
    store = make_store(asynchronous=False)
    store.save(1, state(), {})
    assert store.mark_best(1, 9.0)
    (store.folder / "best.json").write_text("{")
    assert read_best(store.folder) is None
    assert store.mark_best(1, 2.0) and read_best(store.folder) == (1, 2.0)
    checkpoints(store.folder)[0].rename(store.folder / "elsewhere")
    assert read_best(store.folder) is None


def test_training_goes_on_while_a_copy_is_written(make_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, go_on, plain = make_store(), threading.Event(), CheckpointWriter.write_data
    began: list[int] = []

    def write(self: CheckpointWriter, *arguments: Any) -> Any:
        began.append(int(self.facts["step"]))
        assert go_on.wait(30)
        return plain(self, *arguments)

    monkeypatch.setattr(CheckpointWriter, "write_data", write)
    present = state(1.0)
    store.save(1, present, {"step": 1})
    present["model"]["weight"].fill_(2.0)  # the next step
    assert steps(store) == []
    waiting = threading.Thread(target=store.save, args=(2, present, {"step": 2}))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive() and began == [1], "one write at a time"
    go_on.set()
    waiting.join(30)
    store.wait()
    assert steps(store) == [1, 2] and began == [1, 2]
    for step in (1, 2):
        found = state()
        store.load(store.folder / f"step-0000000{step}", found)
        assert found["model"]["weight"].tolist() == [float(step)] * 3


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_failed_write_is_told_once_counted_and_harms_nothing(
    make_store: Any, asynchronous: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(asynchronous=asynchronous)
    store.save(1, state(), {})
    store.wait()
    with monkeypatch.context() as patched:
        fail(patched, OSError(errno.ENOSPC, "No space left on device"))
        for step in (2, 3):
            store.save(step, state(), {})
        store.wait()
    assert store.failures == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert "step-00000002 could not be written (disk full): training goes on" in line
    assert [path.name for path in store.folder.iterdir()] == ["step-00000001"]
    read_manifest(store.folder / "step-00000001")
    assert not store.mark_best(3, 1.0), "it was not written"
    store.save(4, state(), {})
    store.wait()
    assert steps(store) == [1, 4] and store.failures == 2


REASONS = [
    (OSError(errno.ENOSPC, "No space left on device"), "disk full"),
    (OSError(errno.EIO, "x"), "Input/output error"),
    (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nframe #0"), "is the disk full?"),
]


@pytest.mark.parametrize(("error", "said"), REASONS)
def test_the_last_write_may_not_fail(
    make_store: Any, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    store.save(1, state(), {})
    store.wait()
    fail(monkeypatch, error)
    with pytest.raises(CheckpointError, match=r"step-00000002 could not be written .*checkpoints before") as caught:
        store.save_now(2, state(), {})
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in store.folder.iterdir()] == ["step-00000001"]


def test_a_run_goes_on_when_the_disk_is_full_for_a_while(
    small_config: Any, run_trainer: Any, assert_same_state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run_trainer(small_config({"out": tmp_path / "plain"}))
    seen: dict[int, float] = {}
    attempts = pytest.MonkeyPatch()

    def watch(trainer: Any, step: int, metrics: dict[str, float]) -> None:
        seen[step] = metrics.get("checkpoint_failures", 0.0)
        if step == 5:
            fail(attempts, OSError(errno.ENOSPC, "No space left on device"))
        elif step == 7:
            trainer.store.wait()
            attempts.undo()

    again = run_trainer(small_config({}), watch)
    assert_same_state(again._state(), plain._state())
    assert [steps_of for steps_of, failed in seen.items() if failed] == [8]
    assert steps(again.store) == [4, 8], "the checkpoint of step 6 is missing"


def test_the_agent_that_played_best_is_kept(small_config: Any, alone: Any) -> None:
    config = small_config({"stage2.steps": 6, "health.evaluate_every": 1, "checkpoint.every": 1000})
    trainer, scores = Trainer(config, alone), {5: 1.0, 6: 4.0, 7: 3.0, 8: 4.0, 9: 0.0, 10: 2.0}
    marked: list[int] = []

    def observe(step: int, agent: Any) -> None:
        if trainer.store.mark_best(step, scores[step]):
            marked.append(step)

    trainer.run(Feed(config, alone), lambda step, metrics: None, observe)
    assert marked == [5, 6] and steps(trainer.store) == [6, 9, 10]
    assert read_best(trainer.store.folder) == (6, 4.0)


def test_an_optimizer_that_took_no_step_has_no_state(small_config: Any, alone: Any) -> None:
    trainer = Trainer(small_config(), alone)
    assert trainer._state()["optimizers"] == {}
    parts: list[Part] = trainer._parts
    assert all(not part.optimizer.state for part in parts), "asking for state must not make it"
