"""What a run begins with that another one trained: an agent's tokenizer, or all of its weights and its task ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from jowa.agent import Agent, Planning, read_planning
from jowa.agent_folder import read_sizes
from jowa.devices import choose_precision
from jowa.errors import UsageError
from jowa.games import get_game, task_id
from jowa.model import WorldActionModel
from jowa.planner import PlannerConfig
from jowa.tokenizer import Tokenizer, load_perceptual
from jowa.train.config import TrainConfig
from jowa.train.distributed import Place

FREE_OF_WEIGHTS = frozenset({"dropout", "q_dropout", "init", "q_init"})
"""Settings of a model that its weights do not depend on: a run may have others than the agent that it starts from."""


def make_tokenizer(config: TrainConfig, place: Place) -> Tokenizer:
    """The tokenizer of a new run, with its loss; the perceptual term only where it will train."""
    perceptual = None
    if (config.stage1.steps and config.trains_tokenizer(1)) or config.trains_tokenizer(2):
        perceptual = load_perceptual(config.tokenizer_loss.perceptual, print if place.is_main else lambda said: None)
    tokenizer = Tokenizer(
        config.tokenizer, None if perceptual is None else perceptual.to(place.device), config.tokenizer_loss
    )
    return tokenizer.to(place.device)


def take_weights(config: TrainConfig, tokenizer: Tokenizer, model: WorldActionModel) -> None:
    """Give the networks of a new run the weights that ``config`` names, if any.

    Raises :class:`UsageError` when they are of other sizes, :class:`CheckpointError` when they cannot be read.
    """
    if config.tokenizer_from is not None:
        agent = Agent.load(config.tokenizer_from, "cpu", "float32")
        _check_alike(config.tokenizer_from, "tokenizer", agent.tokenizer.config, tokenizer.config)
        tokenizer.load_state_dict(tokenizer.state_dict() | agent.tokenizer.state_dict())
    if config.start_from is not None and not config.from_scratch:
        agent = Agent.load(config.start_from, "cpu", "float32")
        _check_alike(config.start_from, "tokenizer", agent.tokenizer.config, tokenizer.config)
        _check_alike(config.start_from, "model", agent.model.config, model.config)
        tokenizer.load_state_dict(tokenizer.state_dict() | agent.tokenizer.state_dict())
        model.load_state_dict(agent.model.state_dict())
        _start_new_tasks(config, set(agent.tasks.values()), model)


@torch.no_grad()
def _start_new_tasks(config: TrainConfig, trained: set[int], model: WorldActionModel) -> None:
    """Begin task embeddings that no game has trained at the mean of those that were: the rest knows no others."""
    known = sorted(trained)
    if not known:  # an agent that does not say what it was trained on
        return
    for task in set(task_ids(config).values()) - trained:
        for table in (model.frame_task_embedding.weight, model.action_task_embedding.weight):
            table[task] = table[known].mean(0)


def _check_alike(folder: Path, part: str, theirs: object, ours: object) -> None:
    for field in dataclasses.fields(theirs):  # type: ignore[arg-type]
        value, own = getattr(theirs, field.name), getattr(ours, field.name)
        if own != value and field.name not in FREE_OF_WEIGHTS:
            also = " (and --model.vocab-size)" if (part, field.name) == ("tokenizer", "vocab_size") else ""
            raise UsageError(
                f"the {part} of {folder} has {field.name} = {value}, this run {own}: set "
                f"--{part}.{field.name.replace('_', '-')}{also} alike"
            )


def task_ids(config: TrainConfig) -> dict[str, int]:
    """The task id that each game of the run trains under.

    A run that starts from an agent goes by that agent's rule, :func:`jowa.games.task_id`, so that the agent before and
    the one after play a game under the id that it trains under here; any other trains each game under its own.
    """
    if config.start_from is None:
        return {game: get_game(game).task_id for game in config.data.games}
    trained = read_sizes(config.start_from)[2]
    return {game: task_id(game, trained) for game in config.data.games}


def known_tasks(config: TrainConfig) -> dict[str, int]:
    """The task ids that the finished agent keeps: the run's own, and those of the agent whose weights it began with."""
    before = config.start_from if not config.from_scratch else None
    return ({} if before is None else read_sizes(before)[2]) | task_ids(config)


def make_agent(
    config: TrainConfig, place: Place, tokenizer_state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]
) -> Agent:
    """An agent that plays as ``config`` says, with copies of these weights, without a draft head."""
    tokenizer, model = Tokenizer(config.tokenizer), WorldActionModel(config.model)
    tokenizer.load_state_dict(tokenizer_state)
    model.load_state_dict(model_state)
    settings = config.evaluation
    planner = PlannerConfig(
        settings.planner, settings.width, settings.horizon, config.objective.gamma, td_lambda=td_lambda_of(config)
    )
    precision = choose_precision(config.precision, place.device)
    planning = Planning(planner, settings.context)
    return Agent(tokenizer.to(place.device), model.to(place.device), known_tasks(config), precision, planning)


def td_lambda_of(config: TrainConfig) -> float:
    """How the run's agent weighs what it imagines."""
    if config.evaluation.td_lambda is not None:
        return config.evaluation.td_lambda
    return 0.25 if config.start_from is None else read_planning(config.start_from).planner.td_lambda
