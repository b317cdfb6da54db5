"""``python -m jowa.convert``: turn published weights into an agent folder.

Sizes are read off the tensors.  What the files cannot tell (attention heads of a model that is no preset,
the range of the value atoms) is an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from jowa.agent import Agent
from jowa.errors import CheckpointError, UsageError, command
from jowa.games import PRETRAINING_GAMES, get_game
from jowa.model.published_checkpoint import read_model, read_tokenizer
from jowa.options import parse_options


@dataclass(frozen=True)
class ConvertConfig:
    """What to read and where to write."""

    tokenizer: Path
    """The published tokenizer: a file written by torch.save, for example tokenizer.pt."""
    model: Path
    """The published model, for example JOWA_150M.pt."""
    out: Path
    """The agent folder to write; it must not hold an agent yet."""
    heads: int | None = None
    """Attention heads; only needed when layers and width are not those of 40M, 70M or 150M."""
    v_min: float = -10.0
    """Lowest atom of the value distribution, in clipped reward."""
    v_max: float = 30.0
    """Highest atom of the value distribution, in clipped reward."""


def convert(config: ConvertConfig) -> Agent:
    """Read both files, check them against each other, write the folder; returns the agent that was written."""
    if (config.out / "config.json").exists():
        raise UsageError(f"{config.out} already holds an agent: choose another --out or delete it first")
    if config.out.exists() and not config.out.is_dir():
        raise UsageError(f"--out {config.out} is a file: name a folder")
    tokenizer = read_tokenizer(config.tokenizer)
    model = read_model(config.model, config.heads, config.v_min, config.v_max)
    if tokenizer.config.vocab_size != model.config.vocab_size:
        raise CheckpointError(
            f"{config.tokenizer} has {tokenizer.config.vocab_size} tokens and {config.model} expects "
            f"{model.config.vocab_size}: they are of different agents"
        )
    agent = Agent(tokenizer, model, {name: get_game(name).task_id for name in PRETRAINING_GAMES})
    agent.save(config.out)
    return agent


def describe(agent: Agent) -> str:
    """The sizes in one line, parameters in millions."""
    model = agent.model.config
    return (
        f"{model.layers} layers, {model.heads} heads, width {model.width}, {model.q_ensemble} x {model.q_width} "
        f"Q head, {model.vocab_size} tokens: {_millions(agent.model)} parameters, "
        f"{_millions(agent.tokenizer)} in the tokenizer"
    )


def _millions(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.2f}M"


@command
def main() -> None:
    """Parse the options, convert, and say what was written."""
    config = parse_options(ConvertConfig, "python -m jowa.convert", description=__doc__)
    agent = convert(config)
    print(f"wrote {config.out}: {describe(agent)}")


if __name__ == "__main__":
    main()
