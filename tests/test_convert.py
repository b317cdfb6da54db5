"""Published checkpoints become agent folders, or one clear sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from jowa.agent import Agent
from jowa.config import ModelConfig, TokenizerConfig
from jowa.convert import ConvertConfig, convert, main
from jowa.errors import CheckpointError, UsageError
from jowa.games import get_game
from jowa.model.published_checkpoint import _heads, read_model, read_tokenizer
from jowa.model.published_names import our_name, strip_prefixes

GOLDEN = Path(__file__).parent / "golden"
TOKENIZER, MODEL = GOLDEN / "tokenizer.pt", GOLDEN / "JOWA.pt"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return torch.load(MODEL, weights_only=True)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_convert_writes_an_agent_that_loads(tmp_path: Path) -> None:
    written = convert(ConvertConfig(TOKENIZER, MODEL, tmp_path / "agent", heads=4, v_min=-5, v_max=20))
    agent = Agent.load(tmp_path / "agent", device="cpu")
    assert agent.model.config == ModelConfig(
        layers=2, heads=4, width=64, q_width=48, q_ensemble=3, vocab_size=128, v_min=-5, v_max=20
    )
    assert agent.tokenizer.config == TokenizerConfig(vocab_size=128, code_dim=32, channels=16, z_channels=32)
    for ours, theirs in ((agent.model, written.model), (agent.tokenizer, written.tokenizer)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    assert agent.tasks["Phoenix"] == agent.task_id("Robotank") == get_game("Phoenix").task_id
    assert len(agent.tasks) == 15


def test_every_published_tensor_arrives(state: dict[str, torch.Tensor]) -> None:
    ours = read_model(MODEL, heads=4).state_dict()
    published = {name: value for name, value in state.items() if not name.endswith((".attn.mask", ".indices"))}
    assert len(published) == len(ours)
    assert all(torch.equal(value, ours[our_name(name)]) for name, value in published.items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("nest", [None, "model", "state_dict"])
def test_prefixes_and_nesting(tmp_path: Path, state, prefix: str, nest: str | None) -> None:
    renamed = {prefix + name: value for name, value in state.items()}
    extra = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(1)}}, "param_groups": []}}
    path = saved(tmp_path / "m.pt", renamed if nest is None else {nest: renamed, **extra})
    model = read_model(path, heads=4)
    assert torch.equal(model.position_embedding.weight, state["pos_emb.weight"])
    assert strip_prefixes(prefix + "pos_emb.weight") == "pos_emb.weight"


def test_one_file_may_hold_both_but_not_two_of_a_kind(tmp_path: Path, state) -> None:
    tokens = torch.load(TOKENIZER, weights_only=True)
    path = saved(tmp_path / "both.pt", {"tokenizer": tokens, "world_model": state})
    assert read_model(path, heads=4).config.width == 64 and read_tokenizer(path).config.vocab_size == 128
    path = saved(tmp_path / "two.pt", {"model": state, "ema": state})
    with pytest.raises(CheckpointError, match="several models, under model, ema"):
        read_model(path, heads=4)


def test_a_frozen_perceptual_network_and_half_precision_are_accepted(tmp_path: Path, state) -> None:
    tokens = torch.load(TOKENIZER, weights_only=True) | {"lpips.net.slice1.0.weight": torch.zeros(2)}
    assert read_tokenizer(saved(tmp_path / "t.pt", tokens)).config.channels == 16
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    assert read_model(saved(tmp_path / "m.pt", halves), heads=4).frame_embedding.weight.dtype == torch.float32


def test_names_that_are_missing_or_surplus_are_listed(tmp_path: Path, state) -> None:
    changed = {name: value for name, value in state.items() if name != "head_ends.head_module.2.bias"}
    path = saved(tmp_path / "m.pt", changed | {"extra.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"missing end_head\.2\.bias; surplus extra\.weight"):
        read_model(path, heads=4)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head_rewards.head_module.2.bias", torch.zeros(4), r"reward_head\.2\.bias has shape \(4,\)"),
        ("pos_emb.weight", torch.zeros(295, 64), "295 positions, expected a multiple of 37"),
        ("embedder.embedding_tables.0.weight", torch.zeros(6, 64), "6 actions"),
        ("embedder.embedding_tables.1.weight", torch.zeros(5), "sizes cannot be read off"),
        ("transformer.ln_f.weight", torch.full((64,), torch.nan), "NaN"),
        ("transformer.blocks.7.ln1.weight", torch.zeros(64), "missing transformer.blocks.2"),
    ],
)
def test_wrong_sizes_and_numbers(tmp_path: Path, state, name: str, value: torch.Tensor, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_model(saved(tmp_path / "m.pt", {**state, name: value}), heads=4)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pt"
    for content in (b"", b"hello", MODEL.read_bytes()[:5000], MODEL.read_bytes()[:-300]):
        garbage.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"garbage\.pt cannot be read as tensors alone"):
            read_model(garbage)
    unsafe = saved(tmp_path / "unsafe.pt", {"model": Path("x")})
    with pytest.raises(CheckpointError, match="no other Python objects"):
        read_model(unsafe)
    for content in ([1, 2], {}, {"a": 1}, {"model": {}}, torch.zeros(3)):
        with pytest.raises(CheckpointError, match="holds no model state dict"):
            read_model(saved(tmp_path / "odd.pt", content))
    with pytest.raises(CheckpointError, match="does not exist"):
        read_tokenizer(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="not a published tokenizer"):
        read_tokenizer(MODEL)


def test_heads_come_from_presets_or_the_option() -> None:
    assert [_heads(None, *size) for size in ((4, 512), (6, 768), (12, 768))] == [8, 12, 12]
    with pytest.raises(UsageError, match="name it with --heads"):
        read_model(MODEL)
    for heads in (0, 5, -4):
        with pytest.raises(UsageError, match=f"heads is {heads}: expected a divisor"):
            read_model(MODEL, heads=heads)
    with pytest.raises(UsageError, match="v-min"):
        read_model(MODEL, heads=4, v_min=3, v_max=3)


def test_the_two_files_must_belong_together_and_out_must_be_free(tmp_path: Path, state) -> None:
    other = {**state, "embedder.embedding_tables.1.weight": torch.zeros(64, 64)}
    other |= {
        f"head_observations.head_module.2.{k}": v
        for k, v in (("weight", torch.zeros(64, 64)), ("bias", torch.zeros(64)))
    }
    path = saved(tmp_path / "m.pt", other)
    with pytest.raises(CheckpointError, match=r"128 tokens .* expects 64"):
        convert(ConvertConfig(TOKENIZER, path, tmp_path / "agent", heads=4))
    assert not (tmp_path / "agent").exists()
    convert(ConvertConfig(TOKENIZER, MODEL, tmp_path / "agent", heads=4))
    with pytest.raises(UsageError, match="already holds an agent"):
        convert(ConvertConfig(TOKENIZER, MODEL, tmp_path / "agent", heads=4))
    with pytest.raises(UsageError, match="is a file"):
        convert(ConvertConfig(TOKENIZER, MODEL, path, heads=4))


def test_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    arguments = ["--tokenizer", str(TOKENIZER), "--model", str(MODEL), "--out", str(tmp_path / "agent")]
    for more, code in (([], 2), (["--heads", "4", "--model", "/nowhere.pt"], 1), (["--heads", "4"], 0)):
        monkeypatch.setattr(sys, "argv", ["jowa.convert", *arguments, *more])
        if code:
            with pytest.raises(SystemExit) as exit:
                main()
            assert exit.value.code == code
            assert capsys.readouterr().err.count("\n") == 1
        else:
            main()
    assert "2 layers, 4 heads, width 64" in capsys.readouterr().out
