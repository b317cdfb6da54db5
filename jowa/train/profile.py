"""Where a step's time goes: ``--profile-steps N`` profiles N steps of each stage, after a warm-up.

Ranges are named by ``torch.profiler.record_function``: the loop, :mod:`jowa.train.step` and, while a profile is taken,
hooks on the model's parts.  When none is taken there are no hooks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from jowa.files import atomic_write
from jowa.model.objective import Objective

if TYPE_CHECKING:
    from rich.table import Table

WARM_UP = 5
"""Steps before a profile, in which memory is first taken and code is compiled."""
PROFILE = "profile"
"""Folder of the traces in a run's folder."""
BACKWARD = "backward"
PARTS = (
    "data", "tokenizer", "embedding", "attention", "MLP", "block, compiled", "heads", "target head", "losses",
    "losses, compiled", "rest of the model", BACKWARD, "clip", "optimizer",
)  # fmt: skip
"""Ranges, in the order of the table."""


class Profiler:
    """Takes a profile of steps [:data:`WARM_UP`, WARM_UP + ``steps``) of every stage; inactive for 0 ``steps``."""

    def __init__(self, steps: int, folder: Path, device: torch.device, is_main: bool) -> None:
        self.steps, self.folder, self.device, self.is_main = steps, folder / PROFILE, device, is_main
        self._seen: dict[int, int] = {}
        self._running: Any = None

    def before_step(self, stage: int, step: int, objective: Objective) -> None:
        """To be called before each step, numbered within the run; starts profiles."""
        if not self.steps:
            return
        seen = self._seen.get(stage, 0)
        if seen == WARM_UP:
            self._begin(stage, step, objective)
        self._seen[stage] = seen + 1

    def after_step(self, last: bool) -> None:
        """To be called after each step, before anything is saved or looked at; ``last``: of its stage."""
        if self._running is not None and (last or self._seen[self._stage] == WARM_UP + self.steps):
            self.end()

    def _begin(self, stage: int, step: int, objective: Objective) -> None:
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.synchronize(self.device)
        self._ranges = named_parts(objective)
        self._ranges.__enter__()
        self._running, self._stage, self._first, self._began = profile(activities=activities), stage, step, time.time()
        self._running.__enter__()

    def end(self) -> None:
        """Print and store the profile that is being taken, if there is one."""
        if self._running is None:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.time() - self._began
        running, self._running = self._running, None
        running.__exit__(None, None, None)
        self._ranges.__exit__(None, None, None)
        if self.is_main:
            count = self._seen[self._stage] - WARM_UP
            path = self.folder / f"stage{self._stage}-step-{self._first:08d}.json"
            atomic_write(path, lambda temporary: running.export_chrome_trace(str(temporary)))
            from rich.console import Console

            Console().print(table(running, self._stage, count, seconds, self.device))
            print(f"trace for chrome://tracing or ui.perfetto.dev: {path}", flush=True)


@contextmanager
def named_parts(objective: Objective) -> Iterator[None]:
    """Name the parts of the model's forward pass while a profile is taken.

    What is compiled gets one range around it and nothing inside: a hook there would break its graph, or compile anew.
    """
    with ExitStack() as undo:
        if not _named_whole(objective, "losses, compiled", undo):
            _name_parts(objective, undo)
        yield


def _named_whole(module: nn.Module, name: str, undo: ExitStack) -> bool:
    """Put the range ``name`` around a compiled module's code; returns whether ``module`` is compiled."""
    compiled = module._compiled_call_impl
    if compiled is None:
        return False

    def call(*arguments: Any, **named: Any) -> Any:
        with record_function(name):
            return compiled(*arguments, **named)

    # What torch.nn.Module.__call__ calls, with the arguments that it was given.
    module._compiled_call_impl = call
    undo.callback(setattr, module, "_compiled_call_impl", compiled)
    return True


def _watch(module: nn.Module, name: str, undo: ExitStack) -> None:
    """Put the range ``name`` around a module's forward pass, compiled or not."""
    if _named_whole(module, name, undo):
        return
    open_ranges: list[record_function] = []

    def enter(*_: Any) -> None:
        open_ranges.append(record_function(name))
        open_ranges[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    undo.callback(module.register_forward_pre_hook(enter, prepend=True).remove)
    undo.callback(module.register_forward_hook(leave, always_call=True).remove)


def _name_parts(objective: Objective, undo: ExitStack) -> None:
    model = objective.model
    _watch(objective, "losses", undo)
    _watch(model, "rest of the model", undo)
    for block in model.transformer.blocks:
        if not _named_whole(block, "block, compiled", undo):
            _watch(block.get_submodule("attn"), "attention", undo)
            _watch(block.get_submodule("mlp"), "MLP", undo)
    for head in (model.frame_head, model.reward_head, model.end_head, model.q_head):
        _watch(head, "heads", undo)
    _watch(model.q_target_head, "target head", undo)
    model.embed = partial(_embed, model.embed)  # type: ignore[method-assign]
    undo.callback(delattr, model, "embed")


def _embed(plain: Any, *arguments: Any) -> Any:
    with record_function("embedding"):
        return plain(*arguments)


def shares(events: Any, device: torch.device) -> dict[str, float]:
    """Seconds of each range of :data:`PARTS` without the ranges inside it; on a GPU, of the kernels it started.

    ``events``: of a profile.
    """
    cuda = device.type == "cuda"
    found = dict.fromkeys(PARTS, 0.0)
    kernels = 0.0
    for event in events:
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            kernels += event.time_range.elapsed_us()
        if event.device_type != DeviceType.CPU or event.name not in found:
            continue
        duration = event.device_time_total if cuda else event.cpu_time_total
        found[event.name] += duration
        outer = event.cpu_parent
        while outer is not None and outer.name not in found:
            outer = outer.cpu_parent
        if outer is not None:
            found[outer.name] -= duration
    if cuda:  # another thread starts these
        found[BACKWARD] = kernels - sum(value for name, value in found.items() if name != BACKWARD)
    return {name: value / 1e6 for name, value in found.items()}


def table(taken: profile, stage: int, steps: int, seconds: float, device: torch.device) -> Table:
    """Where the time of ``steps`` went, which took ``seconds`` in all."""
    from rich.table import Table

    kind = "time of the GPU's kernels" if device.type == "cuda" else "time"
    result = Table("part of a step", title=f"stage {stage}, {steps} steps, {seconds / steps * 1e3:.4g} ms each: {kind}")
    for name in ("ms a step", "share"):
        result.add_column(name, justify="right")
    events = taken.events()  # type: ignore[no-untyped-call]
    found = {name: value for name, value in shares(events, device).items() if value}
    found["GPU idle" if device.type == "cuda" else "the rest"] = seconds - sum(found.values())
    for name, value in found.items():
        result.add_row(name, f"{value / steps * 1e3:.3f}", f"{value / seconds:.1%}")
    return result
