"""The parameter names of the published checkpoints, and ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from jowa.errors import CheckpointError

PREFIXES = ("module.", "_orig_mod.")
"""What distributed wrappers and the compiler put before names in released files."""

DERIVED = (".attn.mask", ".indices")
"""Suffixes of buffers that follow from the sizes."""

_RENAMED = {
    "pos_emb.": "position_embedding.",
    "embedder.embedding_tables.0.": "action_embedding.",
    "embedder.embedding_tables.1.": "frame_embedding.",
    "task_emb.embedding_tables.0.": "action_task_embedding.",
    "task_emb.embedding_tables.1.": "frame_task_embedding.",
    "head_observations.head_module.": "frame_head.",
    "head_rewards.head_module.": "reward_head.",
    "head_ends.head_module.": "end_head.",
}

_Q_PARAMETERS = (
    "linear1.weight", "linear1.bias", "norm1.weight", "norm1.bias", "linear2.weight",
    "linear2.bias", "norm2.weight", "norm2.bias", "linear3.weight", "linear3.bias",
)  # fmt: skip
_Q_HEADS = {"head_q.head_module.params.": "q_head.", "head_q_target.head_module.params.": "q_target_head."}


def our_name(published: str) -> str:
    """Our name of a published model parameter (without wrapper prefixes); itself where they agree."""
    for old, new in _Q_HEADS.items():
        if published.startswith(old):
            index = published.removeprefix(old)
            if index.isdigit() and int(index) < len(_Q_PARAMETERS):
                return new + _Q_PARAMETERS[int(index)]
    for old, new in _RENAMED.items():
        if published.startswith(old):
            return new + published.removeprefix(old)
    return published


def strip_prefixes(name: str) -> str:
    """``name`` without any of :data:`PREFIXES`, however often and in whatever order they stand."""
    while name.startswith(PREFIXES):
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
    return name


def translate_model(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published model state dict under our names, derived buffers dropped."""
    return {
        our_name(name): value
        for name, value in ((strip_prefixes(key), value) for key, value in state.items())
        if not name.endswith(DERIVED)
    }


def translate_tokenizer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published tokenizer state dict under our names: only prefixes and a frozen LPIPS network differ."""
    stripped = {strip_prefixes(key): value for key, value in state.items()}
    return {name: value for name, value in stripped.items() if not name.startswith(("lpips.", "perceptual"))}


def check_names(found: Iterable[str], expected: Iterable[str], where: str) -> None:
    """Raise :class:`CheckpointError` listing names that are missing from or surplus in ``where``."""
    found, expected = set(found), set(expected)
    problems = []
    if missing := sorted(expected - found):
        problems.append(f"missing {', '.join(missing)}")
    if surplus := sorted(found - expected):
        problems.append(f"surplus {', '.join(surplus)}")
    if problems:
        raise CheckpointError(f"{where} does not hold the expected parameters: {'; '.join(problems)}")
