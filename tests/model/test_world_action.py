"""The joint model: sizes, causality, which positions feed which head, dropout, the target head."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch

from jowa.config import PRESETS, ModelConfig
from jowa.errors import CheckpointError, UsageError
from jowa.model import WorldActionModel, carry_over, code_embeddings
from jowa.model.__main__ import count_parameters
from jowa.model.heads import expectation, q_distribution
from jowa.model.layout import action_positions, frame_head_positions, interleave, value_positions
from jowa.model.published_names import check_names

SMALL = ModelConfig(layers=2, heads=2, width=16, q_width=12, q_ensemble=2, vocab_size=20, context_steps=4, num_tasks=5)


def make(**changes: object) -> WorldActionModel:
    """A small model whose weights are large enough that every input matters."""
    torch.manual_seed(0)
    model = WorldActionModel(dataclasses.replace(SMALL, **changes))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    model.update_target()
    return model.eval()


def inputs(steps: int = 4, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(20, (batch, steps, 36), generator=generator)
    return tokens, torch.randint(18, (batch, steps), generator=generator), torch.arange(batch) % 5


@pytest.mark.parametrize(
    ("preset", "tokenizer", "model"),
    [("tiny", 0.20, 2.08), ("40M", 4.05, 19.11), ("70M", 4.05, 85.25), ("150M", 4.05, 127.78), ("400M", 4.05, 402.64)],
)
def test_parameter_counts_in_millions(preset: str, tokenizer: float, model: float) -> None:
    found = [count / 1e6 for count in count_parameters(PRESETS[preset])]
    assert found == [pytest.approx(tokenizer, abs=0.006), pytest.approx(model, abs=0.006)]


def test_every_presets_size_is_printed(command: Any) -> None:
    done = command("jowa.model")
    assert done.returncode == 0, done.stderr
    assert re.search(r"150M +12 +768 +4\.05M +127\.78M\n", done.stdout) and len(done.stdout.splitlines()) == 6


def test_every_preset_joins_fitting_networks() -> None:
    for preset in PRESETS.values():
        assert preset.tokenizer.vocab_size == preset.model.vocab_size
        assert preset.model.width % preset.model.heads == 0
    with pytest.raises(UsageError, match="width 16 is not a multiple of heads 3"):
        make(heads=3)


def test_layout() -> None:
    assert action_positions(3).tolist() == [36, 73, 110]
    assert value_positions(3).tolist() == [35, 72, 109]
    for steps in range(1, 9):
        assert frame_head_positions(steps).tolist() == [p for p in range(37 * steps) if p % 37 != 35]
    joined = interleave(torch.zeros(1, 2, 36, 1), torch.ones(1, 2, 1))
    assert joined.flatten().nonzero().flatten().tolist() == [36, 73]


def test_shapes() -> None:
    found = make()(*inputs(steps=3), target=True)
    assert found.frames.shape == (2, 108, 20) and found.rewards.shape == (2, 3, 3) and found.ends.shape == (2, 3, 2)
    assert found.q.shape == found.q_target.shape == (2, 2, 3, 18, 51)
    assert make()(*inputs()).q_target is None


def affected(before: torch.Tensor, after: torch.Tensor) -> list[bool]:
    return ((before - after).flatten(1).abs().amax(1) > 1e-5).tolist()


@pytest.mark.parametrize("place", [0, 20, 35, 36, 37, 73, 100])
def test_causality(place: int) -> None:
    """A changed token changes every prediction from its own position on, and none before."""
    model = make()
    tokens, actions, tasks = inputs(steps=3, batch=1)
    step, offset = divmod(place, 37)
    other_tokens, other_actions = tokens.clone(), actions.clone()
    if offset == 36:
        other_actions[0, step] = (actions[0, step] + 1) % 18
    else:
        other_tokens[0, step, offset] = (tokens[0, step, offset] + 1) % 20
    before, after = model(tokens, actions, tasks), model(other_tokens, other_actions, tasks)
    assert affected(before.frames[0], after.frames[0]) == [p >= place for p in frame_head_positions(3).tolist()]
    assert affected(before.rewards[0], after.rewards[0]) == [p >= place for p in action_positions(3).tolist()]
    assert affected(before.ends[0], after.ends[0]) == [p >= place for p in action_positions(3).tolist()]
    assert affected(before.q[:, 0].transpose(0, 1), after.q[:, 0].transpose(0, 1)) == [
        p >= place for p in value_positions(3).tolist()
    ]


def test_q_is_known_before_the_action() -> None:
    model = make()
    tokens, actions, tasks = inputs(steps=1)
    assert torch.equal(model(tokens, actions, tasks).q, model(tokens, (actions + 1) % 18, tasks).q)


def test_a_prefix_predicts_as_the_whole_does() -> None:
    model = make()
    tokens, actions, tasks = inputs()
    whole, part = model(tokens, actions, tasks), model(tokens[:, :2], actions[:, :2], tasks)
    torch.testing.assert_close(part.frames, whole.frames[:, :72])
    torch.testing.assert_close(part.q, whole.q[:, :, :2])


def gradients(model: WorldActionModel, **options: bool) -> set[str]:
    """Parameters that the Q loss moves."""
    model(*inputs(), **options).q.pow(2).sum().backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_detach_q_stops_the_gradient_at_the_backbone() -> None:
    alone = gradients(make(), detach_q=True)
    assert alone and all(name.startswith("q_head.") for name in alone)
    joint = gradients(make(), detach_q=False)
    assert joint >= alone | {
        "frame_embedding.weight",
        "transformer.blocks.0.attn.query.weight",
        "position_embedding.weight",
    }
    assert not any(name.startswith(("q_target", "frame_head", "reward_head", "end_head")) for name in joint)


def test_task_embedding_and_its_ablation() -> None:
    tokens, actions, tasks = inputs()
    other = (tasks + 1) % 5
    assert not torch.allclose(make()(tokens, actions, tasks).q, make()(tokens, actions, other).q)
    off = make(task_embedding=False)
    assert torch.equal(off(tokens, actions, tasks).q, off(tokens, actions, other).q)
    assert torch.equal(off(tokens, actions, tasks).frames, off(tokens, actions, other).frames)
    assert "frame_task_embedding.weight" not in gradients(off)


def test_q_dropout_is_never_on_in_the_target_nor_in_evaluation() -> None:
    """The published code left it on in both."""
    model = make(dropout=0.0, q_dropout=0.5)
    first, second = model(*inputs(), target=True), model(*inputs(), target=True)
    assert torch.equal(first.q, second.q) and torch.equal(first.q_target, second.q_target)
    assert torch.equal(first.q, first.q_target), "just updated"
    model.train()
    trained, again = model(*inputs(), target=True), model(*inputs(), target=True)
    assert not torch.equal(trained.q, again.q), "dropout is on where it trains"
    assert torch.equal(trained.q_target, again.q_target) and torch.equal(trained.q_target, first.q_target)
    assert not model.q_target_head.training and model.q_head.training


def test_dropout_on_the_backbone() -> None:
    model = make(dropout=0.5).train()
    assert not torch.equal(model(*inputs()).frames, model(*inputs()).frames)
    model.eval()
    assert torch.equal(model(*inputs()).frames, model(*inputs()).frames)


def test_target_update() -> None:
    model = make()
    old = model.q_target_head.linear1.weight.clone()
    with torch.no_grad():
        model.q_head.linear1.weight.add_(1.0)
    assert not torch.equal(model(*inputs(), target=True).q_target, model(*inputs()).q), "only update_target moves it"
    model.update_target(0.25)
    torch.testing.assert_close(model.q_target_head.linear1.weight, old + 0.25)
    model.update_target()
    for target, source in zip(model.q_target_head.parameters(), model.q_head.parameters(), strict=True):
        assert torch.equal(target, source) and not target.requires_grad


def test_ensemble_members_are_separate_and_averaged_as_distributions() -> None:
    model = make()
    hidden = torch.randn(3, 16)
    logits = model.q_head(hidden)
    head = model.q_head
    for member in range(2):
        x = hidden @ head.linear1.weight[member].T + head.linear1.bias[member]
        x = torch.nn.functional.mish(
            torch.nn.functional.layer_norm(x, (12,), head.norm1.weight[member], head.norm1.bias[member])
        )
        x = x @ head.linear2.weight[member].T + head.linear2.bias[member]
        x = torch.nn.functional.mish(
            torch.nn.functional.layer_norm(x, (12,), head.norm2.weight[member], head.norm2.bias[member])
        )
        x = x @ head.linear3.weight[member].T + head.linear3.bias[member]
        torch.testing.assert_close(logits[member], x.view(3, 18, 51), rtol=1e-4, atol=1e-5)
    mean = (logits[0].softmax(-1) + logits[1].softmax(-1)) / 2
    torch.testing.assert_close(q_distribution(logits), mean)
    torch.testing.assert_close(expectation(mean, -10, 30), mean @ torch.linspace(-10, 30, 51))
    torch.testing.assert_close(model.q_values(hidden), mean @ torch.linspace(-10, 30, 51), rtol=1e-4, atol=1e-4)


def test_where_q_starts() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(5, 16)
    plain = WorldActionModel(SMALL).q_values(hidden)
    started = WorldActionModel(dataclasses.replace(SMALL, q_init=2.0)).q_values(hidden)
    assert (plain - 10).abs().max() < 1 and (started - 2).abs().max() < 0.2


def test_check_names_lists_both_sides() -> None:
    check_names(["a", "b"], ["b", "a"], "here")
    with pytest.raises(CheckpointError, match=r"here does not hold .*: missing b; surplus c, d"):
        check_names(["a", "c", "d"], ["a", "b"], "here")


def test_how_weights_start() -> None:
    sizes = dataclasses.replace(SMALL, width=64, layers=2)
    published, scaled = (WorldActionModel(dataclasses.replace(sizes, init=init)) for init in ("published", "scaled"))
    block = scaled.transformer.blocks[0]
    assert published.transformer.blocks[0].attn.query.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert published.frame_embedding.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert block.attn.query.weight.std().item() == pytest.approx(64**-0.5, rel=0.1)
    assert block.attn.proj.weight.std().item() == pytest.approx(64**-0.5 / 2, rel=0.1)
    assert block.mlp[2].weight.std().item() == pytest.approx(256**-0.5 / 2, rel=0.1)
    assert scaled.frame_embedding.weight.std().item() == pytest.approx(0.5, rel=0.1)
    assert block.attn.query.bias.abs().max() == 0


def test_autocast_does_not_round_q() -> None:
    probabilities = torch.randn(3, 18, 51).softmax(-1)
    exact = expectation(probabilities.double(), -10.0, 30.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = expectation(probabilities, -10.0, 30.0)
    assert q.dtype == torch.float32
    assert (q - exact).abs().max() < 1e-4, "bfloat16 would be off by up to 0.06"


def test_similar_codes_start_with_similar_embeddings() -> None:
    """A ball of two pixels shows, whatever the brightness behind it, and more so the more it differs."""
    codes = torch.full((40, 196), -1.0)
    codes[20:] = 0.9
    for place in range(1, 20):
        codes[[place, 20 + place], 10 * place] += 0.4
        codes[[place, 20 + place], 10 * place + 1] += 0.4
    table = torch.randn(40, 64) * 0.5
    start = code_embeddings(codes, table, torch.Generator().manual_seed(0))
    assert start.shape == table.shape and start.std().item() == pytest.approx(table.std().item(), rel=1e-3)
    ball, background = (start[1:20] - start[:1]).norm(dim=1), (start[0] - start[20]).norm()
    plain = (codes - codes.mean(0)) @ torch.randn(196, 64, generator=torch.Generator().manual_seed(0))
    assert ball.mean() / background > 2 * (plain[1:20] - plain[:1]).norm(dim=1).mean() / (plain[0] - plain[20]).norm()
    twice = torch.cdist(start[1:2], start)[0]
    assert twice[0] < twice[2:20].mean() < twice[20:].mean()


def test_a_code_that_moves_takes_what_the_model_knows_of_its_patch() -> None:
    """Rows that follow from the codes, but for noise: a moved code's row is what follows from its new patch."""
    generator = torch.Generator().manual_seed(0)
    codes, weights = torch.randn(200, 12, generator=generator), torch.randn(12, 16, generator=generator)
    table = codes @ weights + 3.0 + 0.1 * torch.randn(200, 16, generator=generator)
    after = codes.clone()
    after[150:] = torch.randn(50, 12, generator=generator)
    carried, wanted = carry_over(table, codes, after), after @ weights + 3.0
    assert torch.equal(carried[:150], table[:150])
    assert (carried[150:] - wanted[150:]).std() < 0.15 * (table[150:] - wanted[150:]).std()
    assert torch.equal(carry_over(table, codes, codes), table)
    elsewhere = torch.randn(200, 12, generator=generator)
    assert (carry_over(table, codes, elsewhere) - elsewhere @ weights - 3.0).std() < 0.2 * table.std(), "all have moved"
