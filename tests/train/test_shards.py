"""A checkpoint of one process, of replicas or of shards is one of the others."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

WORKER = str(Path(__file__).with_name("shard_worker.py"))
KINDS = {"plain": 1, "replicas": 2, "shards": 2}


@pytest.mark.slow
def test_checkpoints_are_interchangeable(command: Any, process_environments: Any, tmp_path: Path) -> None:
    def work(do: str) -> dict[str, list[dict[str, Any]]]:
        """What the processes of each kind found, which all run side by side."""
        jobs = [
            {"run": WORKER, "arguments": [kind, do, str(tmp_path)], "env": environment}
            for kind, world in KINDS.items()
            for environment in process_environments(world)
        ]
        for done in command.together(jobs):
            assert done.returncode == 0, done.stderr
        return {k: [torch.load(tmp_path / f"{k}-{do}-{rank}.pt") for rank in range(w)] for k, w in KINDS.items()}

    expected = work("save")["plain"][0]
    for source in KINDS:
        for found in itertools.chain(*work(f"saved-as-{source}").values()):
            assert found["skipped"].item() == 4 and torch.equal(found["tokenizer"], expected["tokenizer"])
            for when in ("before", "after"):
                assert found[when].keys() == expected[when].keys()
                for name, tensor in expected[when].items():
                    torch.testing.assert_close(found[when][name], tensor, rtol=1e-5, atol=1e-6)
            moved = [not torch.equal(expected["before"][n], expected["after"][n]) for n in ("0.weight", "2.bias")]
            assert all(moved), "the step after loading moves the weights"
