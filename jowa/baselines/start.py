"""What a run begins with: settings that fit together, the networks, and the rival that it starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from jowa.agent import Agent
from jowa.baselines.config import AnyConfig, MgdtConfig, MtbcConfig, ScaledQlConfig, SequenceBaseline
from jowa.data.remote import is_remote
from jowa.data.store import EpisodeStore
from jowa.errors import UsageError, unknown_name
from jowa.games import get_game, task_id
from jowa.rivals import SIZES, ConvConfig, ConvCritic, Kind, Playing, Rival, SequenceConfig, SequencePolicy, is_rival
from jowa.rivals.rival import make_network
from jowa.tokenizer import Tokenizer
from jowa.train.start import FREE_OF_WEIGHTS

LEAST = {
    "steps": 1, "batch_size": 1, "learning_rate": 0, "seed": 0, "log_every": 1, "data.transitions": 0,
    "data.segment_stride": 1, "model.layers": 1, "model.heads": 1, "model.width": 1, "model.context_steps": 1,
    "model.dropout": 0, "model.channels": 2, "model.blocks": 0, "model.features": 1, "model.q_width": 1,
    "model.num_atoms": 2, "objective.gamma": 0, "objective.n_step": 1, "objective.cql_weight": 0,
    "objective.target_every": 1, "optimizer.weight_decay": 0, "optimizer.gradient_clip": 1e-6,
    "optimizer.muon_iterations": 1,
    "optimizer.warmup_steps": 0, "optimizer.final_fraction": 0, "checkpoint.every": 1, "checkpoint.keep": 1,
    "health.bad_steps": 1, "evaluation.episodes": 0, "evaluation.context": 1, "evaluation.kappa": 0,
    "evaluation.max_steps": 1,
}  # fmt: skip
"""The least value of each setting that has one."""
MOST = {"model.dropout": 1, "objective.gamma": 1, "optimizer.final_fraction": 1}


def default_config(kind: Kind, size: str | None, start_from: Path | None) -> AnyConfig:
    """The settings of ``kind`` to start from: at ``size`` (M if None), or those of the rival that the run starts from.

    Raises :class:`UsageError` for an unknown size, :class:`CheckpointError` when ``start_from`` holds no rival.
    """
    if start_from is not None:
        before = _load(kind, start_from)
        named = before.size if size is None else size
        if named == before.size:
            return _with_model(kind, named, before.model.config)
    else:
        named = size or "M"
    if named not in SIZES:
        raise unknown_name("size", named, SIZES)
    sizes = SIZES[named]
    model = sizes.conv if kind == "scaled-ql" else sizes.sequence
    if model is None:
        made = ", ".join(name for name, other in SIZES.items() if other.conv is not None)
        raise UsageError(f"scaled-ql is not made at size {named}: choose {made}, or set --model options")
    return _with_model(kind, named, model)


def _with_model(kind: Kind, size: str, model: SequenceConfig | ConvConfig) -> AnyConfig:
    out = Path(f"runs/{kind}")
    if isinstance(model, ConvConfig):
        return ScaledQlConfig(size=size, out=out, model=model)
    return (MgdtConfig if kind == "mgdt" else MtbcConfig)(size=size, out=out, model=model)


def check(config: AnyConfig) -> None:
    """Raise :class:`UsageError` for settings that cannot work together, before anything is written."""
    games = config.data.games
    for game in games:
        get_game(game)
    if len(set(games)) != len(games):
        raise UsageError(f"games are {' '.join(games)}: name each once")
    for bounds, word in ((LEAST, "least"), (MOST, "most")):
        for name, bound in bounds.items():
            head, _, last = name.rpartition(".")
            value = getattr(getattr(config, head, None) if head else config, last, None)
            if value is not None and (value < bound if word == "least" else value > bound):
                raise UsageError(f"{name} is {value}, expected at {word} {bound}: set --{name.replace('_', '-')}")
    if config.from_scratch and config.start_from is None:
        raise UsageError(
            "from_scratch leaves out the weights of a rival, but none is named: set --start-from, or drop it"
        )
    _check_places(config)
    if isinstance(config, ScaledQlConfig):
        if config.model.v_min >= config.model.v_max:
            raise UsageError(f"model.v_min {config.model.v_min} is not below model.v_max {config.model.v_max}: set one")
        if config.model.channels % 2:
            raise UsageError(
                f"model.channels is {config.model.channels}, expected an even number: set --model.channels"
            )
        return
    length, context = config.data.segment_length, config.model.context_steps
    if not 1 <= length <= context:
        raise UsageError(
            f"segment length {length} is outside 1..{context}, the model's context: set --data.segment-length or "
            "--model.context-steps"
        )
    if config.data.segment_stride > length:
        raise UsageError(f"data.segment_stride {config.data.segment_stride} would leave steps out: at most {length}")
    if config.evaluation.context > length:
        raise UsageError(
            f"evaluation.context {config.evaluation.context} is longer than a training segment of {length} steps: set "
            "--evaluation.context or --data.segment-length"
        )
    if config.tokenizer_from is None and config.start_from is None:
        raise UsageError(
            f"{config.rival} reads tokens, but no tokenizer is named: set --tokenizer-from to an agent's folder"
        )


def _check_places(config: AnyConfig) -> None:
    """Raise :class:`UsageError` for something that the run reads from inside its own folder."""
    read = {"start_from": config.start_from, "data.path": config.data.path}
    if isinstance(config, SequenceBaseline):
        read |= {"tokenizer_from": config.tokenizer_from, "data.tokens": config.data.tokens}
    out = config.out.resolve()
    for name, path in read.items():
        if path is not None and not is_remote(path) and path.resolve().is_relative_to(out):
            raise UsageError(
                f"{name} {path} lies in the folder {config.out} that the run writes to and --restart clears, expected "
                "one outside: choose another --out"
            )


def with_games(config: AnyConfig, store: EpisodeStore) -> AnyConfig:
    """The same settings with the games named that the run trains on."""
    data: Any = dataclasses.replace(config.data, games=config.data.games or store.games)
    return dataclasses.replace(config, data=data)


def begin_rival(config: AnyConfig, games: tuple[str, ...], device: torch.device, autocast: torch.dtype | None) -> Rival:
    """The rival as the run begins with it: fresh networks, or those of ``start_from``; seeds torch's generator.

    Raises :class:`UsageError` for sizes or a tokenizer that do not go together, :class:`CheckpointError` for a folder
    that cannot be read.
    """
    torch.manual_seed(config.seed)
    before = None if config.start_from is None else _load(config.rival, config.start_from)
    tokenizer = _tokenizer(config, before)
    model = make_network(config.rival, config.model, tokenizer)
    if before is not None and not config.from_scratch:
        _check_alike(config, before)
        model.load_state_dict(before.model.state_dict())
    elif isinstance(model, SequencePolicy) and tokenizer is not None:
        codes = tokenizer.embedding.weight.detach()
        model.embed_codes_alike(codes, torch.Generator().manual_seed(config.seed))
    trained = {} if before is None else before.tasks
    tasks = {game: task_id(game, trained) if before is not None else get_game(game).task_id for game in games}
    kept = {} if config.from_scratch else trained
    settings = config.evaluation
    playing = Playing(settings.context, settings.choice, settings.kappa)
    rival = Rival(
        config.rival, config.size, model.to(device), None if tokenizer is None else tokenizer.to(device), kept | tasks,
        autocast, playing,
    )  # fmt: skip
    rival.model.requires_grad_(True)
    if isinstance(rival.model, ConvCritic):
        rival.model.target.requires_grad_(False)
    return rival


def _load(kind: Kind, folder: Path) -> Rival:
    before = Rival.load(folder, "cpu", "float32")
    if before.kind != kind:
        raise UsageError(f"{folder} holds a rival of kind {before.kind}, expected {kind}: name another --start-from")
    return before


def _tokenizer(config: AnyConfig, before: Rival | None) -> Tokenizer | None:
    """The frozen tokenizer of the run; None for ``scaled-ql``."""
    if not isinstance(config, SequenceBaseline):
        return None
    named = None
    if config.tokenizer_from is not None:
        folder = config.tokenizer_from
        named = (
            Rival.load(folder, "cpu").tokenizer
            if is_rival(folder)
            else Agent.from_pretrained(folder, device="cpu").tokenizer
        )
        if named is None:
            raise UsageError(f"{folder} is a rival without a tokenizer: name an agent with --tokenizer-from")
    if before is None:
        return named
    assert before.tokenizer is not None
    if named is not None and named.fingerprint() != before.tokenizer.fingerprint():
        raise UsageError(
            f"{config.start_from} has another tokenizer than {config.tokenizer_from}, and its weights know no other "
            "tokens: leave --tokenizer-from out"
        )
    return before.tokenizer


def _check_alike(config: AnyConfig, before: Rival) -> None:
    theirs, ours = dataclasses.asdict(before.model.config), dataclasses.asdict(config.model)
    for name, own in ours.items():
        if theirs[name] != own and name not in FREE_OF_WEIGHTS:
            raise UsageError(
                f"the model of {config.start_from} has {name} = {theirs[name]}, this run {own}: leave --size and "
                f"--model.{name.replace('_', '-')} out"
            )
