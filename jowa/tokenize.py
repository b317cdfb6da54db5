"""``python -m jowa.tokenize``: encode a data set's frames once, so that training reads tokens instead of pixels.

The tokens lie in the data set, under the fingerprint of the tokenizer, and training with that tokenizer picks them up.
Interrupt it whenever you like: run again, it makes the shards that are missing.  With torchrun, several GPUs share
the work.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jowa.agent import Agent
from jowa.data.store import EpisodeStore
from jowa.data.tokens import TokenStore, identity, tokens_folder
from jowa.devices import precision_name
from jowa.errors import UsageError, command
from jowa.options import parse_options
from jowa.progress import steps_progress
from jowa.tokenizer.dataset import encode_missing, encoder
from jowa.train.distributed import process_group


@dataclass(frozen=True)
class TokenizeConfig:
    """Whose tokens of what."""

    agent: Annotated[Path, tyro.conf.Positional]
    """Agent: its folder, demo (the one that comes with jowa), or owner/name on the Hugging Face hub;
    also as --agent. Its tokenizer encodes."""
    store: Annotated[Path, tyro.conf.Positional]
    """Folder of the data set."""
    games: tuple[str, ...] = ()
    """Games to encode; default: all that the data set holds."""
    out: Path | None = None
    """Folder for the tokens, default: inside the data set."""
    device: str = "auto"
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: str = "auto"
    """float32, bfloat16, or ``auto`` (bfloat16 on a GPU): take the one that the agent plays in."""


def tokenize(config: TokenizeConfig) -> str:
    """Bring the tokens up to date; returns one line for the user, in the main process."""
    store = EpisodeStore.open(config.store)
    games = config.games or store.games
    for game in games:
        store.num_rows(game)  # which refuses games that are not there
    with process_group(config.device) as place, ExitStack() as held:
        agent = Agent.from_pretrained(config.agent, None, str(place.device), config.precision)
        name = identity(agent.tokenizer.fingerprint(), precision_name(agent.autocast))
        folder = config.out or tokens_folder(store, name)
        tokens = None
        if place.is_main:
            tokens = TokenStore.create(folder, name, agent.tokenizer.config.vocab_size)
            held.callback(os.close, tokens.lock())
        place.barrier()
        tokens = tokens or TokenStore.open(folder, name)
        encode = encoder(agent.tokenizer, place.device, agent.autocast)
        steps = sum(store.num_rows(game) for game in games)
        began = time.monotonic()
        shown = steps_progress("encoding", steps, "frames") if place.is_main and sys.stderr.isatty() else nullcontext()
        with shown as advance:

            def report(done: int, total: int) -> None:
                if advance is not None:
                    advance(round(steps * done / total))

            done = encode_missing(tokens, store, games, encode, place.rank, place.world, place.barrier, report)
        seconds = time.monotonic() - began
        if not place.is_main:
            return ""
        workers = "" if place.world == 1 else f" in the first of {place.world} processes"
        rate = f", {done / seconds:,.0f} frames/s{workers}" if done else ": all of them were there"
        return f"{folder}: tokens of {sum(map(store.num_steps, games)):,} frames of {', '.join(games)}{rate}"


@command
def main() -> None:
    """Parse the options, encode, and say what there is now."""
    config = parse_options(TokenizeConfig, "python -m jowa.tokenize", first="agent", description=__doc__)
    if config.precision not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"precision {config.precision!r}: choose auto, float32 or bfloat16")
    if said := tokenize(config):
        print(said)


if __name__ == "__main__":
    main()
