"""One of several processes that train together: ``ddp_worker.py SETTINGS.pt OUT``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from jowa.train.distributed import process_group
from jowa.train.feed import Feed
from jowa.train.loop import Trainer
from jowa.train.parallel import whole


def main(settings: Path, out: Path) -> None:
    """Train; write to OUT/rank<n>.pt what is to be compared."""
    wanted = torch.load(settings, weights_only=False)
    with process_group("cpu") as place:
        trainer = Trainer(wanted["config"], place)
        trainer.resume()
        found: dict[str, Any] = {"losses": [], "gradients": {}, "padding": []}

        def watch(step: int, metrics: dict[str, float]) -> None:
            found["losses"].append(metrics)
            if step in wanted["gradients_after"]:
                parts = {"tokenizer": trainer.tokenizer, "model": trainer.model}
                found["gradients"][step] = {
                    f"{part}.{name}": whole(parameter.grad).clone()
                    for part, module in parts.items()
                    for name, parameter in module.named_parameters()
                    if parameter.grad is not None
                }

        feed = Feed(wanted["config"], place)
        trainer.run(feed, watch)
        found["padding"] = [int((~feed.pixels(step, stage=2).mask).sum()) for step in range(8)]
        found["state"] = {key: whole(value) for key, value in trainer._state().items() if key in ("tokenizer", "model")}
        found["held"] = sum(
            p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in trainer.model.parameters()
        )
        found["playing"] = trainer.agent().model.state_dict()
        torch.save(found, out / f"rank{place.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
