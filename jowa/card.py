"""The card of an agent: ``README.md`` as model hubs show it, with the front matter that they search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import jowa
from jowa.config import ModelConfig, TokenizerConfig

CARD = "README.md"
"""Its name in the agent folder."""

USE = """```python
from jowa.agent import Agent

agent = Agent.from_pretrained("OWNER/NAME")  # or the folder that holds this file
agent.reset("{game}")
action = agent.act(frame)  # uint8 (84, 84), as jowa.env.atari.AtariEnv gives it
```

`python -m jowa.evaluate --agent OWNER/NAME` plays real games with it, `python -m jowa.viewer --agent OWNER/NAME` shows
what it thinks. The weights are safetensors; nothing in them is executed when they are read."""

LIMITS = """It plays the games above, from 84x84 grey frames, four emulator frames a step, and knows nothing else. Its
scores are not to be expected in other games, nor under other rules for sticky actions. What it imagines beyond
{steps} steps, its context, is noise. It was trained offline, on recorded play: it does not explore, and where the
recordings never went, its values are guesses."""


@dataclass(frozen=True)
class CardScore:
    """What one player scored in one game."""

    game: str
    player: str
    """Who played how, such as ``beam search, width 2, horizon 1``."""
    protocol: str
    """Rules of the game, such as ``sticky, at most 27,000 steps``."""
    mean: float
    low: float
    high: float
    """Ends of the 95% interval of the mean."""
    episodes: int


@dataclass(frozen=True)
class CardFacts:
    """What a card says beyond what the agent itself knows; what is empty is said to be unknown."""

    data: str = ""
    """What the agent was trained on, in Markdown."""
    compute: str = ""
    """With what, and for how long."""
    scores: tuple[CardScore, ...] = ()
    license: str = "mit"
    """Of the weights, as the hub spells it."""


OTHERS = ("random", "data", "agent before")
"""Players of a run's table that are not the agent: the hub's index leaves them out."""


def model_card(tokenizer: TokenizerConfig, model: ModelConfig, games: Sequence[str], facts: CardFacts) -> str:
    """The card of an agent of these sizes that was trained on ``games``."""
    unknown = "Not noted."
    sections = {
        "Games": ", ".join(games) or unknown,
        "Sizes": (
            f"A `{tokenizer.encoder}` tokenizer with {tokenizer.vocab_size:,} codes; a transformer of {model.layers} "
            f"layers, width {model.width}, {model.heads} heads, that sees {model.context_steps} steps; "
            f"{model.q_ensemble} Q head(s) of {model.num_atoms} atoms."
        ),
        "Training data": facts.data or unknown,
        "Compute": facts.compute or unknown,
        "Scores": _score_table(facts.scores) if facts.scores else unknown,
        "Use": USE.format(game=games[0] if games else "Pong"),
        "Limits": LIMITS.format(steps=model.context_steps),
    }
    head = (
        "# An Atari agent of JOWA\n\nOne transformer that is world model and Q-critic at once (arXiv 2410.00564), "
        f"trained offline; it plays by planning in its own imagination. Written by jowa {jowa.__version__}."
    )
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"{_front_matter(games, facts)}\n{head}\n\n{body}\n"


def _front_matter(games: Sequence[str], facts: CardFacts) -> str:
    """What the hub searches, as YAML: JSON's strings and lists are YAML's."""
    tags = ["reinforcement-learning", "offline-rl", "world-model", "atari", "arxiv:2410.00564", *games]
    lines = ["library_name: jowa", "pipeline_tag: reinforcement-learning", f"license: {json.dumps(facts.license)}"]
    lines += [f"tags: {json.dumps(tags)}"]
    if facts.scores:
        lines.append(f"model-index: {json.dumps([{'name': 'jowa', 'results': _results(facts.scores)}])}")
    return "\n".join(["---", *lines, "---"])


def _results(scores: Sequence[CardScore]) -> list[dict[str, object]]:
    """Scores as the hub's index of results wants them."""
    return [
        {
            "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
            "dataset": {"name": score.game, "type": score.game},
            "metrics": [
                {
                    "type": "mean_reward",
                    "name": f"mean score, {score.player}, {score.protocol}",
                    "value": f"{score.mean:,.1f} {_interval(score)}".rstrip(),
                }
            ],
        }
        for score in scores
        if score.player not in OTHERS
    ]


def _score_table(scores: Sequence[CardScore]) -> str:
    rows = [
        "| game | player | rules | mean score | 95% interval | episodes |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for score in scores:
        who = f"{score.game} | {score.player} | {score.protocol}"
        rows.append(f"| {who} | {score.mean:,.1f} | {_interval(score)} | {score.episodes} |")
    return "\n".join(rows)


def _interval(score: CardScore) -> str:
    """The 95% interval of the mean; nothing for one episode, which has none."""
    return f"[{score.low:,.1f}, {score.high:,.1f}]" if score.episodes > 1 else ""
