"""Jobs as children: order, failures, stopping and going on, on a study of trivial commands."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jowa.errors import DataError, UsageError
from jowa.suite.jobs import OUT, Job, Measured, chosen, fingerprints, followers
from jowa.suite.ledger import Ledger, check_same_study, note_study, only_one
from jowa.suite.runner import Outcome, Runner, child_environment

SECONDS = 30.0


@pytest.fixture(autouse=True)
def fake_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def a_job(name: str, *what: str, needs: tuple[str, ...] = (), **changes: object) -> Job:
    job = Job(
        f"do/{name}", "fake_job", (f"{OUT}/made/{name}/out", *what), f"made/{name}", (f"made/{name}/out",),
        tuple(f"do/{one}" for one in needs), kind=name, minutes=1.0,
    )  # fmt: skip
    return dataclasses.replace(job, **changes)  # type: ignore[arg-type]


class Notes:
    """What a runner said; ``on_tick`` may interfere."""

    def __init__(self, on_tick: Callable[[], None] = lambda: None) -> None:
        self.started_jobs: list[str] = []
        self.ended_jobs: dict[str, tuple[str, str]] = {}
        self.tick = on_tick

    def started(self, job: Job) -> None:
        self.started_jobs.append(job.name)

    def ended(self, job: Job, seconds: float, state: str, said: str) -> None:
        assert seconds > 0
        self.ended_jobs[job.name] = (state, said)


def run(out: Path, jobs: list[Job], width: int = 1, notes: Notes | None = None) -> Outcome:
    with only_one(out) as lock:
        return Runner(Ledger(out, jobs), jobs, width, lock, notes or Notes()).run()


def times(out: Path, name: str) -> tuple[float, float]:
    began, ended = (out / "made" / name / "out.times").read_text().split()
    return float(began), float(ended)


def tries(out: Path, name: str) -> int:
    path = out / "made" / name / "out.tries"
    return len(path.read_text()) if path.exists() else 0


def test_jobs_run_after_what_they_need_and_once(tmp_path: Path) -> None:
    jobs = [a_job("a"), a_job("b", needs=("a",)), a_job("c", needs=("a", "b"))]
    notes = Notes()
    assert run(tmp_path, jobs, notes=notes).done == ["do/a", "do/b", "do/c"] == notes.started_jobs
    again = Notes()
    assert len(run(tmp_path, jobs, notes=again).done) == 3 and again.started_jobs == []
    log = (tmp_path / "logs/do/a.log").read_text()
    assert log.startswith(f"$ python -m fake_job {tmp_path}/made/a/out\n") and "at work" in log
    entry = Ledger(tmp_path, jobs).entry("do/a")
    assert entry is not None and entry.finished and entry.code == 0 and 0 < entry.seconds < SECONDS and entry.date


def test_several_at_once_but_not_those_that_share_a_data_set(tmp_path: Path) -> None:
    jobs = [a_job(name, "slow", alone="store" if name in "ab" else "") for name in "abc"]
    run(tmp_path, jobs, width=3)
    (a0, a1), (b0, b1), (c0, c1) = (times(tmp_path, name) for name in "abc")
    assert a1 <= b0 or b1 <= a0, "a and b write into one store"
    assert c0 < max(a1, b1) and min(a0, b0) < c1, "c ran beside them"


def test_a_failure_skips_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    jobs = [a_job("a", "fail"), a_job("b", needs=("a",)), a_job("c", needs=("b",)), a_job("d")]
    notes = Notes()
    outcome = run(tmp_path, jobs, notes=notes)
    assert (outcome.done, outcome.failed, outcome.skipped) == (["do/d"], ["do/a"], ["do/b", "do/c"])
    assert notes.ended_jobs["do/a"] == ("failed", "something broke")
    assert Ledger(tmp_path, jobs).state("do/a") == "failed"
    run(tmp_path, jobs)
    assert (tries(tmp_path, "a"), tries(tmp_path, "d")) == (2, 1), "what failed is tried again, what is done is not"


def test_a_child_that_somebody_kills_is_a_failure_and_is_tried_again(tmp_path: Path) -> None:
    notes = Notes()
    assert run(tmp_path, [a_job("a", "die")], notes=notes).failed == ["do/a"]
    assert notes.ended_jobs["do/a"] == ("failed", "it was ended by SIGKILL; its last line: nothing")
    assert Ledger(tmp_path, [a_job("a", "die")]).state("do/a") == "failed"


def test_to_end_well_without_the_output_is_a_failure(tmp_path: Path) -> None:
    notes = Notes()
    outcome = run(tmp_path, [a_job("a", "forget")], notes=notes)
    assert outcome.failed == ["do/a"] and "without made/a/out" in notes.ended_jobs["do/a"][1]


@pytest.mark.parametrize("politely", [(), ("politely",)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_child_and_the_next_run_goes_on(
    tmp_path: Path, politely: tuple[str, ...], number: signal.Signals
) -> None:
    jobs = [a_job("a", "wait", *politely), a_job("b", needs=("a",)), a_job("c")]
    sent: list[int] = []

    def interrupt() -> None:
        if tries(tmp_path, "a") and not sent:
            sent.append(number)
            time.sleep(0.1)  # until the child sleeps
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    outcome = run(tmp_path, jobs, notes=Notes(interrupt))
    assert signal.getsignal(number) is before
    assert (outcome.stopped_by, outcome.done, outcome.failed, outcome.skipped) == (number, [], [], [])
    assert (tmp_path / "made/a/out.saved").exists() and Ledger(tmp_path, jobs).state("do/a") == "begun"
    outcome = run(tmp_path, jobs)
    assert len(outcome.done) == 3 and tries(tmp_path, "a") == 2
    entry = Ledger(tmp_path, jobs).entry("do/a")
    assert entry is not None and entry.seconds > 0.1, "the time of both tries counts"


def test_a_second_signal_kills(tmp_path: Path) -> None:
    def interrupt() -> None:
        if tries(tmp_path, "a"):
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)

    outcome = run(tmp_path, [a_job("a", "stubborn")], notes=Notes(interrupt))
    assert outcome.stopped_by == signal.SIGINT and (tmp_path / "made/a/out.asked").exists()


def test_other_settings_move_away_what_was_made_and_what_followed_from_it(tmp_path: Path) -> None:
    measured = Measured("b/none", ("methods",), "jowa")
    jobs = [a_job("a"), a_job("b", needs=("a",), measured=measured), a_job("c")]
    run(tmp_path, jobs)
    (tmp_path / "results/b").mkdir(parents=True)
    (tmp_path / "results/b/none.json").write_text("{}")
    old = fingerprints(jobs)
    changed = [a_job("a", "otherwise"), *jobs[1:]]
    ledger = Ledger(tmp_path, changed)
    assert [ledger.state(job.name) for job in changed] == ["to do", "to do", "done"]
    assert ledger.supersede() == ["do/a", "do/b"] and ledger.supersede() == []
    kept = tmp_path / "superseded/do" / f"b-{old['do/b']}"
    assert (kept / "made/b/out").exists() and (kept / "results/b/none.json").exists()
    assert not (tmp_path / "made/a").exists() and not (tmp_path / "results/b/none.json").exists()
    run(tmp_path, changed)
    assert (tries(tmp_path, "a"), tries(tmp_path, "c")) == (1, 1)


def test_free_arguments_change_nothing_and_finished_jobs_are_tidied(tmp_path: Path) -> None:
    (tmp_path / "made/a/checkpoints").mkdir(parents=True)
    job = a_job("a", discard=("made/a/checkpoints",))
    run(tmp_path, [job])
    assert not (tmp_path / "made/a/checkpoints").exists()
    freed = dataclasses.replace(job, free=("quickly",), minutes=7.0)
    assert Ledger(tmp_path, [freed]).state("do/a") == "done" and freed.command(tmp_path)[-1] == "quickly"


def test_a_job_whose_output_is_gone_is_done_again(tmp_path: Path) -> None:
    run(tmp_path, [a_job("a")])
    (tmp_path / "made/a/out").unlink()
    run(tmp_path, [a_job("a")])
    assert tries(tmp_path, "a") == 2


def test_a_study_may_be_moved(tmp_path: Path) -> None:
    run(tmp_path / "one", [a_job("a")])
    (tmp_path / "one").rename(tmp_path / "two")
    assert Ledger(tmp_path / "two", [a_job("a")]).state("do/a") == "done"


def test_minutes_are_measured_then_by_kind_then_estimated(tmp_path: Path) -> None:
    jobs = [a_job("a"), a_job("b", kind="a"), a_job("c", minutes=4.0)]
    assert Ledger(tmp_path, jobs).minutes() == {"do/a": 1.0, "do/b": 1.0, "do/c": 4.0}
    ledger = Ledger(tmp_path, jobs)
    ledger.begin("do/a")
    (tmp_path / "made/a").mkdir(parents=True)
    (tmp_path / "made/a/out").touch()
    assert ledger.end("do/a", 30.0, 0) == "done"
    assert ledger.minutes() == {"do/a": 0.5, "do/b": 0.5, "do/c": 2.0}, "estimates were twice too high"


def test_only_one_at_a_time_and_children_of_the_killed_count(tmp_path: Path) -> None:
    with only_one(tmp_path) as lock:
        with pytest.raises(DataError, match="is in use"), only_one(tmp_path):
            pass
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    with pytest.raises(DataError, match="a job of one that was killed"), only_one(tmp_path):
        pass
    child.communicate(b"\n", timeout=SECONDS)
    with only_one(tmp_path):
        pass


def test_another_study_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    check_same_study(tmp_path, {"scale": 1.0, "games": ["Pong"]})
    assert list(tmp_path.iterdir()) == [], "who only looks writes nothing"
    note_study(tmp_path, {"scale": 1.0, "games": ["Pong"]})
    note_study(tmp_path, {"scale": 1.0, "games": ["Pong"]})
    with pytest.raises(UsageError, match=r"was begun with scale 1\.0, now it is 0\.5: use the same, or choose another"):
        check_same_study(tmp_path, {"scale": 0.5, "games": ["Pong"]})
    with pytest.raises(UsageError, match="begun with games Pong, now it is none named: use the same"):
        check_same_study(tmp_path, {"scale": 1.0, "games": []})


def test_damage_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, [a_job("a")])
    ledger.begin("do/a")
    (tmp_path / "jobs/do/a.json").write_text("{")
    with pytest.raises(DataError, match=r"jobs/do/a\.json is damaged"):
        ledger.state("do/a")


def test_groups_take_what_they_need_along() -> None:
    jobs = [
        a_job("data"), a_job("one", needs=("data",)), a_job("play", needs=("one",), groups=("scale",)),
        a_job("other", needs=("data",), groups=("transfer",)),
    ]  # fmt: skip
    assert [job.name for job in chosen(jobs, ["scale"])] == ["do/data", "do/one", "do/play"]
    assert chosen(jobs, []) == jobs
    assert followers({job.name: job for job in jobs}, ["do/one"]) == {"do/play"}


def test_a_study_that_cannot_be_ordered_is_refused() -> None:
    with pytest.raises(UsageError, match="job do/b needs do/a, which does not stand before it"):
        fingerprints([a_job("b", needs=("a",)), a_job("a")])
    with pytest.raises(UsageError, match="job do/a is there twice"):
        fingerprints([a_job("a"), a_job("a")])


def test_children_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert [child_environment(width)["OMP_NUM_THREADS"] for width in (1, 2, 9)] == ["6", "3", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert child_environment(2)["OMP_NUM_THREADS"] == "5", "the caller's wish"
