"""``python -m jowa.draft AGENT DATA``: train a draft head, add it to the agent, and print how well it guesses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from jowa.agent import Agent
from jowa.data.store import EpisodeStore
from jowa.draft.distill import Moments, Pairs, imagine_pairs, recorded_pairs, train_head
from jowa.draft.measure import measure
from jowa.errors import UsageError, command
from jowa.hub import find_agent, output_folder
from jowa.options import parse_options
from jowa.progress import steps_progress


@dataclass(frozen=True)
class DraftConfig:
    """Train a small network that guesses the model's imagined frames, so that planning needs fewer passes.

    What is imagined stays the same; only the time changes.  The model itself is not touched.
    """

    agent: tyro.conf.Positional[Path]
    """Agent: its folder, demo (the one that comes with jowa), or owner/name on the Hugging Face hub;
    also as --agent. draft.safetensors is added to the folder; of another agent, a copy with it is written to
    runs/played/<agent>."""
    data: tyro.conf.Positional[Path]
    """Data set whose recorded moments the model imagines from."""
    games: tuple[str, ...] = ()
    """Games; none: those that the agent was trained on."""
    moments: int = 4_000
    """Recorded moments a game to imagine from."""
    steps: int = 3_000
    """Training steps of 64 frames; 0: only measure."""
    held_out: float = 0.1
    """Share of the episodes (the last ones) kept for measuring."""
    recorded: bool = False
    """Guess recorded frames instead of imagined ones, and only measure: what the tokenizer makes of the frames, for a
    model that imagines what happens."""
    context: int | None = None
    """Steps of memory; None: the agent's own."""
    seed: int = 0
    """Of the moments, the actions and the start of the head."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Raise :class:`UsageError` for values that cannot be used."""
        for name, least in {"moments": 1, "steps": 0}.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if not 0.0 < self.held_out < 1.0:
            raise UsageError(f"held_out is {self.held_out}, expected a share between 0 and 1")


def run(config: DraftConfig) -> None:
    """Imagine, train, measure, save."""
    config.check()
    agent = Agent.from_pretrained(config.agent, None, config.device)
    store = EpisodeStore.open(config.data)
    games = config.games or tuple(game for game in agent.tasks if game in store.games)
    if not games:
        raise UsageError(f"{config.data} holds none of the agent's games ({', '.join(agent.tasks)})")
    context = agent.planning.context if config.context is None else config.context
    context = 2 if config.recorded else min(context, agent.model.config.context_steps - 1)
    generator = np.random.default_rng(config.seed)
    kept: dict[str, Pairs] = {}
    pairs: list[Pairs] = []
    with steps_progress(
        "encoding" if config.recorded else "imagining", config.moments * len(games), "moments"
    ) as advance:
        for done, game in enumerate(games):
            count = store.num_episodes(game)
            last = max(1, round(count * config.held_out))
            if count <= last:
                raise UsageError(
                    f"{config.data} holds {count} episode(s) of {game}: expected one to train and one to keep"
                )
            test = max(1, config.moments // 10)
            parts = ((range(count - last), config.moments - test), (range(count - last, count), test))
            drawn = [Moments.draw(store, game, episodes, context, n, generator) for episodes, n in parts]
            shown, held = (
                recorded_pairs(agent, part) if config.recorded else imagine_pairs(agent, part, generator)
                for part in drawn
            )  # fmt: skip
            pairs.append(shown)
            kept[game] = held
            advance((done + 1) * config.moments, game)
    if config.steps:
        with steps_progress("training the draft head", config.steps, "steps") as advance:
            head = train_head(
                agent, Pairs.join(pairs), config.steps, config.seed,
                advance=lambda n, loss: advance(n, f"loss {loss:.3f}"),
            )  # fmt: skip
        agent.add_draft_head(head)
        if not config.recorded:
            _save(agent, config.agent)
    _report(agent, kept, f"held-out {'recorded' if config.recorded else 'imagined'} frames")


def _save(agent: Agent, name: Path) -> None:
    """Add the head to the agent's folder, or write all of it where that is not the user's."""
    folder = output_folder(name)
    if folder == find_agent(name):
        agent.save_draft_head(folder)
    else:
        agent.save(folder)
    print(f"draft head: {folder}")


def _report(agent: Agent, kept: dict[str, Pairs], title: str) -> None:
    table = Table("game", "guess", "tokens changed", "accepted", "passes a frame", title=title)
    for game, pairs in kept.items():
        for number, (name, found) in enumerate(measure(agent, pairs).items()):
            table.add_row(
                "" if number else game, name, "" if number else f"{found.changed:.2f}", f"{found.accepted:.1%}",
                f"{found.passes:.2f}",
            )  # fmt: skip
    Console().print(table)
    print("token by token: 37 passes a frame")


@command
def main() -> None:
    """Entry point."""
    run(parse_options(DraftConfig, "python -m jowa.draft", first="agent"))


if __name__ == "__main__":
    main()
