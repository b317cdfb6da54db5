"""Trains tokenizers for equal time on recorded play and measures what they keep; see docs/tokenizer.md.

    python -m jowa.record --out STORE --games Breakout Pong Freeway Atlantis --steps 10000 --max-steps 1000
    python -m benchmarks.tokenizers STORE OUT.json --variants "l1" "motion" --seconds 100 --seeds 0 1

A row a variant and seed is added to OUT.json.  Time is this process's CPU time, on one thread, so that other
load on the machine costs the ones no more than the others.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional

from jowa.config import (
    LOCAL_TOKENIZER,
    PRESETS,
    TOKENS_PER_FRAME,
    WEIGHT_FREE,
    ObjectiveConfig,
    TokenizerConfig,
    TokenizerLossConfig,
)
from jowa.data.store import EpisodeStore
from jowa.devices import device_name
from jowa.files import atomic_write_text
from jowa.games import get_game
from jowa.model import WorldActionModel
from jowa.model.objective import Objective
from jowa.tokenizer import Tokenizer
from jowa.tokenizer.dataset import unique_patches
from jowa.tokenizer.patches import PIXELS, ROUNDS, fit_patches
from jowa.tokenizer.quality import measure
from jowa.train.config import OptimizerConfig
from jowa.train.feed import motion_weights
from jowa.train.optim import tokenizer_optimizer, world_optimizer
from jowa.types import Batch

HELD_OUT = 2
"""Episodes at the end of each game that no tokenizer trains on."""
STRETCH = slice(50, 300)
"""Steps of a held-out episode that are measured."""
REVIVE_EVERY, REVIVE_FRAMES = 50, 480
STRETCH_FRAMES = 512
"""Frames looked at together for distinct patches."""
SHOWN = ("moving_recall", "small_recall", "ball_recall", "error", "tokens_changed", "codes_used")
WARMUP, FINAL = 50, 0.1
LOCAL = LOCAL_TOKENIZER


def edge_error(target: Tensor, pixels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean absolute error of the differences between neighbours, across plus down (Mathieu et al. 2016, exponent 1).

    A difference weighs as much as its two pixels on average.
    """
    error = target - pixels
    total = error.new_zeros(())
    for axis in (2, 3):
        size = error.shape[axis] - 1
        steps = (error.narrow(axis, 1, size) - error.narrow(axis, 0, size)).abs()
        if weights is not None:
            steps = steps * (weights.narrow(axis, 1, size) + weights.narrow(axis, 0, size)) / 2
        total = total + steps.mean()
    return total


def multiscale_error(target: Tensor, pixels: Tensor, weights: Tensor | None) -> Tensor:
    """Sum of the mean absolute errors of frames averaged over squares of 2 and of 4 pixels."""
    error = target - pixels
    total = error.new_zeros(())
    for side in (2, 4):
        coarse = functional.avg_pool2d(error, side).abs()
        total = total + (coarse if weights is None else coarse * functional.avg_pool2d(weights, side)).mean()
    return total


@dataclass(frozen=True)
class Variant:
    """One way to train a tokenizer."""

    losses: TokenizerLossConfig
    motion: float = 0.0
    revive: bool = True
    config: TokenizerConfig = LOCAL
    rate: float = 2e-3
    batch: int = 60
    rival: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None
    """An error of (target, pixels, weights) to take in the place of the squared one, with weight 1."""


class RivalTokenizer(Tokenizer):
    """Trained with another term in the place of the squared error."""

    rival: Callable[[Tensor, Tensor, Tensor | None], Tensor]

    def _square(self, target: Tensor, pixels: Tensor, weights: Tensor | None) -> Tensor:
        return self.rival(target, pixels, weights)


def _terms(**settings: object) -> TokenizerLossConfig:
    return TokenizerLossConfig(perceptual="none", **settings)  # type: ignore[arg-type]


def _published(channels: int, batch: int) -> Variant:
    config = TokenizerConfig("published", LOCAL.vocab_size, LOCAL.code_dim, channels, z_channels=LOCAL.code_dim)
    return Variant(_terms(codebook="ema"), 800.0, config=config, rate=1e-3, batch=batch)


def _patches(codes: int) -> Variant:
    return Variant(_terms(), config=TokenizerConfig("patches", codes, PIXELS))


def _codes(variant: Variant, codes: int) -> Variant:
    return dataclasses.replace(variant, config=dataclasses.replace(variant.config, vocab_size=codes))


RIVAL = _terms(square_weight=1.0)
VARIANTS = {
    "l1": Variant(_terms()),
    "l1, no revival": Variant(_terms(), revive=False),
    "l1 + edge": Variant(RIVAL, rival=edge_error),
    "l1 + scales": Variant(RIVAL, rival=multiscale_error),
    "motion": Variant(_terms(), 800.0),
    "motion, no revival": Variant(_terms(), 800.0, revive=False),
    "motion + edge": Variant(RIVAL, 800.0, rival=edge_error),
    "motion + scales": Variant(RIVAL, 800.0, rival=multiscale_error),
    "motion + square 2": Variant(WEIGHT_FREE, 800.0),
    "motion, ema": Variant(_terms(codebook="ema"), 800.0),
    "motion, ema, no revival": Variant(_terms(codebook="ema"), 800.0, revive=False),
    "motion + square 2, ema": Variant(_terms(square_weight=2.0, codebook="ema"), 800.0),
    "motion + square 2, 2048 codes": _codes(Variant(WEIGHT_FREE, 800.0), 2048),
    "patches": _patches(512),
    "patches, 2048 codes": _patches(2048),
    "published 16, motion, ema": _published(16, 20),
    "published 64, motion, ema": _published(64, 12),
}


@dataclass(frozen=True)
class Play:
    """Recorded play of one game, in memory: what is trained on, and what is held out."""

    game: str
    frames: Tensor
    """uint8 (T, 84, 84)."""
    actions: Tensor
    starts: Tensor
    """int64: steps whose successor belongs to the same episode."""
    held_out: list[tuple[np.ndarray, Tensor]]
    """Frames and actions of the measured stretches."""


def read(store: EpisodeStore, game: str) -> Play:
    """All of ``game``."""
    count = store.num_episodes(game)
    episodes = [store.read_episode(game, index) for index in range(count)]
    trained, held = episodes[: count - HELD_OUT], episodes[count - HELD_OUT :]
    starts, first = [], 0
    for episode in trained:
        starts.append(torch.arange(first, first + len(episode) - 1))
        first += len(episode)
    return Play(
        game,
        torch.from_numpy(np.concatenate([episode.frames for episode in trained])),
        torch.from_numpy(np.concatenate([episode.actions for episode in trained])).long(),
        torch.cat(starts),
        [(e.frames[STRETCH], torch.from_numpy(e.actions[STRETCH]).long()) for e in held],
    )


class Clock:
    """CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self.start = time.process_time()

    def __call__(self) -> float:
        return time.process_time() - self.start


def rate_at(share: float, step: int) -> float:
    """The factor of the learning rate after ``share`` of the time: warm-up, then cosine decay, as in training."""
    return min(1.0, (step + 1) / WARMUP) * (FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def pairs(plays: list[Play], count: int, generator: torch.Generator) -> Tensor:
    """uint8 (count, 2, 84, 84): frames and their successors, as many of each game."""
    share = count // len(plays)
    drawn = []
    for play in plays:
        starts = play.starts[torch.randint(len(play.starts), (share,), generator=generator)]
        drawn.append(torch.stack([play.frames[starts], play.frames[starts + 1]], 1))
    return torch.cat(drawn)


def train_tokenizer(variant: Variant, plays: list[Play], seconds: float, seed: int) -> tuple[Tokenizer, int]:
    """Train for ``seconds``, clusters until they are found; returns the tokenizer and the number of steps."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    if variant.config.encoder == "patches":
        tokenizer = Tokenizer(variant.config, None, variant.losses)
        found = [unique_patches((part.numpy() for part in play.frames.split(STRETCH_FRAMES)), seed) for play in plays]
        tokenizer.embedding.weight.data.copy_(fit_patches(tokenizer.embedding.weight.data, found, seed, False))
        return tokenizer.eval(), ROUNDS
    if variant.rival is None:
        tokenizer = Tokenizer(variant.config, None, variant.losses)
    else:
        tokenizer = RivalTokenizer(variant.config, None, variant.losses)
        tokenizer.rival = variant.rival
    optimizer = tokenizer_optimizer(tokenizer, variant.rate)
    clock, step = Clock(), 0
    while (share := clock() / seconds) < 1:
        frames = pairs(plays, variant.batch // 2, generator)
        weights = motion_weights(frames, variant.motion).flatten(0, 1) if variant.motion else None
        if variant.revive and step % REVIVE_EVERY == 0 and share < 0.75:
            tokenizer.revive_dead_codes(pairs(plays, REVIVE_FRAMES // 2, generator).flatten(0, 1), generator)
        losses = tokenizer(frames.flatten(0, 1), weights)
        for group in optimizer.param_groups:
            group["lr"] = variant.rate * rate_at(share, step)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0)
        optimizer.step()
        tokenizer.update_codebook([losses.statistics])
        step += 1
    return tokenizer.eval(), step


def _batch(play: Play, tokens: Tensor, actions: Tensor) -> Batch:
    """Segments of two steps; rewards and ends are left out of this measurement (all 0)."""
    shape = tokens.shape[:2]
    game = get_game(play.game)
    return Batch(
        frames=None, tokens=tokens, actions=actions, rewards=torch.zeros(shape),
        ends=torch.zeros(shape, dtype=torch.bool), mask=torch.ones(shape, dtype=torch.bool),
        tasks=torch.full(shape[:1], game.task_id),
        legal=torch.zeros(shape[0], 18, dtype=torch.bool).index_fill_(1, torch.tensor(game.legal_actions), True),
    )  # fmt: skip


def _join(batches: list[Batch]) -> Batch:
    return Batch(
        **{
            f.name: None if getattr(batches[0], f.name) is None else torch.cat([getattr(b, f.name) for b in batches])
            for f in dataclasses.fields(Batch)
        }
    )


def world_loss(tokenizer: Tokenizer, plays: list[Play], seconds: float, seed: int, frames: int) -> dict[str, float]:
    """Nats for the next held-out frame, given the frame before and the action, after ``seconds`` of training.

    The tiny preset's world model trains on the tokens of the first ``frames`` frames of each game.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = WorldActionModel(dataclasses.replace(PRESETS["tiny"].model, vocab_size=tokenizer.config.vocab_size))
    objective = Objective(model, ObjectiveConfig())
    optimizer = world_optimizer(model, 1e-3, OptimizerConfig())
    tokens = [torch.cat([tokenizer.encode(part) for part in torch.split(p.frames[:frames], 128)]) for p in plays]
    model.train()
    clock, step = Clock(), 0
    while (share := clock() / seconds) < 1:
        batches = []
        for play, coded in zip(plays, tokens, strict=True):
            starts = play.starts[play.starts < len(coded) - 1]
            starts = starts[torch.randint(len(starts), (3,), generator=generator)][:, None] + torch.arange(2)
            batches.append(_batch(play, coded[starts], play.actions[starts]))
        losses = objective(_join(batches), critic=False)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * rate_at(share, step)
        optimizer.zero_grad(set_to_none=True)
        (losses["frame"] + losses["reward"] + losses["end"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
    model.eval()
    nats = {}
    for play in plays:
        each = []
        for seen, actions in play.held_out:
            coded = torch.cat([tokenizer.encode(part) for part in torch.split(torch.from_numpy(seen), 128)])
            starts = torch.arange(0, len(seen) - 1)[:, None] + torch.arange(2)
            batch = _batch(play, coded[starts], actions[starts])
            assert batch.tokens is not None
            with torch.no_grad():
                logits = model(batch.tokens, batch.actions, batch.tasks, target=False, detach_q=False).frames
            lost = functional.cross_entropy(
                logits[:, TOKENS_PER_FRAME - 1 : -1].flatten(0, 1), batch.tokens[:, 1].flatten(), reduction="none"
            )
            each.append(lost.view(-1, TOKENS_PER_FRAME).sum(1))
        nats[play.game] = float(torch.cat(each).mean())
    return nats | {"steps": step}


@dataclass(frozen=True)
class Options:
    """Compare ways to train a tokenizer at equal time."""

    store: Annotated[Path, tyro.conf.Positional]
    """Data set: about 10,000 steps of each game, in episodes of at most 1,000."""
    out: Annotated[Path, tyro.conf.Positional]
    """JSON file to which a row a trained tokenizer is added."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Names of the ways."""
    seconds: float = 60.0
    """CPU seconds of training for each."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of weights and batches."""
    world_seconds: float = 0.0
    """CPU seconds for a world model on the tokens of each; 0: none."""
    world_frames: int = 2_000
    """Frames a game that the world model learns from."""


def run(options: Options) -> list[dict[str, object]]:
    """Train, measure, write down; returns the new rows."""
    torch.set_num_threads(1)
    store = EpisodeStore.open(options.store)
    plays = [read(store, game) for game in store.games]
    rows = []
    for seed in options.seeds:
        for name in options.variants:
            clock = Clock()
            tokenizer, steps = train_tokenizer(VARIANTS[name], plays, options.seconds, seed)
            seconds = round(clock(), 1)
            qualities = {p.game: dataclasses.asdict(measure(tokenizer, [f for f, _ in p.held_out])) for p in plays}
            row = {"variant": name, "seed": seed, "seconds": seconds, "steps": steps, "games": qualities}
            if options.world_seconds:
                row["world_seconds"] = options.world_seconds
                row["nats"] = world_loss(tokenizer, plays, options.world_seconds, seed, options.world_frames)
            rows.append(row)
            _add(options.out, row)
            short = {g: [round(q[name], 3) for name in SHOWN] for g, q in qualities.items()}
            print(name, seed, steps, short, row.get("nats"), flush=True)
    return rows


def _add(path: Path, row: dict[str, object]) -> None:
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {
        "device": device_name(torch.device("cpu")),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "rows": [],
    }  # fmt: skip
    document["rows"].append(row)
    atomic_write_text(path, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    run(tyro.cli(Options))
