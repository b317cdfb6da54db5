"""What rolls the model forward for the planners: the contract, and the records that pass.

Letters: R roots, M rows a root (a rectangle: idle rows cost nothing and get zeros), J slots of a row's page table,
K = 36 tokens a frame, A = 18 actions, P pages.

A root's context is encoded once, into a slot of the engine, and shared by everything imagined from it.  An imagined
step is one row; it owns one page (the keys and values of 37 tokens: its action, then its frame) and refers to the
pages of its imagined ancestors.  Who hands out pages, and when they are free again, is the search tree's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import RLock
from typing import Protocol

import torch
from torch import Tensor

from jowa.config import TOKENS_PER_FRAME
from jowa.planner.imagination import Context


@dataclass(frozen=True)
class Values:
    """What the critic says of R states."""

    q: Tensor
    """float32 (R, 18): mean of the ensemble's Q; equally the expectation of the mixture of its distributions."""
    spread: Tensor
    """float32 (R, 18): standard deviation of Q over the ensemble's members (divided by E); 0 with one member."""


@dataclass(frozen=True)
class Level:
    """Steps to imagine at once.  All tensors on the engine's device; one row may stand at any depth."""

    actions: Tensor
    """int64 (R, M): the action taken in the row's parent state."""
    page_table: Tensor
    """int32 (R, M, J): pages of the row's imagined ancestors, the root's child first, then the row's own page."""
    depths: Tensor
    """int32 (R, M): imagined ancestors of the row, so ``page_table[r, m, depths[r, m]]`` is its own page; -1: idle."""


@dataclass(frozen=True)
class Imagined:
    """What followed; idle rows hold zeros.  Where a head answered NaN or infinity, reward, Q and spread are NaN."""

    tokens: Tensor
    """int64 (R, M, 36): the imagined frame."""
    rewards: Tensor
    """float32 (R, M): reward of the step: -1, 0 or 1."""
    ends: Tensor
    """bool (R, M): whether the step ended the game."""
    q: Tensor
    """float32 (R, M, 18): as in :class:`Values`, in the imagined state."""
    spread: Tensor
    """float32 (R, M, 18)."""


@dataclass(frozen=True)
class Drafts:
    """Guesses of the frames to come.  They change how long imagining takes, never what is imagined."""

    tokens: Tensor
    """int64 (R, M, 36): a negative entry is no guess; guessing stops there."""
    sureness: Tensor | None = None
    """float32 (R, M, 36): probability that the guess is right, given that those before it were; None: the engine's
    own experience."""


@dataclass(frozen=True)
class Sampling:
    """Draw tokens, reward and end class from the model's distributions instead of taking the most likely.

    The outcome of a row depends on its seed alone: position i of the frame takes the lowest token whose cumulative
    probability exceeds ``uniform(seed, i)``; the reward class i = 36, the end class i = 37.  So drafts cannot change
    what is drawn: a guess is right exactly when it is what is drawn without it.
    """

    seeds: Tensor
    """int64 (R, M)."""
    temperature: float = 1.0
    """Of the frame tokens; reward and end are drawn at 1."""


def uniform(seeds: Tensor, index: int) -> Tensor:
    """The number in [0, 1), float64, that ``seeds`` int64 draw for position ``index``.

    The top 53 bits of splitmix64's output function at seed + (index + 1) times its increment, modulo 2^64.
    """
    x = seeds + _wrapped((index + 1) * 0x9E3779B97F4A7C15)
    x = (x ^ _shifted(x, 30)) * _wrapped(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _wrapped(0x94D049BB133111EB)
    return _shifted(x ^ _shifted(x, 31), 11).double() * 2.0**-53


def _wrapped(value: int) -> int:
    """``value`` modulo 2^64 as a signed number, which is how torch multiplies."""
    return (value + 2**63) % 2**64 - 2**63


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def check_context(context: Context, slots: Tensor, reserved: int, longest: int) -> None:
    """Raise ValueError unless ``context`` can be encoded into ``slots`` by an engine of these sizes."""
    count, steps = context.tokens.shape[:2]
    if not 1 <= steps <= longest:
        raise ValueError(f"a context holds 1 to {longest} steps, got {steps}")
    if slots.shape != (count,):
        raise ValueError(f"slots must have shape {(count,)}, got {tuple(slots.shape)}")
    if slots.device.type == "cuda":  # looking would wait for the device
        return
    if count and not 0 <= int(slots.min()) <= int(slots.max()) < reserved:
        raise ValueError(f"slots must lie in 0 to {reserved - 1}, got {slots.tolist()}: reserve more roots")
    if count and not 1 <= int(context.lengths.min()) <= int(context.lengths.max()) <= steps:
        raise ValueError(f"lengths of contexts must lie in 1 to {steps}, got {context.lengths.tolist()}")


def check_level(level: Level, drafts: Drafts | None, sampling: Sampling | None, reserved: int) -> None:
    """Raise ValueError, naming the argument, unless shapes and dtypes fit one another and the roots are reserved."""
    shape = tuple(level.actions.shape)
    if len(shape) != 2 or shape[0] > reserved:
        raise ValueError(f"actions must be (R, M) with at most the {reserved} roots that are reserved, got {shape}")
    slots = level.page_table.shape[2] if level.page_table.ndim == 3 else "J"
    wanted: dict[str, tuple[Tensor, tuple[object, ...], torch.dtype]] = {
        "actions": (level.actions, shape, torch.int64),
        "page_table": (level.page_table, (*shape, slots), torch.int32),
        "depths": (level.depths, shape, torch.int32),
    }
    if drafts is not None:
        wanted["drafts"] = (drafts.tokens, (*shape, TOKENS_PER_FRAME), torch.int64)
        if drafts.sureness is not None:
            wanted["sureness"] = (drafts.sureness, (*shape, TOKENS_PER_FRAME), torch.float32)
    if sampling is not None:
        wanted["seeds"] = (sampling.seeds, shape, torch.int64)
        if not sampling.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {sampling.temperature}")
    for name, (tensor, expected, dtype) in wanted.items():
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}")
        if tensor.dtype != dtype:
            raise ValueError(f"{name} must be {dtype}, got {tensor.dtype}")


@dataclass
class Counters:
    """What an engine did since the counters were made."""

    frames: int = 0
    """Frames imagined (rows that were not idle)."""
    row_passes: int = 0
    """Passes through the model, summed over rows: token by token a frame takes 37."""
    fed: int = 0
    """Tokens fed, wrong guesses included."""
    guessed: int = 0
    """Guesses that were fed."""
    accepted: int = 0
    """Guesses that were right."""
    misses: Tensor = field(default_factory=lambda: torch.zeros(36, dtype=torch.int64))
    """int64 (36,): how often the guess at each position was the first wrong one of its pass."""


class Engine(Protocol):
    """Keeps the contexts of roots and pages of imagined steps, and rolls the model forward.

    An engine belongs to one thread at a time: hold its ``lock``.  On a CPU a row's outcome depends on nothing but its
    root's context and its own ancestors and action: not on other rows, on drafts, or on the number of threads, to the
    last bit.
    """

    device: torch.device
    counters: Counters
    lock: RLock
    """Held by who plans or dreams with the engine, from encoding to the last frame."""
    encoded: int
    """Grows whenever contexts or pages may have been overwritten (encode, a growing reserve): who shares an engine
    sees by it that somebody else used it."""

    def reserve(self, roots: int, pages: int) -> None:
        """Make room for so many roots and pages; never shrinks.  Growing forgets all contexts and pages."""

    def encode(self, context: Context, slots: Tensor | None = None) -> Values:
        """Encode contexts into ``slots`` int64 (n,), each at most once; None: 0 to n - 1.  Returns (n, 18) each.

        Raises ValueError when a context is empty, longer than the model's, or its slot is not reserved.
        """
        ...

    def imagine(self, level: Level, drafts: Drafts | None = None, sampling: Sampling | None = None) -> Imagined:
        """Imagine the steps of ``level``, whose root r is slot r, and fill their pages.

        Without ``sampling`` the most likely classes, ties to the lowest index.  Raises ValueError for shapes that do
        not fit, a page that is not reserved, or steps beyond the model's context; then nothing was changed.
        """
        ...
