"""An engine with somebody who guesses: what both planners, and the dream, roll the model forward with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from jowa.errors import UsageError
from jowa.model import WorldActionModel
from jowa.planner.drafts import CopyDrafter, Drafter, DraftHead, LastChangeDrafter
from jowa.planner.engine import Engine, Imagined, Level, Sampling, Values
from jowa.planner.imagination import Context
from jowa.planner.native_engine import NativeEngine, native_engine_available
from jowa.planner.plan import PlannerConfig
from jowa.planner.torch_engine import TorchEngine


def make_engine(model: WorldActionModel, autocast: torch.dtype | None = None) -> Engine:
    """The fastest engine for where ``model`` is: on a CPU the native one, which copies the weights."""
    plain = model.position_embedding.weight.device.type == "cpu" and autocast in (None, torch.bfloat16)
    if plain and native_engine_available():
        return NativeEngine(model, "float32" if autocast is None else "bfloat16")
    return TorchEngine(model, autocast)


class Rollout:
    """Imagines levels of rows, guessing their frames as the configuration says."""

    def __init__(
        self,
        model: WorldActionModel,
        config: PlannerConfig,
        autocast: torch.dtype | None = None,
        engine: Engine | None = None,
        draft_head: DraftHead | None = None,
    ) -> None:
        self.engine = make_engine(model, autocast) if engine is None else engine
        self.context_steps, self.num_actions = model.config.context_steps, model.config.num_actions
        self.device = self.engine.device
        self._drafter = self._choose_drafter(model, config, draft_head)

    def _choose_drafter(
        self, model: WorldActionModel, config: PlannerConfig, draft_head: DraftHead | None
    ) -> Drafter | None:
        if config.draft == "head" and draft_head is None:
            raise UsageError("this agent has no draft head: train one with python -m jowa.draft, or choose another")
        if config.draft in (None, "head") and draft_head is not None:
            return draft_head.to(self.device).eval()
        if config.draft in (None, "last-change"):
            return LastChangeDrafter(model.config, self.device)
        return CopyDrafter() if config.draft == "copy" else None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around everything from encoding to the last frame: others who share the engine wait, and while the native
        engine works torch keeps to one thread (its others spin behind each operation, on the cores that it needs)."""
        threads = torch.get_num_threads()
        with self.engine.lock:
            if isinstance(self.engine, NativeEngine) and threads > 1:
                torch.set_num_threads(1)
            try:
                yield
            finally:
                if torch.get_num_threads() != threads:
                    torch.set_num_threads(threads)

    @property
    def guesses(self) -> bool:
        """Whether frames are guessed before they are imagined."""
        return self._drafter is not None

    def reserve(self, roots: int, pages: int) -> None:
        """See :meth:`jowa.planner.engine.Engine.reserve`."""
        self.engine.reserve(roots, pages)

    def encode(self, context: Context, slots: Tensor | None = None) -> Values:
        """See :meth:`jowa.planner.engine.Engine.encode`."""
        return self.engine.encode(context, slots)

    def imagine_on_device(self, level: Level, parents: Tensor, tasks: Tensor, passes: int) -> tuple[Imagined, Tensor]:
        """:meth:`imagine` in so many passes, without a look at the numbers; also bool (): whether they sufficed."""
        assert isinstance(self.engine, TorchEngine)
        if self._drafter is None:
            return self.engine.imagine_on_device(level, None, passes)
        drafts = self._drafter.propose(parents, level.actions, tasks)
        found, finished = self.engine.imagine_on_device(level, drafts, passes)
        self._drafter.learn(parents, level.actions, tasks, (level.depths >= 0) & finished, found.tokens)
        return found, finished

    def imagine(self, level: Level, parents: Tensor, tasks: Tensor, sampling: Sampling | None = None) -> Imagined:
        """Imagine ``level``; ``parents`` int64 (R, M, 36) are the frames it starts from, ``tasks`` int64 (R,)."""
        if self._drafter is None:
            return self.engine.imagine(level, None, sampling)
        drafts = self._drafter.propose(parents, level.actions, tasks)
        found = self.engine.imagine(level, drafts, sampling)
        self._drafter.learn(parents, level.actions, tasks, level.depths >= 0, found.tokens)
        return found
