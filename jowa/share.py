"""``python -m jowa.share AGENT``: give an agent a card and write it out, or put it on the Hugging Face hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from jowa.agent import Agent
from jowa.card import CardFacts, CardScore
from jowa.errors import CheckpointError, UsageError, command
from jowa.hub import find_agent
from jowa.options import parse_options


@dataclass(frozen=True)
class ShareConfig:
    """Write an agent with a card for others, into a folder, onto the Hugging Face hub, or both.

    Games, data and scores are found in the training run around the agent and in what python -m jowa.evaluate left.
    """

    agent: tyro.conf.Positional[Path]
    """Agent: its folder, demo (the one that comes with jowa), or owner/name on the Hugging Face hub;
    also as --agent."""
    out: Path | None = None
    """Folder to write it into."""
    to: str | None = None
    """owner/name on the Hugging Face hub; needs pip install huggingface_hub, and hf auth login once."""
    private: bool | None = None
    """Whether others may see it on the hub, if it is new there; default: as your account has it."""
    revision: str | None = None
    """Branch on the hub; default: the main one."""
    half: bool = False
    """Store weights as float16, in half the bytes; docs/agents.md says what that changes."""
    data: str | None = None
    """What it was trained on, in words; default: what the run says."""
    compute: str | None = None
    """With what and for how long, in words; default: what the run says."""
    license: str = "mit"
    """Of the weights, as the hub spells it."""


def share(config: ShareConfig) -> list[str]:
    """Write and upload as ``config`` says; one line for the user about each."""
    if config.out is None and config.to is None:
        raise UsageError("nowhere to put the agent: name a folder with --out, or owner/name on the hub with --to")
    folder = find_agent(config.agent)
    if config.out is not None and config.out.resolve() == folder.resolve():
        raise UsageError(f"--out is the folder {folder} of the agent itself: choose another")
    agent = Agent.load(folder, "cpu", "float32")
    facts = find_facts(folder, config)
    said = []
    if config.out is not None:
        agent.save_pretrained(config.out, facts, config.half)
        size = sum(path.stat().st_size for path in config.out.iterdir()) / 2**20
        said.append(f"written to {config.out}: {size:.1f} MiB")
    if config.to is not None:
        said.append(f"on the hub: {agent.push_to_hub(config.to, facts, config.half, config.private, config.revision)}")
    return said


def find_facts(folder: Path, config: ShareConfig) -> CardFacts:
    """What the files in the agent's ``folder``, and in the run around it, say for its card."""
    run, results = (_read(folder.parent / name) if folder.name == "agent" else {} for name in RUN_FILES)
    data, compute = _data(run), _compute(run, results)
    return CardFacts(
        data=data if config.data is None else config.data,
        compute=compute if config.compute is None else config.compute,
        scores=tuple(_evaluated(folder)) or tuple(_played(results)),
        license=config.license,
    )


RUN_FILES = ("config.json", "results.json")
"""Settings and scores of a training run, beside its agent."""


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty when there is none."""
    if not path.is_file():
        return {}
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): delete it, or restore it") from error
    return document if isinstance(document, dict) else {}


def _data(run: dict[str, Any]) -> str:
    """The data set of a training run, in words."""
    if not {"data", "recorded_steps"} <= set(run):
        return ""
    lines = [f"- {game}: {steps:,} agent steps" for game, steps in run["recorded_steps"].items()]
    cut = run["data"].get("transitions")
    return "Recorded play:\n\n" + "\n".join(lines) + (f"\n\nTrained on {cut:,} steps of each." if cut else "")


def _compute(run: dict[str, Any], results: dict[str, Any]) -> str:
    """The arithmetic of a training run, in words."""
    if not {"stage1", "stage2", "preset"} <= set(run):
        return ""
    one, two = run["stage1"], run["stage2"]
    place = f" Scored on {results['device']}." if "device" in results else ""
    return (
        f"Preset `{run['preset']}`: {one['steps']:,} steps of {one['batch_size']} segments of "
        f"{run['data']['segment_length']} frames for tokenizer and world model, then {two['steps']:,} steps of "
        f"{two['batch_size']} for world model and critic.{place}"
    )


def _evaluated(folder: Path) -> list[CardScore]:
    """The scores that python -m jowa.evaluate left in the agent's folder."""
    scores = []
    for path in sorted(folder.glob("evaluation-*.json")):
        document = _read(path)
        settings = document.get("settings", {})
        if not {"planner", "protocol", "width"} <= set(settings):
            continue
        for row in document["games"]:
            # Files of older versions say the width alone by game.
            contexts = settings.get("context")
            context = contexts[row["game"]] if isinstance(contexts, dict) else 1
            own = {name: settings[name][row["game"]] for name in ("width", "horizon", "td_lambda") if name in settings}
            player = _player(settings["planner"] | own) + _memory(context)
            scores.append(_score(row, player, settings["protocol"]))
    return scores


def _played(results: dict[str, Any]) -> list[CardScore]:
    """The scores at the end of a training run."""
    settings, rows = results.get("settings", {}), results.get("rows", {})
    rules = {"name": settings.get("protocol"), "max_steps": settings.get("max_steps", 0)}
    named, own = results.get("planning", {}), {"width", "horizon"} <= set(settings)
    share = results.get("td_lambda", settings.get("td_lambda"))

    def words(name: str, game: str) -> str:
        if name != "agent + beam search" or not own:
            return name
        width = named.get(game, settings)["width"]
        planner = {"name": "beam", "td_lambda": share, "width": width, "horizon": settings["horizon"]}
        return f"agent, {_player(planner)}"

    return [_score(row, words(name, row["game"]), rules) for name in rows for row in rows[name]]


def _score(row: dict[str, Any], player: str, protocol: dict[str, Any]) -> CardScore:
    rules = f"{protocol['name']}, at most {protocol['max_steps']:,} steps"
    return CardScore(row["game"], player, rules, row["mean"], row["low"], row["high"], len(row["scores"]))


def _player(planner: dict[str, Any]) -> str:
    """The planner, in words."""
    if planner["name"] == "none" or planner["horizon"] == 0:
        return "greedy"
    if planner["name"] == "mcts":
        return "MCTS" + (f", {planner['simulations']} simulations" if planner["simulations"] else "")
    share = planner.get("td_lambda")
    weighed = "" if share in (None, 1) else f", lambda {share:g}"
    return f"beam search, width {planner['width']}, horizon {planner['horizon']}{weighed}"


def _memory(context: int) -> str:
    """What of the past it saw, in words; ``context`` counts the present frame, too."""
    return "" if context < 2 else ", a step of memory" if context == 2 else f", {context - 1} steps of memory"


@command
def main() -> None:
    """Entry point."""
    for line in share(parse_options(ShareConfig, "python -m jowa.share", first="agent")):
        print(line)


if __name__ == "__main__":
    main()
