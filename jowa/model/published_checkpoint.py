"""Reading the published checkpoints: safely, with every size taken from the tensors' shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from jowa.config import PRESETS, TOKENS_PER_STEP, ModelConfig, TokenizerConfig
from jowa.errors import CheckpointError, UsageError
from jowa.model.published_names import check_names, strip_prefixes, translate_model, translate_tokenizer
from jowa.model.world_action import WorldActionModel
from jowa.tokenizer import Tokenizer

NUM_ACTIONS = 18
"""ALE's full set; the files hold actions times atoms as one axis, so one of them must be known."""

Part = Literal["tokenizer", "model"]
_TELLTALE: dict[Part, str] = {"tokenizer": "encoder.conv_in.weight", "model": "transformer.ln_f.weight"}


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in ``path`` on the CPU in float32; :class:`CheckpointError` if it holds none."""
    state = translate_tokenizer(_read_state(path, "tokenizer"))
    try:
        vocab_size, code_dim = state["embedding.weight"].shape
        config = TokenizerConfig(
            encoder="published",
            vocab_size=vocab_size,
            code_dim=code_dim,
            channels=len(state["encoder.conv_in.weight"]),
            z_channels=len(state["encoder.conv_out.weight"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise _no_sizes(path, "tokenizer", error) from error
    _check(state, config, path)
    tokenizer = Tokenizer(config)
    tokenizer.load_state_dict(state)
    return tokenizer


def read_model(path: Path, heads: int | None = None, v_min: float = -10.0, v_max: float = 30.0) -> WorldActionModel:
    """The world-action model in ``path`` on the CPU in float32.

    ``heads``, ``v_min`` and ``v_max`` leave no trace in the shapes; without ``heads``, layers and width must
    be those of a preset, or it is a :class:`UsageError`.  Raises :class:`CheckpointError` when the file holds
    no such model.
    """
    if not v_min < v_max:
        raise UsageError(f"v-min is {v_min} and v-max {v_max}: expected the first to be the lower")
    state = translate_model(_read_state(path, "model"))
    try:
        config = _model_config(state, heads, v_min, v_max, path)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise _no_sizes(path, "world-action model", error) from error
    _check(state, config, path)
    model = WorldActionModel(config)
    model.load_state_dict(state)
    return model


def _model_config(
    state: Mapping[str, Tensor], heads: int | None, v_min: float, v_max: float, path: Path
) -> ModelConfig:
    vocab_size, width = state["frame_embedding.weight"].shape
    positions, _ = state["position_embedding.weight"].shape
    members, q_width, _ = state["q_head.linear1.weight"].shape
    outputs = state["q_head.linear3.weight"].shape[1]
    num_actions = len(state["action_embedding.weight"])
    blocks = {name.split(".")[2] for name in state if name.startswith("transformer.blocks.")}
    if num_actions != NUM_ACTIONS or outputs % NUM_ACTIONS:
        raise CheckpointError(
            f"{path} has {num_actions} actions and {outputs} Q outputs, expected {NUM_ACTIONS} and a multiple of it"
        )
    if positions % TOKENS_PER_STEP:
        raise CheckpointError(f"{path} has {positions} positions, expected a multiple of {TOKENS_PER_STEP}")
    return ModelConfig(
        layers=len(blocks),
        heads=_heads(heads, len(blocks), width),
        width=width,
        q_width=q_width,
        q_ensemble=members,
        vocab_size=vocab_size,
        context_steps=positions // TOKENS_PER_STEP,
        num_tasks=len(state["frame_task_embedding.weight"]),
        num_actions=num_actions,
        num_atoms=outputs // num_actions,
        v_min=v_min,
        v_max=v_max,
    )


def _heads(heads: int | None, layers: int, width: int) -> int:
    """``heads`` if given, else those of the preset with these layers and this width."""
    if heads is None:
        published = [p.model for p in PRESETS.values() if p.tokenizer.encoder == "published"]
        known = {(model.layers, model.width): model.heads for model in published}
        if (layers, width) not in known:
            raise UsageError(
                f"a model of {layers} layers and width {width} is no preset, and its number of attention heads "
                "cannot be seen in the file: name it with --heads"
            )
        return known[layers, width]
    if heads < 1 or width % heads:
        raise UsageError(f"heads is {heads}: expected a divisor of the model's width {width}")
    return heads


def _check(state: Mapping[str, Tensor], config: TokenizerConfig | ModelConfig, path: Path) -> None:
    """Names, shapes and numbers of ``state`` against an unallocated module of ``config``."""
    with torch.device("meta"):
        module: nn.Module = Tokenizer(config) if isinstance(config, TokenizerConfig) else WorldActionModel(config)
    expected = module.state_dict()
    check_names(state, expected, str(path))
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(value.shape)}, the file's other tensors ask for "
                f"{tuple(expected[name].shape)}: it is not one whole checkpoint"
            )
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinite numbers: download or export the file anew")


def _no_sizes(path: Path, what: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a published {what}: its sizes cannot be read off ({error} is missing or odd)"
    )


def _read_state(path: Path, part: Part) -> dict[str, Tensor]:
    """The state dict in ``path``: the file itself, or the one mapping of tensors nested in it."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is not a file: name the published {part} checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises depends on which byte is damaged
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as tensors alone ({reason}): expected a checkpoint written by torch.save that "
            "holds a state dict and no other Python objects"
        ) from error
    if _is_state(content):
        return dict(content)
    nested = {k: v for k, v in content.items() if _is_state(v)} if isinstance(content, Mapping) else {}
    fitting = {k: v for k, v in nested.items() if _TELLTALE[part] in {strip_prefixes(name) for name in v}}
    if len(fitting) == 1:
        return dict(next(iter(fitting.values())))
    if not fitting:
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{path} holds no {part} state dict: expected names such as {_TELLTALE[part]}, found {held}"
        )
    raise CheckpointError(f"{path} holds several {part}s, under {', '.join(map(str, fitting))}: save one alone")


def _is_state(content: object) -> bool:
    """True for a mapping of names to tensors, not empty."""
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )
