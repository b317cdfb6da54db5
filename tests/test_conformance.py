"""The recorded cases of the published implementation, and the command that runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jowa.conformance import GROUPS, TOLERANCES, Cases, Result, load_cases, run_groups
from jowa.conformance.__main__ import main
from jowa.errors import DataError

GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden() -> Cases:
    return load_cases(GOLDEN, CPU)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the cases, to be damaged."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "cases"))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["jowa.conformance", *map(str, arguments)])
    try:
        main()
    except SystemExit as exit:
        return int(exit.code or 0)
    return 0


def change(path: Path, name: str, edit) -> None:
    """Rewrite one array of an npz file; ``edit`` returns the new one, or None to drop it."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays[name] = edit(arrays[name])
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


@pytest.mark.parametrize("group", GROUPS)
def test_agrees_with_the_published_implementation(golden: Cases, group: str) -> None:
    (result,) = run_groups(golden, TOLERANCES["float32"], None, [group])
    assert result.passed, result.failures


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_is_near(golden: Cases, dtype: str) -> None:
    """The groups that need no token-by-token decoding: float16 is slow on a CPU."""
    names = ["logits", "joint losses", "joint gradients"]
    for result in run_groups(golden, TOLERANCES[dtype], getattr(torch, dtype), names):
        assert result.passed, result.failures


def test_every_recorded_array_is_compared(golden: Cases) -> None:
    read: set[str] = set()

    class Noting(type(golden.expected)):  # type: ignore[misc]
        def __getitem__(self, name: str):
            read.add(name)
            return super().__getitem__(name)

    noting = Noting(golden.expected.path)
    watched = Cases(golden.tokenizer, golden.model, golden.objective, golden.batch, noting, golden.planner_cases[:1])
    assert all(result.passed for result in run_groups(watched, TOLERANCES["float32"], None))
    # The recorded actions of imagination are inputs; the tokens were read when the cases were loaded.
    assert set(noting) == read


def test_the_command_passes_and_prints_every_group(monkeypatch, capsys) -> None:
    monkeypatch.setattr("jowa.conformance.__main__.run_groups", lambda *_: (Result(name, values=1) for name in GROUPS))
    assert call(monkeypatch, GOLDEN, "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in GROUPS) and printed.count("pass") == len(GROUPS) and "all agree" in printed


@pytest.mark.parametrize(
    ("array", "edit", "group"),
    [
        ("logits_q", lambda a: a + (np.arange(a.size) == 7).reshape(a.shape) * np.float32(0.01), "logits"),
        ("imagine/3/rewards", lambda a: -a + 1, "imagination"),
        ("joint/loss_td_error", lambda a: a * 1.001, "joint losses"),
        ("world/grad_norm/pos_emb.weight", lambda a: a * 1.001, "world gradients"),
        ("reconstruction", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 9, np.nan, a), "reconstruction"),
    ],
)
def test_one_changed_value_fails(folder: Path, monkeypatch, capsys, array, edit, group) -> None:
    change(folder / "expected.npz", array, edit)
    monkeypatch.setattr("jowa.conformance.__main__.run_groups", lambda *a: run_groups(*a, names=[group]))
    assert call(monkeypatch, folder, "--device", "cpu") == 1
    printed = capsys.readouterr().out
    assert "FAIL" in printed and f"{group}: {array.rpartition('/')[0] if 'grad_norm' in array else array}" in printed


@pytest.mark.parametrize("key", ["action", "top_scores"])
def test_one_changed_decision_fails(folder: Path, monkeypatch, capsys, key) -> None:
    content = json.loads((folder / "cases.json").read_text())
    case = content["planner_cases"][0]
    case[key] = case[key] + 1 if key == "action" else [score + 0.01 for score in case[key]]
    content["planner_cases"] = [case]
    (folder / "cases.json").write_text(json.dumps(content))
    monkeypatch.setattr("jowa.conformance.__main__.run_groups", lambda *a: run_groups(*a, names=["planner"]))
    assert call(monkeypatch, folder, "--device", "cpu") == 1
    assert "FAIL" in capsys.readouterr().out


def test_nothing_to_compare_is_no_agreement(golden: Cases) -> None:
    empty = Cases(golden.tokenizer, golden.model, golden.objective, golden.batch, golden.expected, ())
    (result,) = run_groups(empty, TOLERANCES["float32"], None, ["planner"])
    assert not result.passed


def test_what_is_missing_is_named(folder: Path) -> None:
    content = (folder / "cases.json").read_text()
    for text, message in (
        (content.replace("Seaquest", "Seaquets"), "unknown game 'Seaquets': did you mean Seaquest"),
        (content.replace('"heads"', '"haeds"'), "lacks the key 'heads'"),
        (content.replace('"mlp_dim": 48', '"mlp_dim": 64'), "mlp_dim is 64, the weights beside it say 48"),
        (content.replace('"planner": "beam"', '"planner": "mcts"'), "planner 'mcts'"),
        (content[:100], "not a description of cases"),
        ("[]", "not a description of cases"),
    ):
        (folder / "cases.json").write_text(text)
        with pytest.raises(DataError, match=message):
            load_cases(folder, CPU)
    (folder / "cases.json").write_text(content)
    change(folder / "inputs.npz", "actions", lambda a: a + 18)
    with pytest.raises(DataError, match="actions reach from 18"):
        load_cases(folder, CPU)
    change(folder / "inputs.npz", "actions", lambda a: a[:, :5] - 18)
    with pytest.raises(DataError, match="actions has shape"):
        load_cases(folder, CPU)
    change(folder / "inputs.npz", "actions", lambda a: None)
    with pytest.raises(DataError, match=r"inputs\.npz lacks the array 'actions'"):
        load_cases(folder, CPU)
    (folder / "expected.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(DataError, match="cannot be read as an npz"):
        load_cases(folder, CPU)
    (folder / "expected.npz").unlink()
    with pytest.raises(DataError, match=r"lacks expected\.npz"):
        load_cases(folder, CPU)


def test_a_missing_expected_array_is_named(folder: Path, monkeypatch, capsys) -> None:
    change(folder / "expected.npz", "logits_ends", lambda a: None)
    assert call(monkeypatch, folder, "--device", "cpu") == 1
    error = capsys.readouterr().err
    assert "lacks the array 'logits_ends'" in error and error.count("\n") == 1


def test_mistakes_in_the_call(monkeypatch, capsys, tmp_path: Path) -> None:
    assert call(monkeypatch, tmp_path / "nowhere") == 2
    assert call(monkeypatch, GOLDEN, "--dtype", "int8") == 2
    assert call(monkeypatch, GOLDEN, "--device", "tpu") == 2


def test_the_command_needs_only_torch_and_numpy() -> None:
    code = (
        "import sys\n"
        "for name in ('tyro', 'rich', 'safetensors', 'zarr', 'ale_py', 'gymnasium', 'cv2'): sys.modules[name] = None\n"
        "import jowa.conformance.__main__"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
