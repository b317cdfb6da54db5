"""The records that pass between rooms.  Letters: B batch, L steps, K tokens a frame, A actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Episode:
    """One whole episode of T agent steps, as recorded.  Step t: the frame seen, then what was done."""

    game: str
    frames: NDArray[np.uint8]
    """uint8 (T, 84, 84): the frame on which action t was chosen."""
    actions: NDArray[np.uint8]
    """uint8 (T,): indices into the full set of 18."""
    rewards: NDArray[np.float32]
    """float32 (T,): clipped to [-1, 1], as DQN-Replay stores them; what step t earned."""
    terminal: bool
    """True when the game ended after the last step, False when the episode was cut off."""
    policy: str
    """Who played, for example ``expert:0.1``."""
    seed: int
    score: float
    """Sum of the raw, unclipped rewards in game points."""

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Segments:
    """A batch of B windows of L steps, as arrays; right-padded where an episode ends."""

    frames: NDArray[np.uint8] | None
    """uint8 (B, L, 84, 84); zeros in padding.  None where tokens stand for them."""
    tokens: NDArray[np.uint16] | None
    """uint16 (B, L, 36); zeros in padding.  None where they were not asked for."""
    actions: NDArray[np.int64]
    """int64 (B, L); 0 in padding."""
    rewards: NDArray[np.float32]
    """float32 (B, L), in [-1, 1]; 0 in padding."""
    ends: NDArray[np.bool_]
    """bool (B, L): true at the step after which the game ended (never at a mere cut-off)."""
    mask: NDArray[np.bool_]
    """bool (B, L): true for real steps, false for padding."""
    tasks: NDArray[np.int64]
    """int64 (B,): task ids, for the task embedding."""
    legal: NDArray[np.bool_]
    """bool (B, 18): legal actions of each row's game."""
    returns: NDArray[np.float32] | None = None
    """float32 (B, L): discounted sum of the rewards from each step to the end of its episode; 0 in padding.  None where
    they were not asked for."""


@dataclass(frozen=True)
class Batch:
    """:class:`Segments` as tensors on a device; frames as tokens, pixels, or both.

    Same fields and shapes; ``frames`` uint8 (B, L, 84, 84) or None, ``tokens`` int64 (B, L, 36) or None.
    """

    frames: torch.Tensor | None
    tokens: torch.Tensor | None
    actions: torch.Tensor
    rewards: torch.Tensor
    ends: torch.Tensor
    mask: torch.Tensor
    tasks: torch.Tensor
    legal: torch.Tensor
    returns: torch.Tensor | None = None
    noisy: torch.Tensor | None = None
    """bool (B,): rows for the critic alone, which sees random actions in them; None: there are none."""
    imagined: torch.Tensor | None = None
    """bool (B,): rows whose last steps the model imagined, for the critic alone; None: there are none."""

    def rows(self, chosen: slice | torch.Tensor) -> Batch:
        """The ``chosen`` rows: a slice, as views, or indices int64 (n,)."""
        return self._each(lambda value: value[chosen])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: None if value is None else change(value) for name, value in values.items()}
        return replace(self, **changed)
