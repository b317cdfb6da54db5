"""The commands as a user meets them: every mistake is one line on stderr, and the exit code says whose it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from jowa.train.checkpoint import checkpoints, read_manifest

GOLDEN = Path(__file__).parent / "golden"


def only_error(done: Any, code: int) -> str:
    """The one line on stderr of a command that ended with ``code``."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0] == lines[-1], done.stderr
    assert "Traceback" not in done.stderr and "\x1b" not in done.stderr
    return errors[0]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name}


@pytest.fixture
def arguments(small_config: Any, as_arguments: Any) -> Callable[..., list[str]]:
    """Options of ``jowa.train`` for a very small run."""
    return lambda **changes: as_arguments(small_config({k.replace("__", "."): v for k, v in changes.items()}))


@pytest.fixture
def agent(finished_run: Path, tmp_path: Path) -> Path:
    """An agent folder that may be damaged."""
    return Path(shutil.copytree(finished_run / "agent", tmp_path / "agent"))


@pytest.fixture
def store(sprite_store: Path, tmp_path: Path) -> Path:
    """A data set that may be damaged."""
    return Path(shutil.copytree(sprite_store, tmp_path / "store"))


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a small file system in memory; skips where that is not allowed."""
    mounted = []

    def make(size: str) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True)
        if done.returncode:
            pytest.skip("only root may mount")
        mounted.append(place)
        return place

    if shutil.which("mount") is None:
        pytest.skip("no mount command")
    yield make
    for place in mounted:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def read_only(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder that cannot be written; root needs a read-only mount for that."""
    if os.geteuid():
        place = tmp_path / "read-only"
        place.mkdir(mode=0o500)
        return place
    place = request.getfixturevalue("mount")("1m")
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    return Path(place)


USAGE = {
    "unknown game to train on": ("jowa.train", ["--data.games", "Pongg"], "did you mean Pong"),
    "unknown preset": ("jowa.train", ["--preset", "41M"], "unknown preset '41M': did you mean 40M"),
    "unknown device": ("jowa.train", ["--device", "gpu"], "choose auto, cpu, cuda or cuda:N"),
    "settings that do not fit": ("jowa.train", ["--model.vocab-size", "99"], "vocab_size"),
    "a number that is too small": ("jowa.train", ["--log-every", "0"], "set --log-every"),
    "unknown game to play": ("jowa.evaluate", ["nowhere", "--games", "Pongg"], "did you mean Pong"),
    "no episodes": ("jowa.evaluate", ["nowhere", "--episodes", "0"], "episodes is 0, expected at least 1"),
    "no context": ("jowa.evaluate", ["nowhere", "--context", "0"], "context is 0, expected at least 1"),
    "a game twice": ("jowa.evaluate", ["nowhere", "--games", "Pong", "Pong"], "once"),
    "unknown game to record": ("jowa.record", ["--out", "x", "--games", "Pongg"], "did you mean Pong"),
    "unknown policy": (
        "jowa.record",
        ["--out", "x", "--games", "Pong", "--policies", "expret"],
        "unknown policy 'expret'",
    ),
}


@pytest.mark.parametrize("name", USAGE)
def test_a_mistake_in_the_call_is_one_line_and_exit_code_2(command: Any, name: str, tmp_path: Path) -> None:
    module, options, said = USAGE[name]
    assert said in only_error(command(module, *options, cwd=str(tmp_path)), 2)
    assert list(tmp_path.iterdir()) == [], "nothing is written before the settings are checked"


@pytest.mark.parametrize(
    ("module", "options", "said"),
    [
        ("jowa.train", ["--stage1.stepz", "3"], "--stage1.stepz, 3; did you mean --stage1.steps"),
        ("jowa.train", ["--no-checkpoint.asynchronous"], "or --checkpoint.no-asynchronous?"),
        ("jowa.train", ["--evaluation.protocol", "stick"], "protocol"),
        ("jowa.train", ["--seed", "one"], "seed"),
        ("jowa.evaluate", ["nowhere", "--planner", "beams"], "planner"),
        ("jowa.evaluate", ["nowhere", "--protocol", "stick"], "protocol"),
        ("jowa.evaluate", ["--agent"], "--agent"),
        ("jowa.diagnose", [], "required"),
        ("jowa.record", ["--out", "x", "--games", "Pong", "--stepz", "3"], "stepz"),
        ("jowa.record", [], "--out path folder of the data set"),
        ("jowa.conformance", [], "folder"),
    ],
)
def test_an_unknown_option_or_choice_is_exit_code_2(command: Any, module: str, options: list[str], said: str) -> None:
    done = command(module, *options)
    assert said in only_error(done, 2).lower() and not done.stdout
    assert done.stderr.count("\n") == 1, "one line and nothing else"


def damage_version(store: Path) -> None:
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["version"] = 99
    (store / "zarr.json").write_text(json.dumps(document))


def shard(store: Path) -> Path:
    return store / "Pong" / "frames" / "c" / "0" / "0" / "0"


def damage_chunk(store: Path) -> None:
    held = bytearray(shard(store).read_bytes())
    held[20:60] = bytes(byte ^ 0xFF for byte in held[20:60])
    shard(store).write_bytes(held)


def damage_rewards(store: Path) -> None:
    rewards = zarr.open_array(store / "Pong" / "rewards", mode="r+")
    rewards[:] = np.full(rewards.shape, np.nan, np.float32)


def damage_everything(store: Path) -> None:
    shutil.rmtree(store)
    store.mkdir()


DATA: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (shutil.rmtree, "does not exist"),
    "empty": (damage_everything, "expected a jowa-episodes store"),
    "another schema version": (damage_version, "this program reads versions 1 and 2"),
    "truncated": (lambda store: os.truncate(shard(store), shard(store).stat().st_size // 2), "is damaged"),
    "a corrupt chunk": (damage_chunk, "is damaged"),
    "a lost file": (lambda store: shard(store).unlink(), "the file is missing"),
    "another game": (lambda store: shutil.rmtree(store / "Pong"), "not Pong"),
    "a batch of NaN": (damage_rewards, "not finite"),
}


@pytest.mark.parametrize("name", DATA)
def test_a_bad_data_set_is_one_line_and_exit_code_1(command: Any, arguments: Any, store: Path, name: str) -> None:
    damage, said = DATA[name]
    damage(store)
    message = only_error(command("jowa.train", *arguments(data__path=store)), 1)
    assert said in message and (name == "a batch of NaN" or "store" in message)


def change_width(agent: Path) -> None:
    document = json.loads((agent / "config.json").read_text())
    document["model"]["width"] = 64
    (agent / "config.json").write_text(json.dumps(document))


def change_key(agent: Path) -> None:
    document = json.loads((agent / "config.json").read_text())
    document["model"]["depth"] = 64
    (agent / "config.json").write_text(json.dumps(document))


AGENTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (shutil.rmtree, "is not an agent"),
    "no weights": (lambda agent: (agent / "model.safetensors").unlink(), "model.safetensors"),
    "truncated": (lambda agent: os.truncate(agent / "model.safetensors", 5000), "cannot be read"),
    "other sizes": (change_width, "config.json asks for"),
    "unknown key": (change_key, "unknown key 'depth'"),
    "not JSON": (lambda agent: (agent / "config.json").write_text("{"), "not valid JSON"),
}


@pytest.mark.parametrize("name", AGENTS)
def test_a_bad_agent_is_one_line_and_exit_code_1(command: Any, agent: Path, name: str) -> None:
    damage, said = AGENTS[name]
    damage(agent)
    assert said in only_error(command("jowa.evaluate", agent, "--games", "Pong", "--device", "cpu"), 1)


def test_a_corrupt_checkpoint_or_damaged_scores_are_one_line(
    command: Any, arguments: Any, finished_run: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (out / "results.json").write_text("{")
    message = only_error(command("jowa.train", *arguments(evaluation__episodes=1)), 1)
    assert "results.json is not valid JSON" in message and "delete it" in message
    saved = checkpoints(out / "checkpoints")
    for path in saved:
        os.truncate(path / "__0_0.distcp", 2000)
    message = only_error(command("jowa.train", *arguments()), 1)
    assert "step-00000008 is damaged (__0_0.distcp has 2000 bytes), and so is every one before it" in message


def test_a_run_of_other_settings_is_refused_and_unharmed(
    command: Any, arguments: Any, finished_run: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished_run, tmp_path / "run"))
    before = contents(out)
    message = only_error(command("jowa.train", *arguments(model__width=64)), 2)
    assert "model.width = 32, now it is 64" in message and "--restart" in message
    assert contents(out) == before


def test_no_permission_to_write(command: Any, arguments: Any, agent: Path, read_only: Path) -> None:
    attempts = (
        ("jowa.train", *arguments(out=read_only / "run")),
        ("jowa.evaluate", agent, "--games", "Pong", "--device", "cpu", "--out", read_only / "scores.json"),
        ("jowa.record", "--out", read_only / "data", "--games", "Pong", "--steps", "5", "--workers", "1"),
    )
    for attempt in attempts:
        message = only_error(command(*attempt), 1)
        assert "no permission to write" in message and str(read_only) in message


def test_what_converts_or_evaluates_names_a_folder_it_may_not_write(command: Any, read_only: Path) -> None:
    published = ("--tokenizer", GOLDEN / "tokenizer.pt", "--model", GOLDEN / "JOWA.pt", "--heads", "4")
    message = only_error(command("jowa.convert", *published, "--out", read_only / "agent"), 1)
    assert "no permission to write" in message and str(read_only) in message


def test_a_full_disk_stops_convert_and_evaluate_with_one_line(command: Any, agent: Path, tmp_path: Path) -> None:
    published = ("--tokenizer", GOLDEN / "tokenizer.pt", "--model", GOLDEN / "JOWA.pt", "--heads", "4")
    out = tmp_path / "converted"
    message = only_error(command("jowa.convert", *published, "--out", out, largest_file=10_000), 1)
    assert "could not be written" in message and str(out) in message and not (out / "config.json").exists()
    scores = tmp_path / "scores.json"
    scores.write_text("{}")
    play = ("--games", "Freeway", "--episodes", "1", "--planner", "none", "--device", "cpu", "--out", scores)
    only_error(command("jowa.evaluate", agent, *play, largest_file=600), 1)
    assert scores.read_text() == "{}"


def test_an_agents_folder_is_not_taken_for_a_run(command: Any, arguments: Any, agent: Path) -> None:
    before = contents(agent)
    for options in (arguments(out=agent), [*arguments(out=agent), "--restart"]):
        assert "holds something else than a training run" in only_error(command("jowa.train", *options), 2)
        assert contents(agent) == before


@pytest.fixture
def interrupted(finished_run: Path) -> Callable[[Path], Path]:
    """Copy the finished run to a folder and take its last checkpoint away."""

    def make(out: Path) -> Path:
        shutil.copytree(finished_run, out)
        shutil.rmtree(out / "checkpoints" / "step-00000008")
        return out

    return make


def test_a_full_disk_harms_nothing(
    command: Any, arguments: Any, finished_run: Path, interrupted: Any, mount: Any
) -> None:
    disk = mount("24m")
    out = interrupted(disk / "run")
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free
    filler.write_bytes(bytes(free - 200_000))
    before = contents(out)
    message = only_error(command("jowa.train", *arguments(out=out)), 1)
    assert "step-00000008" in message and "disk full" in message and "rerun" in message
    assert {k: v for k, v in contents(out).items() if k.name != "config.json"} == {
        k: v for k, v in before.items() if k.name != "config.json"
    }
    filler.unlink()
    assert command("jowa.train", *arguments(out=out)).returncode == 0
    assert (out / "agent" / "model.safetensors").read_bytes() == (
        finished_run / "agent" / "model.safetensors"
    ).read_bytes()


def test_a_write_that_fails_half_way_harms_nothing(
    command: Any, arguments: Any, interrupted: Any, tmp_path: Path
) -> None:
    out = interrupted(tmp_path / "run")
    message = only_error(command("jowa.train", *arguments(), largest_file=100_000), 1)
    assert "step-00000008 could not be written" in message
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000006"]
    assert read_manifest(out / "checkpoints" / "step-00000006")["step"] == 6


def test_an_agent_that_cannot_be_written_is_one_line(
    command: Any, arguments: Any, finished_run: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished_run, tmp_path / "run"))
    before = contents(out / "agent")
    message = only_error(command("jowa.train", *arguments(), largest_file=50_000), 1)
    assert str(out / "agent") in message and "checkpoints are kept" in message
    assert contents(out / "agent") == before


@pytest.mark.slow
def test_evaluate_plays_and_writes_json_and_a_table(agent: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    done = subprocess.run(
        [
            sys.executable, "-m", "jowa.evaluate", agent, "--games", "Pong", "--episodes", "2", "--planner", "none",
            "--width", "3", "--horizon", "1", "--context", "3", "--protocol", "published", "--seed", "5",
            "--device", "cpu", "--out", out,
        ],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr and "\x1b" not in done.stderr
    assert "2/2 episodes" in done.stderr and "episodes/s" in done.stderr
    for shown in ("Pong", "95% interval", "HNS", "IQM over 1", f"written to {out}"):
        assert shown in done.stdout
    document = json.loads(out.read_text())
    settings = document["settings"]
    assert (settings["episodes"], settings["seed"], settings["context"]) == (2, 5, {"Pong": 3})
    assert settings["planner"]["name"] == "none" and settings["planner"]["width"] == 3
    assert settings["protocol"] == {"name": "published", "sticky": 0.0, "max_steps": 108_000, "random_action": 0.001}
    (game,) = document["games"]
    assert game["game"] == "Pong" and len(game["scores"]) == 2 and game["low"] <= game["mean"] <= game["high"]
    assert len(document["steps"]["Pong"]) == 2 and min(document["steps"]["Pong"]) > 500
    assert document["iqm_hns"]["iqm"] == pytest.approx(game["hns"])


def test_evaluate_documents_its_options(command: Any) -> None:
    done = command("jowa.evaluate", "--help")
    assert done.returncode == 0
    for option in ("games", "episodes", "planner", "width", "horizon", "protocol", "context", "seed", "batch", "out"):
        assert f"--{option} " in done.stdout
