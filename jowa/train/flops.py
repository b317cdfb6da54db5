"""How much arithmetic a training step is, how fast this device does arithmetic, and the ratio: utilisation.

Counted is what the model needs, by the usual convention (2 for a multiply and add; matrix products, attention and
convolutions alone): a backward pass is twice its forward pass, less the gradients that nobody asks for.  What is
computed a second time to save memory is not counted.  Causal attention counts the pairs that it sees, T (T + 1) / 2.
"""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from jowa.config import TOKENS_PER_FRAME, TOKENS_PER_STEP, ModelConfig, TokenizerConfig
from jowa.model.heads import END_CLASSES, REWARD_CLASSES
from jowa.tokenizer import Tokenizer
from jowa.train.config import TrainConfig


def model_flops_per_step(config: TrainConfig, stage: int) -> int:
    """Operations of one optimizer step of ``stage`` over the whole batch, all processes together.

    Stage 1: of a step in which the world model trains too; without the tokenizer's perceptual term.  Imagined segments
    are not counted.
    """
    length = config.data.segment_length
    if stage == 2:
        segments = config.stage2.batch_size
        operations = segments * critic_flops(config.model, length, config.objective.detach_q)
    else:
        segments = config.stage1.batch_size
        operations = segments * world_flops(config.model, length)
    if config.trains_tokenizer(stage):
        frames = config.stage1.tokenizer_batch // length * length
        operations += frames * tokenizer_flops(config.tokenizer)
        operations += segments * length * encoding_flops(config.tokenizer)  # by the tokenizer of the moment
    return operations


def world_flops(config: ModelConfig, length: int, pairs: int | None = None) -> int:
    """Of the world model on one segment of ``length`` steps, forward and backward.

    ``pairs``: of positions for which attention computes a score; by default those that it sees.
    """
    return 3 * _world_forward(config, length, pairs)


def critic_flops(config: ModelConfig, length: int, detach_q: bool = False, pairs: int | None = None) -> int:
    """Of world model and critic on one segment: the Q head forward and backward, its target copy forward."""
    head = length * _q_head(config)
    first = 2 * length * config.q_ensemble * config.width * config.q_width
    return world_flops(config, length, pairs) + 4 * head - (first if detach_q else 0)


def _world_forward(config: ModelConfig, length: int, pairs: int | None) -> int:
    tokens, width = length * TOKENS_PER_STEP, config.width
    seen = tokens * (tokens + 1) // 2 if pairs is None else pairs
    block = tokens * 12 * width * width + 2 * seen * width  # q, k, v, output, an MLP of 4 times the width; scores, mix
    heads = length * TOKENS_PER_FRAME * (width * width + width * config.vocab_size)
    heads += length * (2 * width * width + width * (REWARD_CLASSES + END_CLASSES))
    return 2 * (config.layers * block + heads)


def _q_head(config: ModelConfig) -> int:
    hidden = config.q_width
    products = config.width * hidden + hidden * hidden + hidden * config.num_actions * config.num_atoms
    return 2 * config.q_ensemble * products


def tokenizer_flops(config: TokenizerConfig) -> int:
    """Of the tokenizer on one frame, forward and backward."""
    encoding, decoding, first = _tokenizer_forward(config)
    return 3 * (encoding + decoding) - first + _lookup(config)  # nobody asks for the frame's own gradient


def encoding_flops(config: TokenizerConfig) -> int:
    """Of turning one frame into tokens."""
    return _tokenizer_forward(config)[0] + _lookup(config)


def _lookup(config: TokenizerConfig) -> int:
    return 2 * TOKENS_PER_FRAME * config.vocab_size * config.code_dim


@lru_cache
def _tokenizer_forward(config: TokenizerConfig) -> tuple[int, int, int]:
    """Forward, a frame: the encoder, the decoder, and the encoder's first layer; counted on tensors without data."""
    with torch.device("meta"), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.no_grad():
        tokenizer = Tokenizer(config)
        pixels = torch.empty(1, 1, 84, 84)
        first = next((module for module in tokenizer.encoder.modules() if isinstance(module, torch.nn.Conv2d)), None)
        counts = []
        for module in (tokenizer.encoder, tokenizer.pre_quant_conv, tokenizer.post_quant_conv, tokenizer.decoder):
            with FlopCounterMode(display=False) as counter:
                pixels = module(pixels)
            counts.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            if first is not None:
                first(torch.empty(1, 1, 84, 84))
    return counts[0] + counts[1], counts[2] + counts[3], counter.get_total_flops()


def measured_ceiling(device: torch.device, dtype: torch.dtype | None, seconds: float = 0.3) -> float:
    """Operations a second of the best of many large matrix products on ``device``, in ``dtype`` (None: float32)."""
    cuda = device.type == "cuda"
    size = 8192 if cuda else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype or torch.float32) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)  # the first one also loads the library
    best, ends = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        if cuda:
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        torch.mm(a, b, out=out)
        if cuda:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def utilisation(config: TrainConfig, stage: int, seconds: float, ceiling: float, world: int = 1) -> float:
    """Model FLOPs utilisation: the share of ``ceiling`` (a device's) that steps of ``seconds`` on ``world`` use."""
    return model_flops_per_step(config, stage) / (seconds * ceiling * world)
