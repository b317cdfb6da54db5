"""python -m benchmarks.gpu, as far as a machine without a GPU can try it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
gpu = importlib.import_module("benchmarks.gpu")
random_shapes = importlib.import_module("benchmarks.random_shapes")
conftest = importlib.import_module("benchmarks.conftest")
sys.path.pop(0)


@pytest.mark.parametrize("kernel", random_shapes.CHECKS)
def test_random_shapes_agree(kernel: str) -> None:
    random_shapes.run(kernel, 5, torch.device("cpu"))


def test_a_failure_names_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(generator: torch.Generator, device: torch.device) -> None:
        assert generator.initial_seed() != 3, "wrong"

    monkeypatch.setitem(random_shapes.CHECKS, "vq_lookup", fails)
    with pytest.raises(AssertionError, match=r"vq_lookup fails at seed 3; repeat it with: .* --first-seed 3 --count 1"):
        random_shapes.run("vq_lookup", 10, torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1 and "torch sees no CUDA device: nothing to run here" in done.stderr


def test_a_step_that_fails_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        gpu.Step("bad", [sys.executable, "-c", "raise SystemExit(3)"], 0.5),
        gpu.Step("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 0.001),
        gpu.Step("good", [sys.executable, "-c", "pass"], 0.5),
    ]
    outcomes = gpu.run_all(steps, print)
    assert outcomes["bad"].startswith("failed (3)") and outcomes["good"].startswith("passed")
    assert outcomes["slow"].startswith("out of time")
    assert "== 3/3 good" in capsys.readouterr().out


def test_a_step_whose_packages_are_missing_is_left_out() -> None:
    step = gpu.Step("training", [sys.executable, "-c", "raise SystemExit(3)"], 0.5, ("sys", "no_such_package"))
    said: list[str] = []
    outcomes = gpu.run_all([step], said.append)
    assert outcomes["training"].startswith("left out, needs no_such_package: pip install -e .") and len(said) == 1


COLLECT = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import pytest
raise SystemExit(pytest.main([*{arguments!r}, "--collect-only", "-p", "no:cacheprovider"]))
"""
FOREIGN = {
    "ale_py", "cv2", "google_crc32c", "gymnasium", "huggingface_hub", "hypothesis", "matplotlib", "numcodecs",
    "pandas", "PIL", "pytest_timeout", "pytestqt", "rich", "rliable", "safetensors", "scipy", "tensorboard", "tyro",
    "xdist", "zarr",
}  # fmt: skip
"""What a machine with torch, triton, NumPy and pytest alone does not have."""


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_every_step_needs_no_package_but_what_it_says(device: str) -> None:
    steps = [step for step in gpu.steps(3, device) if "pytest" in step.command]
    for needs in {step.needs for step in steps}:
        files = [
            part for step in steps if step.needs == needs for part in step.command if "/" in part and part[0] != "/"
        ]
        assert files and all((ROOT / file).exists() for file in files)
        arguments = ["-q", "--override-ini", "addopts=--import-mode=importlib --strict-markers", *files]
        done = subprocess.run(
            [sys.executable, "-c", COLLECT.format(blocked=FOREIGN - set(needs), arguments=arguments)],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]


def test_the_table_holds_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"claim": "faster", "shapes": "3 x 4", "runs": 7, "seconds": {"ours": 0.001, "rival": 0.0025}, "ratio": 2.5},
        {"claim": "rates", "shapes": "all", "GB_s": 1234.5, "peak_mb": 9},
    ]
    rows.append({"claim": "alone", "shapes": "one", "seconds": 3.25, "frames": 4})
    document = {"device": "A GPU", "date": "2026-01-02", "versions": {"torch": "9"}, "rows": rows}
    (tmp_path / "a-gpu.json").write_text(json.dumps(document))
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / "suite.json").write_text(json.dumps({"versions": {}, "games": []}))
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    (written,) = gpu.write_tables()
    text = written.read_text()
    assert "| faster | 3 x 4 | 1 ms | 2.5 ms | 2.50 |  |" in text
    assert "| rates | all |  |  |  | GB_s 1,234, peak_mb 9 |" in text
    assert "| alone | one |  |  |  | seconds 3.25, frames 4 |" in text
    assert gpu.write_tables() == [], "nothing is newer"


def test_every_stored_result_can_be_a_table() -> None:
    documents = [json.loads(path.read_text()) for path in gpu.RESULTS.glob("*.json")]
    tables = [gpu.table(document) for document in documents if gpu.is_measured(document)]
    assert tables and all(table.count("\n") > 5 for table in tables)


def test_a_row_is_stored_when_it_is_measured(tmp_path: Path) -> None:
    """A benchmark that runs out of time keeps what it has; what another session measured stays."""
    for figure in (1.0, 2.0):
        comparison = conftest.Comparison(tmp_path)
        comparison.note("other", f"session {figure}", seconds=figure)
        comparison.note("same", "again", value=figure)
        (path,) = tmp_path.iterdir()
        kept = [(row["claim"], row["shapes"]) for row in json.loads(path.read_text())["rows"]]
    assert kept == [("other", "session 1.0"), ("other", "session 2.0"), ("same", "again")]
    comparison("faster", "one", lambda: None, lambda: None, runs=1)
    rows = json.loads(path.read_text())["rows"]
    assert rows[2]["value"] == 2.0 and rows[3]["claim"] == "faster" and set(rows[3]["seconds"]) == {"ours", "rival"}


def test_a_step_out_of_time_ends_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    assert gpu.run_step(gpu.Step("slow", [sys.executable, "-c", code], 5.0), 10.0) is None
    child = int((tmp_path / "child").read_text())
    until = time.monotonic() + 20  # a busy machine takes a while to let a killed process go; left alone it lives for 60
    while (alive := _runs(child)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
