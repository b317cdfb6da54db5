"""A whole decision on one device against the planner that asks the host at every level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planner_cases import on, ragged_context, vivid_model

from jowa.planner import BeamPlanner, PlannerConfig
from jowa.planner.device_beam import DeviceBeam
from jowa.planner.rollout import Rollout
from jowa.planner.torch_engine import TorchEngine
from jowa.planner.tree import native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="the native core was not built")

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
GPU = pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize(("draft", "td_lambda"), [("off", 1.0), ("last-change", 1.0), ("off", 0.25)])
def test_it_decides_as_the_planner_does(device: str, draft: str, td_lambda: float) -> None:
    model, context = vivid_model().to(device), on(ragged_context(), device)
    config = PlannerConfig("beam", 3, 2, 0.9, draft=draft, td_lambda=td_lambda)  # type: ignore[arg-type]
    configs = [PlannerConfig("beam", width, horizon, 0.9, uncertainty=caution, td_lambda=td_lambda)
               for width, horizon, caution in ((3, 2, 0.0), (2, 1, 0.5), (1, 2, 0.0), (3, 0, 1.0))]  # fmt: skip
    expected = BeamPlanner(model, config, engine=TorchEngine(model)).plan(context, keep_frames=True, configs=configs)
    caution = torch.tensor([one.uncertainty for one in configs], device=device)
    widths, horizons = (np.array([getattr(one, name) for one in configs]) for name in ("width", "horizon"))
    rollout = Rollout(model, config, engine=TorchEngine(model))
    beam = DeviceBeam(rollout, config, widths, horizons, caution, steps=4)
    for _ in range(3):  # on a GPU the second is a replay
        decision = beam.decide(context)
        assert bool(decision.complete)
        assert decision.actions.tolist() == expected.actions.tolist()
        np.testing.assert_allclose(decision.scores.cpu(), expected.scores, rtol=1e-4, atol=1e-4)
        legal = context.legal.cpu().numpy()
        np.testing.assert_allclose(decision.q.cpu().numpy()[legal], expected.q[legal], rtol=1e-4, atol=1e-4)
        frames = [tokens[root][valid[root]] for root in range(4) for valid, tokens in decision.levels]
        assert expected.frames is not None
        np.testing.assert_array_equal(torch.cat(frames).cpu().numpy(), expected.frames)


@pytest.mark.parametrize("draft", ["off", "copy"])
def test_the_planner_may_stay_on_the_device(model, context, monkeypatch: pytest.MonkeyPatch, draft: str) -> None:
    """What a planner does on a GPU, on the CPU: from the second decision of one shape on, also when guesses fail."""
    config = PlannerConfig("beam", 3, 2, 0.9, draft=draft)  # type: ignore[arg-type]
    expected = BeamPlanner(model, config, engine=TorchEngine(model)).plan(context, keep_frames=True)
    monkeypatch.setattr("jowa.planner.beam.may_stay_on_device", lambda rollout: True)
    planner = BeamPlanner(model, config, engine=TorchEngine(model))
    for _ in range(3):
        plan = planner.plan(context, keep_frames=True)
        assert plan.actions.tolist() == expected.actions.tolist()
        np.testing.assert_allclose(plan.candidate_scores, expected.candidate_scores, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(plan.candidate_actions, expected.candidate_actions)
        np.testing.assert_array_equal(plan.frames, expected.frames)
        np.testing.assert_array_equal(plan.nodes["action"], expected.nodes["action"])
    assert planner.rollout.engine.encoded > 3, "who shares the engine sees that it was used"
    assert planner._on_device is not None and len(planner._on_device.beams) == (2 if draft == "copy" else 1)


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_too_few_passes_are_noticed(device: str) -> None:
    model, context = vivid_model().to(device), on(ragged_context(), device)
    config = PlannerConfig("beam", 2, 1, 0.9, draft="copy")
    ones = np.ones(4, dtype=np.int64)
    beam = DeviceBeam(Rollout(model, config, engine=TorchEngine(model)), config, 2 * ones, ones,
                      torch.zeros(4, device=device), steps=3, passes=2)  # fmt: skip
    assert not bool(beam.decide(context).complete)
