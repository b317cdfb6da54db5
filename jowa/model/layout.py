"""Which token stands where: a step is the 36 tokens of a frame, then its action.

Position p of a sequence belongs to step p // 37; p % 37 == 36 is the action.  All functions return
int64 index tensors over the first ``steps`` steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.config import TOKENS_PER_FRAME, TOKENS_PER_STEP

LAST_FRAME_TOKEN = TOKENS_PER_FRAME - 1
ACTION = TOKENS_PER_FRAME


def action_positions(steps: int, device: torch.device | None = None) -> Tensor:
    """(steps,): where the actions stand; the reward and end heads read here."""
    return torch.arange(steps, device=device) * TOKENS_PER_STEP + ACTION


def value_positions(steps: int, device: torch.device | None = None) -> Tensor:
    """(steps,): the last frame token of each step, before its action is known; the Q head reads here."""
    return torch.arange(steps, device=device) * TOKENS_PER_STEP + LAST_FRAME_TOKEN


def frame_head_positions(steps: int, device: torch.device | None = None) -> Tensor:
    """(steps * 36,): positions whose next token is a frame token: all but the last of each frame."""
    # In closed form: a mask's size is known to the device alone, which would have to be waited for.
    places = torch.arange(steps * TOKENS_PER_FRAME, device=device)
    return places + (places + 1) // TOKENS_PER_FRAME


def interleave(frame_part: Tensor, action_part: Tensor) -> Tensor:
    """(B, L, 36, ...) and (B, L, ...) to the sequence (B, L * 37, ...)."""
    joined = torch.cat([frame_part, action_part[:, :, None]], dim=2)
    return joined.flatten(1, 2)
