"""AdamW against Muon: how soon the critic's choice is that of whoever played, on episodes that it never saw.

    python -m jowa.record --out STORE --games Pong --steps 40000 --max-steps 3000
    python -m jowa.record --out HELD --games Pong --steps 5000 --policies follower --max-steps 3000 --seed 77
    python -m benchmarks.optimizers STORE HELD OUT.json --game Pong --steps 4000

The `tiny` preset trains once with each on STORE, both stages; HELD should hold play without noise, so that agreement
could reach 1.  Seconds are this process's CPU time on one thread, so that other load costs both alike.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from jowa.data.store import EpisodeStore
from jowa.devices import device_name
from jowa.files import atomic_write_text
from jowa.games import get_game
from jowa.train.config import OptimizerConfig
from jowa.train.distributed import Place
from jowa.train.feed import Feed
from jowa.train.loop import Trainer
from jowa.train.presets import get_train_preset

MOMENTS = 2000
"""Held-out moments at most."""
BATCH = 250


@dataclass(frozen=True)
class HeldOut:
    """Moments of unseen play: tokens int64 (N, 36) and the actions int64 (N,) that were chosen there."""

    tokens: Tensor
    actions: Tensor


@torch.no_grad()
def held_out(trainer: Trainer, store: EpisodeStore, game: str) -> HeldOut:
    """Every other moment of ``game``, as the run's tokenizer sees it."""
    episodes = [store.read_episode(game, index) for index in range(store.num_episodes(game))]
    frames, actions = (
        torch.cat([torch.from_numpy(getattr(episode, name)) for episode in episodes])[::2][:MOMENTS]
        for name in ("frames", "actions")
    )
    tokens = torch.cat([trainer.tokenizer.encode(part) for part in frames.split(BATCH)])
    return HeldOut(tokens, actions.long())


@torch.no_grad()
def agreement(trainer: Trainer, held: HeldOut, game: str) -> float:
    """Share of ``held`` in which the legal action of the highest Q, from that frame alone, is the one chosen."""
    model, info = trainer.model.eval(), get_game(game)
    chosen = []
    for tokens in held.tokens.split(BATCH):
        rows = len(tokens)
        actions, tasks = torch.zeros(rows, 1, dtype=torch.int64), torch.full((rows,), info.task_id)
        embedded = model.embed(tokens[:, None], actions, tasks)
        q = model.q_values(model.transformer(embedded)[:, tokens.shape[1] - 1])
        chosen.append(q.masked_fill(~torch.from_numpy(info.action_mask), -torch.inf).argmax(-1))
    model.train()
    return float((torch.cat(chosen) == held.actions).float().mean())


def train(data: Path, held: Path, game: str, steps: int, every: int, optimizer: OptimizerConfig) -> dict[str, object]:
    """One run: its agreement after every so many steps of stage 2, and its CPU seconds."""
    with tempfile.TemporaryDirectory() as out:
        config = get_train_preset("tiny")
        config = dataclasses.replace(
            config,
            out=Path(out),
            data=dataclasses.replace(config.data, path=data, games=(game,), record_steps=0),
            stage2=dataclasses.replace(config.stage2, steps=steps),
            optimizer=optimizer,
        )
        trainer = Trainer(config, Place(0, 1, torch.device("cpu")))
        store, found, curve = EpisodeStore.open(held), list[HeldOut](), list[dict[str, float]]()
        with closing(Feed(config, trainer.place)) as feed:
            began = time.process_time()
            measuring = 0.0

            def watch(step: int, metrics: dict[str, float]) -> None:
                nonlocal measuring
                done = step - config.stage1.steps
                if done <= 0 or done % every:
                    return
                paused = time.process_time()
                found.extend([] if found else [held_out(trainer, store, game)])
                curve.append(
                    {
                        "step": done,
                        "seconds": round(paused - began - measuring, 1),
                        "agreement": round(agreement(trainer, found[0], game), 4),
                    }
                )
                measuring += time.process_time() - paused
                print(optimizer.name, curve[-1], flush=True)

            trainer.run(feed, watch)
    return {"optimizer": dataclasses.asdict(optimizer), "curve": curve}


def main(
    data: Annotated[Path, tyro.conf.Positional], held: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional], game: str = "Pong", steps: int = 4000, every: int = 1000,
    optimizers: Sequence[str] = ("adamw", "muon"),
) -> None:  # fmt: skip
    """Train with each optimizer and write what was found."""
    torch.set_num_threads(1)
    settings = get_train_preset("tiny").optimizer
    runs = [train(data, held, game, steps, every, dataclasses.replace(settings, name=name)) for name in optimizers]  # type: ignore[arg-type]
    document = {
        "what": "agreement of the greedy action with held-out play",
        "game": game,
        "date": datetime.date.today().isoformat(),
        "device": device_name(torch.device("cpu")),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "runs": runs,
    }
    atomic_write_text(out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
