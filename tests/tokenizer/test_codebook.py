"""The codebook of moving averages: its formula, its state, its peers, and that nothing else notices it."""

from __future__ import annotations

import runpy
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from jowa.agent import Agent
from jowa.config import PRESETS, TokenizerConfig, TokenizerLossConfig
from jowa.model import WorldActionModel
from jowa.tokenizer import CodebookStatistics, Tokenizer
from jowa.tokenizer.codebook import EmaCodebook

SMALL = TokenizerConfig("local", vocab_size=32, code_dim=8, channels=12)
WORKER = Path(__file__).with_name("codebook_worker.py")
statistics = runpy.run_path(str(WORKER))["statistics"]
EMA = TokenizerLossConfig(codebook="ema", ema_decay=0.9)


def frames(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def make(losses: TokenizerLossConfig | None = EMA) -> Tokenizer:
    torch.manual_seed(0)
    tokenizer = Tokenizer(SMALL, None, losses)
    torch.nn.init.normal_(tokenizer.embedding.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    return tokenizer


def test_codes_are_the_moving_averages_of_the_published_formula() -> None:
    codebook = EmaCodebook(6, 3, decay=0.9)
    torch.nn.init.normal_(codebook.weight)
    before = codebook.weight.clone()
    numbers, sums = torch.zeros(6), torch.zeros(6, 3)
    for seed in range(5):
        part = statistics(seed)
        codebook.update([part])
        numbers = 0.9 * numbers + 0.1 * part.counts
        sums = 0.9 * sums + 0.1 * part.sums
        chosen = numbers > 0
        torch.testing.assert_close(codebook.weight[chosen], sums[chosen] / numbers[chosen, None])
        assert torch.equal(codebook.weight[~chosen], before[~chosen]), "a code that was never chosen stays"


def test_parts_of_a_step_count_as_one_batch() -> None:
    whole, parts = EmaCodebook(6, 3, 0.9), EmaCodebook(6, 3, 0.9)
    for codebook in (whole, parts):
        torch.nn.init.zeros_(codebook.weight)
    first, second = statistics(1), statistics(2)
    whole.update([CodebookStatistics(first.counts + second.counts, first.sums + second.sums)])
    parts.update([first, second])
    assert torch.equal(whole.weight, parts.weight) and torch.equal(whole.counts, parts.counts)


def test_a_batch_that_is_not_finite_changes_nothing() -> None:
    codebook = EmaCodebook(6, 3, 0.9)
    torch.nn.init.normal_(codebook.weight)
    codebook.update([statistics(0)])
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    bad = statistics(1)
    bad.sums[2, 1] = torch.nan
    codebook.update([bad])
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())


def test_the_step_gathers_what_it_needs() -> None:
    """The statistics are the latents of each code; the latents are pulled as with gradient, the codes are not."""
    tokenizer, plain = make(), make(None)
    seen = frames(3)
    losses, same = tokenizer(seen), plain(seen)
    assert losses.commitment.item() == pytest.approx(same.commitment.item() / 2)
    losses.total.backward()
    same.total.backward()
    torch.testing.assert_close(tokenizer.encoder.patches.weight.grad, plain.encoder.patches.weight.grad)
    latents = tokenizer.latents(seen).permute(0, 2, 3, 1).reshape(-1, 8)
    tokens = tokenizer.encode(seen).flatten()
    assert losses.statistics is not None and not losses.statistics.sums.requires_grad
    for code in range(32):
        chosen = latents[tokens == code]
        assert losses.statistics.counts[code] == len(chosen)
        torch.testing.assert_close(losses.statistics.sums[code], chosen.sum(0), rtol=1e-4, atol=1e-5)
    tokenizer.update_codebook([losses.statistics])
    code = int(tokens[0])
    torch.testing.assert_close(tokenizer.embedding.weight[code], latents[tokens == code].mean(0), rtol=1e-4, atol=1e-5)
    plain.update_codebook([same.statistics])  # nothing to do, and nothing breaks


def test_no_optimizer_and_no_wrapper_waits_for_the_codes() -> None:
    tokenizer = make().requires_grad_(True)
    assert "embedding.weight" not in dict(tokenizer.named_parameters())
    tokenizer(frames(2)).total.backward()
    assert all(parameter.grad is not None for parameter in tokenizer.parameters())


def test_the_state_holds_the_averages_and_resumes_to_the_last_bit() -> None:
    def step(tokenizer: Tokenizer, seed: int) -> None:
        tokenizer.update_codebook([tokenizer(frames(2, seed)).statistics])

    straight, stopped = make(), make()
    step(straight, 1)
    step(stopped, 1)
    assert set(straight.state_dict()) - set(make(None).state_dict()) == {"embedding.counts"}
    resumed = make()
    resumed.load_state_dict(stopped.state_dict())
    step(straight, 2)
    step(resumed, 2)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_either_codebook_loads_what_the_other_saved() -> None:
    averaged, plain = make(), make(None)
    averaged.update_codebook([averaged(frames(2)).statistics])
    plain.load_state_dict(averaged.state_dict())
    assert torch.equal(plain.encode(frames(4, 5)), averaged.encode(frames(4, 5)))
    assert plain.fingerprint() == averaged.fingerprint(), "the counts decide no token"
    averaged.load_state_dict(make(None).state_dict())
    assert not averaged.embedding.counts.any(), "the first batch counts in full"


def test_an_agent_keeps_the_codes_alone(tmp_path: Path) -> None:
    preset = PRESETS["tiny"]
    torch.manual_seed(0)
    tokenizer = Tokenizer(preset.tokenizer, None, EMA)
    Agent(tokenizer, WorldActionModel(preset.model), {"Pong": 39}).save(tmp_path)
    loaded = Agent.load(tmp_path, "cpu").tokenizer
    assert set(loaded.state_dict()) == set(Tokenizer(preset.tokenizer).state_dict())
    assert torch.equal(loaded.encode(frames(2)), tokenizer.encode(frames(2)))


def test_a_revived_code_takes_the_mean_of_the_first_latents_that_choose_it() -> None:
    tokenizer = make()
    with torch.no_grad():
        tokenizer.embedding.weight[5:] = 1e6  # out of reach, so among the first five at least one is in use
        tokenizer.embedding.counts.fill_(100.0)
    used = int(tokenizer.encode(frames(4))[0, 0])
    tokenizer.revive_dead_codes(frames(4), torch.Generator().manual_seed(0))
    tokens = tokenizer.encode(frames(4)).flatten()
    latents = tokenizer.latents(frames(4)).permute(0, 2, 3, 1).reshape(-1, 8)
    code = int(tokens[tokens >= 5][0])
    assert tokenizer.embedding.counts[code] == 0 and tokenizer.embedding.counts[used] == 100
    tokenizer.update_codebook([tokenizer(frames(4)).statistics])
    torch.testing.assert_close(tokenizer.embedding.weight[code], latents[tokens == code].mean(0), rtol=1e-4, atol=1e-5)


def test_two_processes_keep_the_codes_of_one(command: Any, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    jobs = [
        {
            "run": str(WORKER),
            "arguments": [str(tmp_path / f"{rank}.pt")],
            "env": environment | {"RANK": str(rank)},
        }
        for rank in range(2)
    ]
    for done in command.together(jobs):
        assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = EmaCodebook(6, 3, 0.9)
    torch.nn.init.ones_(alone.weight)
    for step in range(3):
        alone.update([statistics(2 * step), statistics(2 * step + 1)])
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first[name], value)
