"""The engine of a CPU: the whole forward pass in C++ (csrc/engine).

Letters as in :mod:`jowa.planner.engine`, and D width, H heads, d = D / H, E members of the Q ensemble.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import RLock
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jowa.model import WorldActionModel
from jowa.planner.engine import Counters, Drafts, Imagined, Level, Sampling, Values
from jowa.planner.imagination import Context

try:
    from jowa import _native
except ImportError:
    _native = None  # type: ignore[assignment]

Precision = Literal["float32", "bfloat16"]


def native_engine_available() -> bool:
    """True when the native core was built and imports."""
    return _native is not None


class NativeEngine:
    """:class:`jowa.planner.engine.Engine` in C++, without the interpreter's lock while it works.

    It keeps a packed copy of the weights: after training on, call :meth:`refresh`.  Dropout is never on.

    ``precision`` "bfloat16": weights and what enters the matrix products are rounded to bfloat16; sums, LayerNorm,
    softmax, keys, values and the residual stream stay float32.  It is fast where the processor multiplies bfloat16
    itself; elsewhere it saves memory traffic only.

    ``instructions`` names a set of instructions to use ("bf16", "v4", "v3", "portable"), None the best at hand.
    Outcomes are the same to the last bit whatever is in the batch, however many threads work and whatever was guessed;
    they differ in the last bits between sets of instructions.
    """

    def __init__(
        self, model: WorldActionModel, precision: Precision = "float32", instructions: str | None = None
    ) -> None:
        if _native is None:
            raise RuntimeError("jowa was installed without its native core: run pip install -e . in the checkout")
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
        config = model.config
        self.model, self.precision = model, precision
        self.device = torch.device("cpu")
        self.counters = Counters()
        self.encoded = 0
        self.lock = RLock()
        self._sizes = (0, 0)
        self._engine = _native.Engine(
            layers=config.layers,
            heads=config.heads,
            width=config.width,
            vocab=config.vocab_size,
            actions=config.num_actions,
            atoms=config.num_atoms,
            members=config.q_ensemble,
            q_width=config.q_width,
            context_steps=config.context_steps,
            tasks=config.num_tasks,
            task_embedding=config.task_embedding,
            bfloat16=precision == "bfloat16",
            instructions=instructions,
        )
        self.refresh()

    def refresh(self) -> None:
        """Read the model's weights again.  Contexts and pages of the old weights remain until encoded again."""
        for name, weights in _arrays(self.model):
            array = weights.detach().to("cpu", torch.float32)
            self._engine.load(name, array.reshape(-1, array.shape[-1]).contiguous().numpy())
        self._engine.check_complete()

    def reserve(self, roots: int, pages: int) -> None:
        """See :meth:`jowa.planner.engine.Engine.reserve`.  Memory is taken as pages are first filled."""
        self._engine.reserve(roots, pages)
        sizes = max(roots, self._sizes[0]), max(pages, self._sizes[1])
        if sizes != self._sizes:
            self._sizes = sizes
            self.encoded += 1

    def encode(self, context: Context, slots: Tensor | None = None) -> Values:
        """See :meth:`jowa.planner.engine.Engine.encode`."""
        q, spread = self._engine.encode(
            _integers("context.tokens", context.tokens),
            _integers("context.actions", context.actions),
            _integers("context.lengths", context.lengths),
            _integers("context.tasks", context.tasks),
            None if slots is None else _integers("slots", slots),
        )
        self.encoded += 1
        return Values(torch.from_numpy(q), torch.from_numpy(spread))

    def imagine(self, level: Level, drafts: Drafts | None = None, sampling: Sampling | None = None) -> Imagined:
        """See :meth:`jowa.planner.engine.Engine.imagine`."""
        tokens, rewards, ends, q, spread, tally, misses = self._engine.imagine(
            _integers("level.actions", level.actions),
            _integers("level.page_table", level.page_table, torch.int32),
            _integers("level.depths", level.depths, torch.int32),
            None if drafts is None else _integers("drafts.tokens", drafts.tokens),
            None if drafts is None or drafts.sureness is None else _floats("drafts.sureness", drafts.sureness),
            None if sampling is None else _integers("sampling.seeds", sampling.seeds),
            1.0 if sampling is None else sampling.temperature,
        )
        self._count(tally, misses)
        return Imagined(*map(torch.from_numpy, (tokens, rewards, ends, q, spread)))

    def _count(self, tally: tuple[int, int, int, int, int], misses: NDArray[np.int64]) -> None:
        counters = self.counters
        counters.frames += tally[0]
        counters.row_passes += tally[1]
        counters.fed += tally[2]
        counters.guessed += tally[3]
        counters.accepted += tally[4]
        if tally[3]:
            # Not in place: an engine made in inference mode may be asked outside of it.
            counters.misses = counters.misses + torch.from_numpy(misses)


def _integers(name: str, tensor: Tensor, dtype: torch.dtype = torch.int64) -> NDArray[Any]:
    if tensor.dtype != dtype:
        raise ValueError(f"{name} must be {dtype}, got {tensor.dtype}")
    return _on_cpu(name, tensor)


def _floats(name: str, tensor: Tensor) -> NDArray[Any]:
    if tensor.dtype != torch.float32:
        raise ValueError(f"{name} must be torch.float32, got {tensor.dtype}")
    return _on_cpu(name, tensor)


def _on_cpu(name: str, tensor: Tensor) -> NDArray[Any]:
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} must be on the CPU, where this engine works, got {tensor.device}")
    return tensor.detach().numpy()


def _arrays(model: WorldActionModel) -> Iterator[tuple[str, Tensor]]:
    """All weights under the names of csrc/engine/model.cpp, each (outputs, inputs) or (1, outputs)."""
    config = model.config
    parts: Any = model.transformer  # what a module holds has no types
    tables = ["frame_embedding", "action_embedding", "position_embedding"]
    if config.task_embedding:
        tables += ["frame_task_embedding", "action_task_embedding"]
    for table in tables:
        yield table, getattr(model, table).weight
    yield "atoms", torch.linspace(config.v_min, config.v_max, config.num_atoms)
    for layer, block in enumerate(parts.blocks):
        name = f"blocks.{layer}"
        attention = block.attn
        joined = [_by_head(linear, config.heads) for linear in (attention.query, attention.key, attention.value)]
        yield from _both(f"{name}.ln1", block.ln1.weight, block.ln1.bias)
        yield from _both(f"{name}.qkv", torch.cat([w for w, _ in joined]), torch.cat([b for _, b in joined]))
        yield from _both(f"{name}.proj", _by_input_head(attention.proj, config.heads), attention.proj.bias)
        yield from _both(f"{name}.ln2", block.ln2.weight, block.ln2.bias)
        yield from _both(f"{name}.up", block.mlp[0].weight, block.mlp[0].bias)
        yield from _both(f"{name}.down", block.mlp[2].weight, block.mlp[2].bias)
    yield from _both("ln_f", parts.ln_f.weight, parts.ln_f.bias)
    frame_head: Any = model.frame_head
    yield from _both("frame1", frame_head[0].weight, frame_head[0].bias)
    yield from _both("frame2", frame_head[2].weight, frame_head[2].bias)
    outcome: list[Any] = [model.reward_head, model.end_head]
    for index, join in ((0, torch.cat), (2, _diagonal)):
        heads = [head[index] for head in outcome]
        yield from _both(
            f"outcome{index // 2 + 1}", join([h.weight for h in heads]), torch.cat([h.bias for h in heads])
        )
    yield from _q_arrays(model)


def _q_arrays(model: WorldActionModel) -> Iterator[tuple[str, Tensor]]:
    head, hidden = model.q_head, model.config.q_width
    rest = -hidden % _PANEL  # each member starts at a panel of its own
    weight = nn.functional.pad(head.linear1.weight, (0, 0, 0, rest))
    yield from _both("q1", weight.flatten(0, 1), nn.functional.pad(head.linear1.bias, (0, rest)).flatten())
    for member in range(model.config.q_ensemble):
        for part in ("norm1", "linear2", "norm2", "linear3"):
            layer = getattr(head, part)
            yield from _both(f"q.{member}.{part}", layer.weight[member], layer.bias[member])


_PANEL = 32
"""Outputs of a panel of packed weights (csrc/engine/kernels.h)."""
_BLOCK = 16
"""A head's width is padded to a multiple of this."""


def _both(name: str, weight: Tensor, bias: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", weight
    yield f"{name}.bias", bias


def _by_head(linear: nn.Linear, heads: int) -> tuple[Tensor, Tensor]:
    """Weight (H padded d, D) and bias (H padded d,) with zeros between the heads."""
    weight = linear.weight.reshape(heads, -1, linear.in_features)
    rest = -weight.shape[1] % _BLOCK
    bias = nn.functional.pad(linear.bias.reshape(heads, -1), (0, rest))
    return nn.functional.pad(weight, (0, 0, 0, rest)).flatten(0, 1), bias.flatten()


def _by_input_head(linear: nn.Linear, heads: int) -> Tensor:
    """Weight (D, H padded d) with zeros between the heads."""
    weight = linear.weight.reshape(linear.out_features, heads, -1)
    return nn.functional.pad(weight, (0, -weight.shape[2] % _BLOCK)).flatten(1)


def _diagonal(weights: list[Tensor]) -> Tensor:
    """Two (outputs, D) side by side: (sum of outputs, 2 D), each over inputs of its own."""
    first, second = weights
    return torch.cat([nn.functional.pad(first, (0, second.shape[1])), nn.functional.pad(second, (first.shape[1], 0))])
