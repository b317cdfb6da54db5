"""What beam search and MCTS share when a whole decision stays on one device: capture, replay, and a few kept decisions.

On a GPU a decision is captured once as a CUDA graph for each shape and then launched; on a CPU it is computed as it
is.  Letters: R roots, n steps of context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from jowa.config import TOKENS_PER_FRAME, TOKENS_PER_STEP
from jowa.planner.imagination import Context
from jowa.planner.rollout import Rollout
from jowa.planner.torch_engine import TorchEngine
from jowa.planner.tree_state import native

GUESSED_PASSES = 10
"""Passes a level that are captured when frames are guessed; where they do not suffice, all 37 are taken."""
GRAPHS = 4
"""Captured decisions that are kept."""

Decision = TypeVar("Decision")


def may_stay_on_device(rollout: Rollout) -> bool:
    """Whether engine, device and build allow a decision without the host."""
    built = native is not None and native.cuda_available_in_build
    return rollout.device.type == "cuda" and built and isinstance(rollout.engine, TorchEngine)


def passes_to_try(rollout: Rollout) -> tuple[int, ...]:
    """Passes a level, fewest first; the last suffice always."""
    return (GUESSED_PASSES, TOKENS_PER_STEP) if rollout.guesses else (TOKENS_PER_STEP,)


class Captured(Generic[Decision]):
    """``decide`` for contexts of R roots and at most ``steps`` steps, with static shapes and no look at the numbers.

    It is given the same :class:`Context` every time, whose tensors are overwritten; what it answers lies where the
    answer before lay.
    """

    def __init__(self, rollout: Rollout, roots: int, steps: int, decide: Callable[[Context], Decision]) -> None:
        self._rollout, self._decide = rollout, decide
        device = rollout.device
        self._context = Context(
            torch.zeros(roots, steps, TOKENS_PER_FRAME, dtype=torch.int64, device=device),
            torch.zeros(roots, steps, dtype=torch.int64, device=device),
            torch.ones(roots, dtype=torch.int64, device=device),
            torch.zeros(roots, dtype=torch.int64, device=device),
            torch.ones(roots, rollout.num_actions, dtype=torch.bool, device=device),
        )
        self._graph: torch.cuda.CUDAGraph | None = None
        self._decision: Decision | None = None
        self._grown = -1

    @torch.inference_mode()
    def __call__(self, context: Context) -> Decision:
        """Decide for ``context``, of as many roots and at most as many steps as this was made for."""
        own, seen = self._context, context.tokens.shape[1]
        own.tokens[:, :seen].copy_(context.tokens)
        own.actions[:, :seen].copy_(context.actions)
        own.lengths.copy_(context.lengths)
        own.tasks.copy_(context.tasks)
        own.legal.copy_(context.legal)
        engine = self._rollout.engine
        assert isinstance(engine, TorchEngine)
        if self._rollout.device.type != "cuda":
            return self._decide(own)
        if self._graph is None or self._grown != engine.grown:  # a graph points at the buffers of its time
            self._capture()
            self._grown = engine.grown
        assert self._graph is not None and self._decision is not None
        self._graph.replay()
        engine.encoded += 1  # a replay is not seen by the engine
        return self._decision

    def _capture(self) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._decide(self._context)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._decision = self._decide(self._context)


Kept = TypeVar("Kept")


class Shapes(Generic[Kept]):
    """Captured decisions by shape, for shapes that come more than once: a graph is dear to capture, cheap to launch."""

    def __init__(self) -> None:
        self._last: tuple[object, ...] | None = None
        self._kept: dict[tuple[object, ...], Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def again(self, shape: tuple[object, ...]) -> bool:
        """Whether ``shape`` was also asked for just before."""
        before, self._last = self._last, shape
        return before == shape

    def get(self, shape: tuple[object, ...], make: Callable[[], Kept]) -> Kept:
        """What was made for ``shape``; made now where there is nothing, and the oldest given up for it."""
        if shape not in self._kept:
            while len(self._kept) >= GRAPHS:
                del self._kept[next(iter(self._kept))]
            self._kept[shape] = make()
        return self._kept[shape]
