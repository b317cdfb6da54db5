"""One of several processes: ``shard_worker.py KIND DO FOLDER`` saves or loads a model as replicas or shards.

After saving or loading, the weights and one more step of the optimizer are written to FOLDER/KIND-DO-RANK.pt, whole.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from jowa.train.config import CheckpointConfig
from jowa.train.distributed import Place, process_group
from jowa.train.saving import CheckpointStore
from jowa.train.state import gather_state, restore_state
from jowa.train.step import Part


def make(kind: str, seed: int, place: Place) -> tuple[nn.Module, nn.Module, Part]:
    """(frozen tokenizer, model, its part) with the weights of ``seed``."""
    torch.manual_seed(seed)
    tokenizer = nn.Linear(2, 3).requires_grad_(False)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    model.register_buffer("counter", torch.full((2,), float(seed)))
    wrapped: nn.Module = model
    if kind == "shards":
        fully_shard(model[0])
        fully_shard(model)
    else:
        wrapped = place.wrap(model)
    # Two groups, as the world model's optimizer has.
    groups = [{"params": [model[0].weight, model[2].weight], "weight_decay": 0.1}, {"params": [model[0].bias]}]
    optimizer = torch.optim.AdamW([*groups, {"params": [model[2].bias]}], lr=0.1, fused=True)
    return tokenizer, model, Part("joint", model, wrapped, optimizer, 1e9, place)


def step(part: Part) -> None:
    """One step, the same whatever ``part`` is."""
    generator = torch.Generator().manual_seed(3)
    part.optimizer.zero_grad()
    loss = part.wrapped(torch.randn(4, 5, generator=generator)).square().mean()
    torch.autograd.backward(loss)
    part.optimizer.step()


def whole(model: nn.Module) -> dict[str, Any]:
    """Weights and buffers, put together from their shards."""
    found = model.state_dict()
    return {name: (t.full_tensor() if isinstance(t, DTensor) else t).clone() for name, t in found.items()}


def main(kind: str, do: str, folder: Path) -> None:
    """See the module's docstring."""
    with process_group("cpu") as place:
        tokenizer, model, part = make(kind, 1 if do == "save" else 2, place)
        store = CheckpointStore(folder / f"saved-as-{kind}" if do == "save" else folder / do, CheckpointConfig(), place)
        if do == "save":
            step(part)
            part.skipped += 4
            store.save(1, gather_state(tokenizer, model, [part]), {"optimizers": ["joint"]})
        else:
            found = store.newest()
            assert found is not None
            path, manifest = found
            state = gather_state(tokenizer, model, [part], begun=manifest["optimizers"])
            store.load(path, state)
            restore_state(state, tokenizer, model, [part])
        before = whole(model)
        step(part)  # while the copy is written
        store.wait()
        assert store.failures == 0
        results = {"before": before, "after": whole(model), "skipped": part.skipped, "tokenizer": tokenizer.weight}
        torch.save(results, folder / f"{kind}-{do}-{place.rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
