"""How the objective is computed: compiled, recomputed, sharded.  Speed and memory; the numbers stay the same.

Under FSDP2 (``fully_shard``) the model's parameters are DTensors, of which each process holds a part.  What touches
whole weights goes through :func:`whole` and :func:`write_whole`; everything elementwise works on the parts.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from jowa.model import WorldActionModel
from jowa.model.objective import Objective
from jowa.train.config import ParallelConfig
from jowa.train.distributed import Place


def prepare(objective: Objective, config: ParallelConfig, place: Place) -> None:
    """Make ``objective`` compute as ``config`` says, in place; before optimizers and wrappers see its parameters."""
    objective.model.transformer.recompute = config.checkpoint_activations
    if compiles(config, place.device):
        compile_objective(objective, whole=place.world == 1)
    if config.strategy == "fsdp" and place.world > 1:
        shard(objective, place)


def compiles(config: ParallelConfig, device: torch.device) -> bool:
    """Whether ``config`` asks for torch.compile on ``device``."""
    return config.compile == "on" or (config.compile == "auto" and device.type == "cuda")


def compile_objective(objective: Objective, whole: bool) -> None:
    """Compile ``objective`` in place and without changing names: the ``whole``, or each block and the Q heads.

    The whole is faster, but one graph hands over all gradients at its end: with several processes no communication
    could hide behind the backward pass.
    """
    model = objective.model
    for part in [objective] if whole else [*model.transformer.blocks, model.q_head, model.q_target_head]:
        part.compile(fullgraph=True, dynamic=False)


def shard(objective: Objective, place: Place) -> None:
    """Spread the parameters of ``objective`` over the processes: each block, each Q head, and the rest as one."""
    mesh = init_device_mesh(place.device.type, (place.world,))

    def placement(parameter: nn.Parameter) -> Shard | None:
        return _even(parameter, place.world)

    # Of in-place changes to the Q head's view of its logits, which nobody makes.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    model = objective.model
    for part in (*model.transformer.blocks, model.q_head, model.q_target_head):
        fully_shard(part, mesh=mesh, shard_placement_fn=placement)
    # The root is what the trainer calls: its hooks go around the losses, whose gradients set off the backward pass.
    fully_shard(objective, mesh=mesh, shard_placement_fn=placement)


def _even(parameter: nn.Parameter, world: int) -> Shard | None:
    """Cut along the first dimension that ``world`` divides: an ensemble of three cannot be cut into four members."""
    return next((Shard(axis) for axis, size in enumerate(parameter.shape) if size % world == 0), None)


def whole(value: Any) -> Any:
    """``value`` with every DTensor in its dicts and lists gathered; a collective call where there is one."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, Mapping):
        return {key: whole(inner) for key, inner in value.items()}
    return [whole(inner) for inner in value] if isinstance(value, list) else value


def like(values: Tensor, other: Tensor) -> Tensor:
    """Whole ``values``, the same on every process, cut as ``other`` is."""
    if not isinstance(other, DTensor):
        return values
    return distribute_tensor(values.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def part_of(value: Tensor) -> Tensor:
    """What of ``value`` this process holds: all of it, unless it is cut; changes in place reach ``value``."""
    return value.to_local() if isinstance(value, DTensor) else value


def with_part(other: Tensor, part: Tensor) -> Tensor:
    """The tensor of which each process holds ``part``, cut as ``other`` is."""
    return DTensor.from_local(part, other.device_mesh, other.placements) if isinstance(other, DTensor) else part


@torch.no_grad()
def write_whole(parameter: Tensor, values: Tensor) -> None:
    """Overwrite ``parameter``, cut or not, with whole ``values`` of its shape, the same on every process."""
    parameter.copy_(like(values, parameter))


def plain_twin(model: WorldActionModel) -> WorldActionModel:
    """A model with the weights of ``model`` that is neither compiled, nor recomputed, nor cut, for imagination, whose
    shapes vary.

    What is whole is shared, so the twin follows whatever the optimizer does; where ``model`` is cut the twin has room
    of its own, which :func:`bring_up` fills: each process then holds the weights once more.
    """
    with torch.device("meta"):
        plain = WorldActionModel(dataclasses.replace(model.config, q_init=None))
    state = model.state_dict()
    plain.load_state_dict(
        {
            name: torch.empty(value.shape, dtype=value.dtype, device=value.device)
            if isinstance(value, DTensor)
            else value
            for name, value in state.items()
        },
        assign=True,
    )
    return plain.requires_grad_(False).eval()


@torch.no_grad()
def bring_up(twin: WorldActionModel, model: WorldActionModel) -> None:
    """Give ``twin`` the present weights of ``model``, where that is cut; a collective call there.

    One weight after another: no more than one is gathered beside the twin.
    """
    theirs = twin.state_dict()
    for name, value in model.state_dict().items():
        if isinstance(value, DTensor):
            theirs[name].copy_(value.full_tensor())
