"""Whether the settings of a run can work together; asked before anything is written."""

from __future__ import annotations

import math

from jowa.data.remote import is_remote
from jowa.errors import UsageError
from jowa.games import get_game
from jowa.tokenizer.patches import PIXELS
from jowa.train.config import TrainConfig

LEAST = {
    "seed": 0, "checkpoint.every": 1, "checkpoint.keep": 1, "log_every": 1, "data.record_steps": 0,
    "data.segment_stride": 1, "profile_steps": 0, "dry_run_gpus": 1,
    "tokenizer_loss.perceptual_weight": 0, "tokenizer_loss.square_weight": 0, "tokenizer_loss.ema_decay": 0,
    "stage1.steps": 0, "stage1.batch_size": 1, "stage1.tokenizer_batch": 1, "stage1.world_from": 0,
    "stage1.tokenizer_learning_rate": 0, "stage1.learning_rate": 0, "stage1.motion_weight": 0,
    "stage1.revive_every": 0, "data.record_max_steps": 1, "stage2.steps": 0, "stage2.batch_size": 1,
    "stage2.learning_rate": 0, "stage2.target_every": 1, "stage2.target_rate": 0,
    "optimizer.weight_decay": 0, "optimizer.gradient_clip": 1e-6, "optimizer.muon_iterations": 1,
    "optimizer.warmup_steps": 0, "optimizer.final_fraction": 0, "model.layers": 1, "model.heads": 1,
    "model.width": 1, "model.vocab_size": 2, "evaluation.episodes": 0, "evaluation.width": 1,
    "draft.moments": 1, "draft.steps": 0, "parallel.microbatches": 1, "health.bad_steps": 1,
    "health.evaluate_every": 0, "health.evaluate_episodes": 1, "health.evaluate_steps": 1, "health.picture_every": 0,
    "evaluation.horizon": 0, "evaluation.context": 1, "evaluation.td_lambda": 0, "evaluation.max_steps": 1,
    "model.num_tasks": 60, "model.num_actions": 18, "model.num_atoms": 1, "model.context_steps": 2,
    "model.q_width": 1, "model.q_ensemble": 1,
    "model.dropout": 0, "model.q_dropout": 0, "objective.gamma": 0, "objective.cql_weight": 0,
    "objective.world_weight": 0, "objective.action_noise": 0, "data.transitions": 0, "stage2.imagined_from": 0,
    "stage2.imagined_width": 1, "stage2.imagined_horizon": 1,
}  # fmt: skip
"""The least value of each setting that has one."""

MOST = {
    "stage2.target_rate": 1, "optimizer.final_fraction": 1, "model.dropout": 1, "model.q_dropout": 1,
    "model.vocab_size": 65_536, "objective.gamma": 1, "objective.action_noise": 1,
    "tokenizer_loss.ema_decay": 1, "evaluation.td_lambda": 1,
}  # fmt: skip
"""The largest value of each setting that has one; tokens are stored as uint16."""


def check_config(config: TrainConfig) -> None:
    """Raise :class:`UsageError` for settings that cannot work together, before anything is written."""
    for game in config.data.games:
        get_game(game)
    if not config.data.games or len(set(config.data.games)) != len(config.data.games):
        raise UsageError(f"games are {' '.join(config.data.games) or 'none'}: name at least one, each once")
    _check_places(config)
    _check_ranges(config)
    if not 2 <= config.data.segment_length <= config.model.context_steps:
        raise UsageError(
            f"segment length {config.data.segment_length} is outside 2..{config.model.context_steps}, "
            "the model's context: set --data.segment-length or --model.context-steps"
        )
    if config.model.width % config.model.heads:
        raise UsageError(f"model.width {config.model.width} is not a multiple of model.heads {config.model.heads}")
    if config.model.vocab_size != config.tokenizer.vocab_size:
        raise UsageError(
            f"model.vocab_size {config.model.vocab_size} and tokenizer.vocab_size {config.tokenizer.vocab_size} "
            "differ: a model reads the tokens of its own tokenizer"
        )
    if config.stage1.steps and config.stage1.world_from >= config.stage1.steps:
        raise UsageError(
            f"stage1.world_from is {config.stage1.world_from}, but stage 1 ends after {config.stage1.steps} steps: the "
            "world model would never train in it; lower --stage1.world-from"
        )
    if config.model.v_min >= config.model.v_max:
        raise UsageError(f"model.v_min {config.model.v_min} is not below model.v_max {config.model.v_max}: set one")
    if config.model.q_init is not None and not config.model.v_min < config.model.q_init < config.model.v_max:
        raise UsageError(
            f"model.q_init is {config.model.q_init}, expected between model.v_min {config.model.v_min} and "
            f"model.v_max {config.model.v_max}: set --model.q-init"
        )
    if config.evaluation.context + config.evaluation.horizon > config.model.context_steps:
        raise UsageError(
            f"evaluation context {config.evaluation.context} and horizon {config.evaluation.horizon} exceed the "
            f"model's {config.model.context_steps} steps: shorten one"
        )
    _check_ablations(config)


def _check_places(config: TrainConfig) -> None:
    """Raise :class:`UsageError` for something that the run reads from inside its own folder.

    ``restart`` deletes what is there before anything is read, and the run itself writes over it.
    """
    read = {
        "start_from": config.start_from, "tokenizer_from": config.tokenizer_from, "data.path": config.data.path,
        "data.tokens": config.data.tokens,
    }  # fmt: skip
    out = config.out.resolve()
    for name, path in read.items():
        if path is not None and not is_remote(path) and path.resolve().is_relative_to(out):
            where = "is" if path.resolve() == out else "lies in"
            raise UsageError(
                f"{name} {path} {where} the folder {config.out} that the run writes to and --restart clears, expected "
                "one outside: choose another --out"
            )


def _check_ablations(config: TrainConfig) -> None:
    """Raise :class:`UsageError` for switches that need one another, or exclude one another."""
    objective, two = config.objective, config.stage2
    if (objective.critic == "mse") != (config.model.num_atoms == 1):
        wanted = "1" if objective.critic == "mse" else "51, or --objective.critic mse"
        raise UsageError(
            f"objective.critic is {objective.critic}, with model.num_atoms {config.model.num_atoms}: a scalar critic "
            f"has one atom, a distributional one several; set --model.num-atoms {wanted}"
        )
    if not 0 <= objective.observed_weight <= 1:
        raise UsageError(f"objective.observed_weight is {objective.observed_weight}, expected a share from 0 to 1")
    if objective.observed_weight > 0 and objective.critic == "mse":
        raise UsageError(
            "objective.observed_weight mixes distributions, which a scalar critic has none of: set "
            "--objective.observed-weight 0"
        )
    if objective.conservative == "combo" and two.imagined == "none":
        raise UsageError(
            "objective.conservative is combo, which pushes down Q of imagined steps, but none are imagined: set "
            "--stage2.imagined half"
        )
    if two.imagined != "none" and two.imagined_horizon >= config.data.segment_length:
        raise UsageError(
            f"stage2.imagined_horizon {two.imagined_horizon} leaves no recorded step in a segment of "
            f"{config.data.segment_length}: set --stage2.imagined-horizon below --data.segment-length"
        )
    if two.imagined != "none" and two.imagined_from >= two.steps:
        raise UsageError(
            f"stage2.imagined is {two.imagined} from step {two.imagined_from} of the stage on "
            f"(stage2.imagined_from), but it ends after {two.steps} steps (stage2.steps): nothing would ever be "
            "imagined; set --stage2.imagined-from below --stage2.steps"
        )
    if config.tokenizer_from is not None and (two.train_tokenizer or config.start_from is not None):
        raise UsageError(
            "tokenizer_from names a tokenizer that is used as it is: leave out --tokenizer-from, or both "
            "--stage2.train-tokenizer and --start-from"
        )
    begins = config.start_from is not None and not config.from_scratch
    if begins and config.tokenizer_loss.codebook == "ema" and (two.train_tokenizer or config.stage1.steps):
        raise UsageError(
            "tokenizer_loss.codebook is ema, but an agent keeps its codes without their averages: the first step would "
            "move each code to the mean of a single batch; set --tokenizer-loss.codebook gradient, as published"
        )
    if config.tokenizer.encoder == "patches" and config.tokenizer.code_dim != PIXELS:
        raise UsageError(
            f"tokenizer.code_dim is {config.tokenizer.code_dim}, but a code of a tokenizer of patches is a picture of "
            f"{PIXELS} pixels: set --tokenizer.code-dim {PIXELS}"
        )
    if config.from_scratch and (config.start_from is None or not (two.train_tokenizer or config.stage1.steps)):
        raise UsageError(
            "from_scratch compares with a run that starts from an agent, and its tokenizer must train: set "
            "--start-from, and --stage2.train-tokenizer or --stage1.steps"
        )


def check_split(config: TrainConfig, processes: int) -> None:
    """Raise :class:`UsageError` for batches that do not divide among ``processes``, or into their microbatches."""
    length, pieces = config.data.segment_length, max(config.parallel.microbatches, processes)
    if pieces % processes:
        raise UsageError(
            f"parallel.microbatches {pieces} cannot be split evenly among {processes} process(es): set "
            f"--parallel.microbatches to a multiple of {processes}"
        )
    among = f"{processes} process(es)" if pieces == processes else f"{pieces} microbatches"
    if config.stage2.imagined == "half" and config.stage2.batch_size < 2 * pieces:
        raise UsageError(
            f"stage2.batch_size {config.stage2.batch_size} leaves less than two segments in each of {among}, of which "
            f"half is to be imagined: set --stage2.batch-size to at least {2 * pieces}"
        )
    batches = {
        "stage1.tokenizer_batch": config.stage1.tokenizer_batch // length,
        "stage1.batch_size": config.stage1.batch_size,
        "stage2.batch_size": config.stage2.batch_size,
    }
    for name, segments in batches.items():
        if segments < 1 or segments % pieces:
            unit = f" frames make {segments} segments, which" if name == "stage1.tokenizer_batch" else ""
            value = config.stage1.tokenizer_batch if unit else segments
            raise UsageError(
                f"{name} {value}{unit} cannot be split evenly among {among}: "
                f"set --{name.replace('_', '-')} to a multiple of {pieces * (length if unit else 1)}"
            )


def _check_ranges(config: TrainConfig) -> None:
    """Raise :class:`UsageError` for a number that is too small or large, or a segment stride that skips steps."""
    for name in LEAST | MOST:
        value: object = config
        for part in name.split("."):
            value = getattr(value, part)
        least, most = LEAST.get(name, -math.inf), MOST.get(name, math.inf)
        if value is not None and not (isinstance(value, (int, float)) and least <= value <= most):
            bounds = f"at least {least}" if most == math.inf else f"{least} to {most}"
            raise UsageError(f"{name} is {value}, expected {bounds}: set --{name.replace('_', '-')}")
    if config.data.segment_stride >= config.data.segment_length:
        raise UsageError(
            f"a segment of {config.data.segment_length} steps every {config.data.segment_stride} leaves out what leads "
            "from one to the next: set --data.segment-stride below --data.segment-length"
        )
    if config.stage1.steps + config.stage2.steps < 1:
        raise UsageError("no steps to train: set --stage1.steps or --stage2.steps")
