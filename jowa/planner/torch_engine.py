"""The engine in torch's own operations and the tree-attention kernel: what a GPU runs, and any device can.

Letters: as in :mod:`jowa.planner.engine`; N = R M rows, B tokens that a pass feeds each row, T context tokens,
H heads, d head width, D width.
"""

from __future__ import annotations

import copy
import dataclasses
from threading import RLock

import torch
from torch import Tensor, nn

from jowa.config import TOKENS_PER_FRAME, TOKENS_PER_STEP
from jowa.kernels.tree_attention import tree_attention
from jowa.model import WorldActionModel
from jowa.model.heads import EnsembleLinear, member_values
from jowa.planner.engine import Counters, Drafts, Imagined, Level, Sampling, Values, check_context, check_level
from jowa.planner.imagination import Context
from jowa.planner.torch_state import PassState

TOKENS_A_PASS = {"cuda": 256, "cpu": 8}
"""Tokens that a pass feeds for little more than the price of reading the weights."""


class TorchEngine:
    """See :class:`jowa.planner.engine.Engine`.

    ``model`` must be in evaluation mode and is used as it is; with ``autocast``, products run in that dtype on a copy
    of its linear layers, and keys and values are kept in it.  Results are those of token-by-token imagination up to
    rounding: products of other shapes round differently, so near-ties may fall otherwise with drafts than without.
    """

    def __init__(self, model: WorldActionModel, autocast: torch.dtype | None = None) -> None:
        self.device = model.position_embedding.weight.device
        self.counters = Counters()
        self.encoded = 0
        self.lock = RLock()
        self.grown = 0
        """How often the buffers moved: what was captured before points at the old ones."""
        self.autocast = autocast
        self.model = model if autocast is None else _with_linears_in(model, autocast)
        self._dtype = autocast or model.position_embedding.weight.dtype
        self._roots = self._pages = 0
        self._replays: dict[tuple[int, ...], _Replay] = {}

    def reserve(self, roots: int, pages: int) -> None:
        """See :meth:`jowa.planner.engine.Engine.reserve`."""
        if roots <= self._roots and pages <= self._pages:
            return
        self.encoded += 1
        self.grown += 1
        self._roots, self._pages = max(roots, self._roots), max(pages, self._pages)
        config = self.model.config
        heads, width = config.heads, config.width // config.heads
        tokens = config.context_steps * TOKENS_PER_STEP - 1

        def zeros(count: int, length: int) -> Tensor:
            return torch.zeros(config.layers, count, heads, length, width, dtype=self._dtype, device=self.device)

        self._context_keys, self._context_values = zeros(self._roots, tokens), zeros(self._roots, tokens)
        # Idle rows write into one page too many.
        self._page_keys = zeros(self._pages + 1, TOKENS_PER_STEP)
        self._page_values = torch.zeros_like(self._page_keys)
        self._lengths = torch.zeros(self._roots, dtype=torch.int64, device=self.device)
        self._tasks = torch.zeros(self._roots, dtype=torch.int64, device=self.device)
        self._replays.clear()

    @torch.inference_mode()
    def encode(self, context: Context, slots: Tensor | None = None) -> Values:
        """See :meth:`jowa.planner.engine.Engine.encode`."""
        count = len(context.lengths)
        slots = torch.arange(count, device=self.device) if slots is None else slots
        check_context(context, slots, self._roots, self.model.config.context_steps)
        with self._precision():
            embedded = self.model.embed(context.tokens, context.actions, context.tasks)[:, :-1]
            length = embedded.shape[1]

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                self._context_keys[layer, slots, :, :length] = k.to(self._dtype)
                self._context_values[layer, slots, :, :length] = v.to(self._dtype)
                return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

            hidden = self.model.transformer(embedded, attend)
            # Padding stands behind the last frame and the mask is causal, so it never reaches it.
            last = (context.lengths - 1) * TOKENS_PER_STEP + TOKENS_PER_FRAME - 1
            values = self._values(hidden[torch.arange(count, device=self.device), last])
        self._lengths[slots], self._tasks[slots] = context.lengths, context.tasks
        self.encoded += 1
        return values

    @torch.inference_mode()
    def imagine(self, level: Level, drafts: Drafts | None = None, sampling: Sampling | None = None) -> Imagined:
        """See :meth:`jowa.planner.engine.Engine.imagine`."""
        check_level(level, drafts, sampling, self._roots)
        if self.device.type != "cuda":  # there, looking would wait for the device
            self._check_pages(level)
        count, rows, slots = level.page_table.shape
        block = self._block(level, drafts)
        key = (count, rows, slots, block, 0 if sampling is None else 1)
        if self.device.type == "cuda":
            replay = self._replays.get(key)
            if replay is None:
                replay = self._replays[key] = _Replay(self, key)
            state = replay.run(level, drafts, sampling)
        else:
            state = PassState.begin(level, drafts, sampling, self._pages, block, self.model.config.num_actions)
            while not bool(state.finished().all()):
                self.advance(state)
        self._count(state)
        return state.imagined(count, rows)

    @torch.inference_mode()
    def imagine_on_device(self, level: Level, drafts: Drafts | None, passes: int) -> tuple[Imagined, Tensor]:
        """:meth:`imagine` in so many passes, without a look at the numbers; also bool (): whether they sufficed."""
        check_level(level, drafts, None, self._roots)
        count, rows, _ = level.page_table.shape
        block = self._block(level, drafts)
        state = PassState.begin(level, drafts, None, self._pages, block, self.model.config.num_actions)
        for _ in range(passes):
            self.advance(state)
        return state.imagined(count, rows), state.finished().all()

    def _block(self, level: Level, drafts: Drafts | None) -> int:
        """Tokens that a pass feeds each row."""
        if drafts is None or not level.actions.numel():
            return 1
        return min(TOKENS_PER_STEP, max(2, TOKENS_A_PASS.get(self.device.type, 8) // level.actions.numel()))

    def advance(self, state: PassState) -> None:
        """One pass: feed each row its next B tokens and keep the longest right prefix.  Static shapes, no wait."""
        config, count = self.model.config, state.level.actions.shape[0]
        rows = len(state.depths) // max(count, 1)
        block = state.block
        offsets = torch.arange(block, device=self.device)
        # A block never reaches beyond the page: near its end, tokens that were fed before are fed again.
        fed = state.fed.clamp(max=TOKENS_PER_STEP - block)[:, None] + offsets
        inputs = state.tokens.gather(1, fed.clamp(min=1) - 1).clamp(min=0)
        tasks = self._tasks[:count].repeat_interleave(rows)
        depths = state.depths.clamp(min=0)
        first = (self._lengths[:count].repeat_interleave(rows) + depths) * TOKENS_PER_STEP - 1
        positions = (first[:, None] + fed).clamp(min=0, max=config.context_steps * TOKENS_PER_STEP - 1)
        with self._precision():
            actions = self.model.embed_actions(state.level.actions.reshape(-1, 1), positions[:, :1], tasks)
            frames = self.model.embed_frames(inputs, positions, tasks)
            embedded = torch.where((fed == 0)[..., None], actions, frames)
            hidden = self.model.transformer(embedded, _Attend(self, state, fed, count, rows))
            logits = self.model.frame_head(hidden)
            chosen, sound = state.choose(logits, fed), logits.isfinite().all(-1)
            state.note_outcome(
                self.model.reward_head(hidden[:, 0]), self.model.end_head(hidden[:, 0]), at_action=fed[:, 0] == 0
            )
            # The last token of a block is the last of the frame in the pass that ends the row.
            values = self._values(hidden[:, -1])
        state.settle(fed, chosen, sound, values)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    def _values(self, hidden: Tensor) -> Values:
        """Q of hidden states (..., D)."""
        config = self.model.config
        members = member_values(self.model.q_head(hidden), config.v_min, config.v_max)
        members = members.masked_fill(~members.isfinite(), torch.nan)  # as a softmax makes of an infinite logit
        return Values(members.mean(0), members.std(0, correction=0))

    def _check_pages(self, level: Level) -> None:
        live = level.depths >= 0
        if not bool(live.any()):
            return
        needed = torch.arange(level.page_table.shape[2], device=self.device) <= level.depths[..., None]
        named = level.page_table[needed]
        if int(level.depths.max()) >= level.page_table.shape[2] or int(named.min()) < 0:
            raise ValueError("page_table lacks a page of a row or of its ancestors")
        if int(named.max()) >= self._pages:
            raise ValueError(f"page_table names page {int(named.max())}: {self._pages} pages are reserved")
        steps = int((level.depths + self._lengths[: len(live), None])[live].max()) + 1
        if steps > self.model.config.context_steps:
            raise ValueError(f"a row would stand at step {steps}, the model has {self.model.config.context_steps}")

    def _count(self, state: PassState) -> None:
        """Add up what was done; on a GPU this waits for it, as the planner that asked will."""
        counters = self.counters
        live = state.depths >= 0
        counters.frames += int(live.sum())
        counters.row_passes += int(state.passes[live].sum())
        counters.fed += int(state.fed_in_all[live].sum())
        counters.guessed += int(state.guessed[live].sum())
        counters.accepted += int(state.accepted[live].sum())


class _Attend:
    """Writes a pass's keys and values into the rows' pages, and attends to contexts and pages."""

    def __init__(self, engine: TorchEngine, state: PassState, fed: Tensor, roots: int, rows: int) -> None:
        self.engine, self.shape = engine, (roots, rows)
        self.places = (state.pages[:, None].expand_as(fed), fed)
        lengths = engine._lengths[:roots] * TOKENS_PER_STEP - 1
        written = state.depths * TOKENS_PER_STEP + fed[:, -1] + 1
        tokens = torch.where(state.depths >= 0, written, 0)
        self.where = (lengths.int(), state.level.page_table, tokens.view(roots, rows).int())

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (N, H, B, d) to the mixed values (N, H, B, d)."""
        engine, (roots, rows) = self.engine, self.shape
        keys, values = engine._page_keys[layer], engine._page_values[layer]
        pages, fed = self.places
        keys[pages, :, fed] = k.transpose(1, 2).to(keys.dtype)
        values[pages, :, fed] = v.transpose(1, 2).to(values.dtype)
        context = engine._context_keys[layer, :roots], engine._context_values[layer, :roots]
        lengths, table, tokens = self.where
        queries = q.to(keys.dtype).view(roots, rows, *q.shape[1:])
        return tree_attention(queries, *context, lengths, keys, values, table, tokens).flatten(0, 1)


class _Replay:
    """Passes over one shape of level, captured once as a CUDA graph and launched without waiting.

    The host looks at a pass's answer one pass late, so the device never idles; a pass too many changes nothing.
    """

    def __init__(self, engine: TorchEngine, key: tuple[int, ...]) -> None:
        count, rows, slots, self.block, sampled = key
        self.engine = engine
        device, shape = engine.device, (count, rows)
        level = Level(
            torch.zeros(shape, dtype=torch.int64, device=device),
            torch.zeros(*shape, slots, dtype=torch.int32, device=device),
            torch.full(shape, -1, dtype=torch.int32, device=device),
        )
        sampling = Sampling(torch.zeros(shape, dtype=torch.int64, device=device)) if sampled else None
        self.temperature = 1.0
        self.state = PassState.begin(level, None, sampling, engine._pages, self.block, engine.model.config.num_actions)
        self.graph: torch.cuda.CUDAGraph | None = None

    def run(self, level: Level, drafts: Drafts | None, sampling: Sampling | None) -> PassState:
        """Imagine ``level``; the state that is returned is overwritten by the next call."""
        engine = self.engine
        fresh = PassState.begin(level, drafts, sampling, engine._pages, self.block, engine.model.config.num_actions)
        temperature = 1.0 if sampling is None else sampling.temperature
        if self.graph is None or temperature != self.temperature:
            self.temperature = temperature
            if sampling is not None and self.state.sampling is not None:
                self.state.sampling = dataclasses.replace(self.state.sampling, temperature=temperature)
            self._capture()
        assert self.graph is not None
        _copy(fresh, self.state)
        answers: list[tuple[torch.cuda.Event, Tensor]] = []
        for _ in range(TOKENS_PER_STEP):
            self.graph.replay()
            if self.block > 1:
                answers.append(_ask(self.state.finished().all()))
                if len(answers) > 1:
                    event, answer = answers.pop(0)
                    event.synchronize()
                    if bool(answer):
                        break
        return self.state

    def _capture(self) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._pass()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._pass()

    def _pass(self) -> None:
        """A pass whose results land in the tensors that the next pass reads."""
        after = dataclasses.replace(self.state)
        for name in _COUNTED:  # advance() adds to these in place
            setattr(after, name, getattr(after, name).clone())
        self.engine.advance(after)
        _copy(after, self.state)


_COUNTED = ("passes", "fed_in_all", "guessed", "accepted")


def _copy(source: PassState, target: PassState) -> None:
    """Copy every tensor of one state into those of another."""
    pairs = [(getattr(source, f.name), getattr(target, f.name)) for f in dataclasses.fields(PassState)]
    pairs += [(getattr(source.level, f.name), getattr(target.level, f.name)) for f in dataclasses.fields(Level)]
    if source.sampling is not None and target.sampling is not None:
        pairs.append((source.sampling.seeds, target.sampling.seeds))
    for new, old in pairs:
        if isinstance(new, Tensor) and new is not old:
            old.copy_(new)


def _ask(answer: Tensor) -> tuple[torch.cuda.Event, Tensor]:
    """A copy of ``answer`` on its way to the host, and the event that tells when it is there."""
    there = torch.empty((), dtype=torch.bool, pin_memory=True)
    there.copy_(answer, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event, there


def _with_linears_in(model: WorldActionModel, dtype: torch.dtype) -> WorldActionModel:
    """A copy whose linear layers hold ``dtype``: what autocast would make of them in every pass."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Linear | EnsembleLinear):
            module.to(dtype)
    return model
