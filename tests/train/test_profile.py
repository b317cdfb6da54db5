"""--profile-steps: the trace, the table, and that nothing of it is left."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from jowa.model.objective import target_counts
from jowa.train.profile import PARTS, WARM_UP, named_parts, shares


def test_both_stages_are_profiled_and_train_as_without(
    small_config: Any, run_trainer: Any, assert_same_state: Any, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    changes = {"stage1.steps": WARM_UP + 3, "stage2.steps": WARM_UP + 2, "profile_steps": 2, "stage1.world_from": 0}
    profiled = run_trainer(small_config(changes | {"out": tmp_path / "profiled"}))
    printed = capsys.readouterr().out
    plain = run_trainer(small_config(changes | {"out": tmp_path / "plain", "profile_steps": 0}))
    assert_same_state(profiled._state(), plain._state())

    names = [f"stage1-step-{WARM_UP:08d}.json", f"stage2-step-{2 * WARM_UP + 3:08d}.json"]
    traces = sorted((tmp_path / "profiled" / "profile").iterdir())
    assert [path.name for path in traces] == names and not (tmp_path / "plain" / "profile").exists()
    for path in traces:
        found = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
        assert {"data", "embedding", "attention", "MLP", "heads", "backward", "clip", "optimizer"} <= found
    assert printed.count("2 steps") == 2 and "target head" in printed and "tokenizer" in printed
    assert not profiled.objective._forward_hooks and "embed" not in vars(profiled.model)


def test_a_range_is_counted_once(small_config: Any, alone: Any) -> None:
    """What is inside another range is not counted in it, and all of them together take no longer than the whole."""
    from jowa.train.loop import Trainer

    objective = Trainer(small_config(), alone).objective
    with torch.profiler.profile() as taken, named_parts(objective):
        model = objective.model
        tokens = torch.zeros(2, 4, 36, dtype=torch.int64)
        with torch.profiler.record_function("outside"):
            model(tokens, tokens[:, :, 0], torch.zeros(2, dtype=torch.int64), target=True)
    found = shares(taken.events(), torch.device("cpu"))
    outside = next(event.cpu_time_total for event in taken.events() if event.name == "outside") / 1e6
    assert set(found) == set(PARTS) and min(found.values()) >= 0
    assert all(found[name] > 0 for name in ("embedding", "attention", "MLP", "heads", "target head"))
    assert 0.5 * outside < sum(found.values()) <= outside


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_compiled_is_named_from_outside(small_config: Any, alone: Any, whole: bool) -> None:
    """As :func:`compile_objective` compiles, but with a backend that compiles nothing: no hook gets into a graph."""
    from jowa.train.feed import Feed
    from jowa.train.loop import Trainer

    config = small_config({"stage1.steps": 0})
    feed, trainer = Feed(config, alone), Trainer(config, alone)
    feed.encode(trainer.tokenizer, None)
    batch, objective, model = feed.tokens(0), trainer.objective, trainer.objective.model
    counts = target_counts(batch, critic=True)
    parts = [objective] if whole else [*model.transformer.blocks, model.q_head, model.q_target_head]
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    for part in parts:
        part.compile(backend=backend, fullgraph=True, dynamic=False)
    objective(batch, critic=True, counts=counts)
    before, compiled = len(graphs), [part._compiled_call_impl for part in parts]
    with torch.profiler.profile() as taken, named_parts(objective):
        objective(batch, critic=True, counts=counts)
    found = {name for name, seconds in shares(taken.events(), torch.device("cpu")).items() if seconds}
    outside = {"losses", "rest of the model", "embedding", "block, compiled", "heads", "target head"}
    assert found == ({"losses, compiled"} if whole else outside)
    objective(batch, critic=True, counts=counts)
    assert len(graphs) == before, "the profile made something compile anew"
    assert [part._compiled_call_impl for part in parts] == compiled
    assert "embed" not in vars(model) and not any(module._forward_hooks for module in objective.modules())


@pytest.mark.parametrize("steps", [2, 100])
def test_saving_is_no_part_of_a_step(
    small_config: Any, run_trainer: Any, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    from jowa.train.loop import Trainer

    profiled = []
    monkeypatch.setattr(Trainer, "save", lambda *_, **__: profiled.append(torch._C._autograd._profiler_enabled()))
    end = WARM_UP + 2
    run_trainer(small_config(
        {"stage1.steps": end, "stage2.steps": end, "stage1.world_from": 0, "profile_steps": steps,
         "checkpoint.every": end}
    ))  # fmt: skip
    assert profiled == [False, False]
