"""How much of a device's memory training takes, from the sizes alone: weights, optimizer, activations.

An estimate: what is kept for the backward pass is counted operation by operation, as PyTorch's own operations keep it
(tests compare it with what they keep); what an allocator wastes and what is only alive within an operation is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from jowa.config import FRAME_SIZE, TOKENS_PER_FRAME, TOKENS_PER_STEP, ModelConfig, TokenizerConfig
from jowa.tokenizer import Tokenizer
from jowa.train.config import TrainConfig

WEIGHT, GRADIENT, ADAM = 4, 4, 8
"""Bytes a parameter: float32, and two float32 moments."""
REST = 1.5e9
"""Bytes of a GPU that are taken before training begins: driver, libraries, kernels, communication."""
ROOM = 0.92
"""Share of a GPU's memory to plan with: an allocator leaves gaps."""


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters by what holds them; the target head has as many as the Q head."""

    tokenizer: int
    world: int
    """Of the world-action model, all but both Q heads."""
    q_head: int


def segment_bytes(config: ModelConfig, length: int, item: int, recompute: bool) -> int:
    """Bytes kept for the backward pass of one segment of ``length`` steps in stage 2.

    ``item``: bytes a number of the computation, 4 for float32, 2 under autocast to bfloat16 (there the residual stream,
    the norms' inputs and the losses stay float32).  ``recompute``: of each block its input, and one block in full.
    """
    tokens, width = length * TOKENS_PER_STEP, config.width
    masks = 1 if config.dropout > 0 else 0
    # Two norm inputs in float32; two norm outputs, q, k, v, the mix; the MLP before and after GELU; dropout's masks.
    block = tokens * (width * (2 * 4 + (2 + 4 + 8) * item + 2 * masks) + 4 * config.heads + 2 * 2 * 4)
    blocks = config.layers * tokens * width * 4 + block if recompute else config.layers * block
    return blocks + tokens * width * (4 + masks) + _head_bytes(config, length, item)


def _head_bytes(config: ModelConfig, length: int, item: int) -> int:
    """The same of the heads and the losses."""
    frames, width = length * TOKENS_PER_FRAME, config.width
    world = frames * (width * 2 * item + config.vocab_size * 4) + length * 4 * width * item
    atoms = config.num_actions * config.num_atoms
    hidden = config.q_width * (4 * 4 + 3 * item)  # two norms in float32 and their products, what enters a layer
    return world + length * config.q_ensemble * (hidden + 4 * atoms)


@lru_cache
def frame_bytes(config: TokenizerConfig) -> int:
    """Bytes that the tokenizer keeps for the backward pass of one frame, in float32; from tensors without data."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(tensor)  # or a later one may get its address
        return tensor

    alive: list[Tensor] = []
    with torch.device("meta"), saved_tensors_hooks(note, lambda tensor: tensor):
        tokenizer = Tokenizer(config)
        x = torch.empty(1, 1, FRAME_SIZE, FRAME_SIZE)
        for module in (tokenizer.encoder, tokenizer.pre_quant_conv, tokenizer.post_quant_conv, tokenizer.decoder):
            x = module(x)
    weights = {parameter.untyped_storage()._cdata for parameter in tokenizer.parameters()}
    return sum(size for key, size in kept.items() if key not in weights)


def stage_bytes(
    config: TrainConfig, stage: int, counts: ParameterCounts, pieces: int, item: int, devices: int = 1
) -> float:
    """Bytes on each of ``devices`` that train ``config``, with its batch cut into ``pieces`` microbatches over all.

    ``item`` as for :func:`segment_bytes`.  Weights, gradients and Adam's moments (Muon has one a hidden matrix: less);
    the 16-bit copies of weights that autocast keeps; what a microbatch keeps, and its logits while the loss is
    differentiated.  With several devices,
    ``ddp`` keeps the gradients once more, in what it sends; ``fsdp`` divides weights, gradients and moments of the
    model, not of the tokenizer, and holds what it computes with whole; imagined segments take a whole model beside it.
    """
    length, model = config.data.segment_length, config.model
    trained = counts.world + (counts.q_head if stage == 2 else 0)
    fixed = (counts.world + 2 * counts.q_head) * WEIGHT + trained * (GRADIENT + ADAM)
    sharded = devices > 1 and config.parallel.strategy == "fsdp"
    buckets = GRADIENT if devices > 1 else 0
    if sharded:
        fixed = fixed // devices + gathered_bytes(model, counts)
        if stage == 2 and config.stage2.imagined != "none":
            fixed += (counts.world + 2 * counts.q_head) * WEIGHT
    else:
        fixed += trained * buckets
    copies = trained * item if item < WEIGHT else 0
    fixed += counts.tokenizer * WEIGHT + copies
    kept = segment_bytes(model, length, item, config.parallel.checkpoint_activations)
    # Twice more than what is kept of them: as they came out, and as a gradient.
    kept += length * TOKENS_PER_FRAME * model.vocab_size * (item + 4)
    batch = config.stage2.batch_size if stage == 2 else config.stage1.batch_size
    activations = kept * batch / pieces
    if config.trains_tokenizer(stage):
        fixed += counts.tokenizer * (GRADIENT + ADAM + buckets)
        # Convolutions read 16 bits where autocast is on, norms float32: about half and half.
        frames = frame_bytes(config.tokenizer) * (item + WEIGHT) / (2 * WEIGHT)
        activations = max(activations, frames * config.stage1.tokenizer_batch / pieces)
    return fixed + activations + REST


def gathered_bytes(config: ModelConfig, counts: ParameterCounts) -> int:
    """Bytes of whole weights that a sharded model holds at the worst moment: what is in no block all the time, and of
    the blocks and Q heads the one at work and the next; with the gradients of what is at work."""
    block = 12 * config.width**2 + 13 * config.width  # four projections and an MLP of 4 times the width, two norms
    largest = max(block, counts.q_head)
    rest = counts.world - config.layers * block
    return (rest + 2 * largest) * WEIGHT + (rest + largest) * GRADIENT
