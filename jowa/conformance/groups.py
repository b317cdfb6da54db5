"""What is computed for each group of cases, always through the code that trains and plays.

Every group takes the *expected* tokens as its input, so that a fault shows in its own row only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from jowa.config import FRAME_SIZE
from jowa.conformance.cases import Cases, PlannerCase
from jowa.conformance.compare import Result, Tolerance
from jowa.errors import DataError
from jowa.model.objective import Objective
from jowa.model.published_names import our_name
from jowa.planner import BeamPlanner, Context, Imagination, Plan, PlannerConfig

IMAGINED_FROM = 5
"""Frames in memory when the recorded imagination starts; its actions are the row's from the fifth on."""
LOSS_SCALE = {torch.float16: 1024.0}
"""Gradients are taken of the loss times this, so that small ones do not vanish in float16."""

Precision = torch.dtype | None
"""The autocast dtype; None is float32."""


def _tokens(cases: Cases, tolerance: Tolerance, precision: Precision, result: Result) -> None:
    with _autocast(cases, precision):
        tokens = cases.tokenizer.encode(_frames(cases))
    result.equal("tokens", tokens.cpu(), cases.expected["tokens"], tolerance.share)


@torch.no_grad()
def _reconstruction(cases: Cases, tolerance: Tolerance, precision: Precision, result: Result) -> None:
    expected = cases.expected["reconstruction"]
    tokens = cases.batch.tokens
    assert tokens is not None
    # decode() clamps to what a screen shows; the recorded reconstruction is the network's own output.
    with _autocast(cases, precision):
        pixels = cases.tokenizer.decode_unclamped(tokens[:, : expected.shape[1]])
    result.floats(
        "reconstruction", _array(pixels).reshape(*pixels.shape[:2], 1, FRAME_SIZE, FRAME_SIZE), expected, tolerance
    )


def _tokenizer_losses(cases: Cases, tolerance: Tolerance, precision: Precision, result: Result) -> None:
    with torch.no_grad(), _autocast(cases, precision):
        losses = cases.tokenizer(_frames(cases).flatten(0, 1))
    for name in ("reconstruction", "commitment", "perceptual"):
        key = f"tokenizer_loss/{name}_loss"
        result.floats(key, _array(getattr(losses, name)), cases.expected[key], tolerance)


@torch.no_grad()
def _logits(cases: Cases, tolerance: Tolerance, precision: Precision, result: Result) -> None:
    batch = cases.batch
    with _autocast(cases, precision):
        predictions = cases.model(batch.tokens, batch.actions, batch.tasks, target=True)
    computed = {
        "observations": predictions.frames,
        "rewards": predictions.rewards,
        "ends": predictions.ends,
        "q": predictions.q.flatten(-2),
        "q_target": predictions.q_target.flatten(-2),
    }
    for name, logits in computed.items():
        result.floats(f"logits_{name}", _array(logits), cases.expected[f"logits_{name}"], tolerance)


LOSS_NAMES = {
    "frame": "loss_obs",
    "reward": "loss_rewards",
    "end": "loss_ends",
    "td": "loss_td_error",
    "cql": "loss_cql_penalty",
}
"""Ours and the recorded ones."""


def _losses(critic: bool) -> Callable[[Cases, Tolerance, Precision, Result], None]:
    stage = "joint" if critic else "world"

    def compare(cases: Cases, tolerance: Tolerance, precision: Precision, result: Result) -> None:
        with torch.no_grad(), _autocast(cases, precision):
            losses = Objective(cases.model, cases.objective)(cases.batch, critic)
        for name, loss in {**losses, "total": sum(losses.values())}.items():
            key = f"{stage}/{LOSS_NAMES.get(name, name)}"
            result.floats(key, _array(loss), cases.expected[key], tolerance)

    return compare


def _gradients(critic: bool) -> Callable[[Cases, Tolerance, Precision, Result], None]:
    prefix = f"{'joint' if critic else 'world'}/grad_norm/"

    def compare(cases: Cases, tolerance: Tolerance, precision: Precision, result: Result) -> None:
        parameters = dict(cases.model.named_parameters())
        scale = LOSS_SCALE.get(precision, 1.0) if precision else 1.0
        cases.model.zero_grad(set_to_none=True)
        with torch.enable_grad(), _autocast(cases, precision):
            total = torch.stack(list(Objective(cases.model, cases.objective)(cases.batch, critic).values())).sum()
        torch.autograd.backward(total * scale)
        computed, expected = [], []
        for key in cases.expected:
            if key.startswith(prefix):
                name = our_name(key.removeprefix(prefix))
                if name not in parameters:
                    raise DataError(f"{cases.expected.path}: {key} is no parameter of this model")
                gradient = parameters[name].grad
                computed.append(0.0 if gradient is None else float(gradient.double().norm()) / scale)
                expected.append(float(cases.expected[key]))
        cases.model.zero_grad(set_to_none=True)
        if expected:
            result.floats(prefix + "*", np.array(computed), np.array(expected), tolerance)

    return compare


def _imagination(cases: Cases, tolerance: Tolerance, precision: Precision, result: Result) -> None:
    for row in sorted({int(key.split("/")[1]) for key in cases.expected if key.startswith("imagine/")}):
        if not 0 <= row < len(cases.batch.actions):
            raise DataError(f"{cases.expected.path}: imagine/{row} is of a row that inputs.npz does not have")
        _imagine_row(cases, row, tolerance, precision, result)


def _imagine_row(cases: Cases, row: int, tolerance: Tolerance, precision: Precision, result: Result) -> None:
    def expected(name: str) -> np.ndarray:
        return cases.expected[f"imagine/{row}/{name}"]

    context = _context(cases, row, 0, IMAGINED_FROM)
    imagination = Imagination(cases.model, precision)
    roots = imagination.encode(context)
    only = torch.zeros(1, 1, dtype=torch.int64, device=context.tokens.device)
    states, rows = [], None
    for action in expected("actions"):
        rows = imagination.step(roots, rows, only, torch.full_like(only, int(action)))
        states.append(rows)
    tokens = torch.stack([state.tokens[:, 0] for state in states])
    q = torch.stack([state.q[:, 0] for state in states]).masked_fill(~context.legal, -torch.inf)
    exact = tolerance.share == 1.0
    name = f"imagine/{row}/"
    result.equal(name + "tokens", tokens.cpu(), expected("tokens"), tolerance.share)
    result.equal(name + "rewards", [s.rewards[:, 0].tolist() for s in states], expected("rewards"), tolerance.share)
    result.equal(name + "ends", [s.ends[:, 0].tolist() for s in states], expected("ends"), tolerance.share)
    result.floats(
        name + "q_root", _array(roots.q.masked_fill(~context.legal, -torch.inf)), expected("q_root"), tolerance
    )
    if exact or np.array_equal(tokens.cpu().numpy(), expected("tokens")):  # else they are of other states
        result.floats(name + "q", _array(q), expected("q"), tolerance)
    with _autocast(cases, precision):
        frames = cases.tokenizer.decode(torch.from_numpy(expected("tokens")).to(tokens.device))
    result.floats(name + "frames", _array(frames[:, :, None]), expected("frames"), tolerance)


def _plan(cases: Cases, case: PlannerCase, precision: Precision) -> Plan:
    steps = min(case.context_steps, cases.model.config.context_steps - case.horizon)
    context = _context(cases, case.row, case.context_steps - steps, case.context_steps)
    config = PlannerConfig("beam", case.width, case.horizon, cases.objective.gamma, respect_ends=False)
    return BeamPlanner(cases.model, config, precision).plan(context)


def _planner(cases: Cases, tolerance: Tolerance, precision: Precision, result: Result) -> None:
    for case in cases.planner_cases:
        plan = _plan(cases, case, precision)
        name = f"row {case.row}, {case.context_steps} steps, width {case.width}, horizon {case.horizon}"
        if tolerance.actions:
            result.equal(f"{name}: action", plan.actions, np.array([case.action]), 1.0)
        # Fewer plans than recorded show as -inf, which no recorded score is.
        found = np.full(len(case.top_scores), -np.inf)
        found[: case.width] = plan.candidate_scores[0, : len(found)]
        scored = Tolerance(tolerance.scores, tolerance.absolute, 0.0, 1.0, True, tolerance.scores)
        result.floats(f"{name}: scores", found, np.array(case.top_scores), scored)


GROUPS: dict[str, Callable[[Cases, Tolerance, Precision, Result], None]] = {
    "tokens": _tokens,
    "reconstruction": _reconstruction,
    "tokenizer losses": _tokenizer_losses,
    "logits": _logits,
    "world losses": _losses(critic=False),
    "world gradients": _gradients(critic=False),
    "joint losses": _losses(critic=True),
    "joint gradients": _gradients(critic=True),
    "imagination": _imagination,
    "planner": _planner,
}
"""Every group by name: it adds what it compares to the result it is given."""


def run_groups(
    cases: Cases, tolerance: Tolerance, precision: Precision, names: Iterable[str] = tuple(GROUPS)
) -> Iterator[Result]:
    """Run the groups called ``names`` one after the other; yields each result as it is known."""
    for name in names:
        result = Result(name)
        with _full_precision():
            GROUPS[name](cases, tolerance, precision, result)
        yield result


@contextmanager
def _full_precision() -> Iterator[None]:
    """float32 means float32 here: no TF32 in matrix products or convolutions, as the cases were recorded."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


def _context(cases: Cases, row: int, first: int, end: int) -> Context:
    """The memory of one root: steps ``first`` up to ``end`` of a row."""
    batch = cases.batch
    assert batch.tokens is not None
    if end > batch.actions.shape[1]:
        raise DataError(f"{cases.expected.path}: row {row} has {batch.actions.shape[1]} steps, {end} are asked for")
    alone = slice(row, row + 1)
    return Context(
        batch.tokens[alone, first:end],
        batch.actions[alone, first:end],
        torch.tensor([end - first], device=batch.tokens.device),
        batch.tasks[alone],
        batch.legal[alone],
    )


def _autocast(cases: Cases, precision: Precision) -> torch.autocast:
    return torch.autocast(cases.batch.actions.device.type, dtype=precision, enabled=precision is not None)


def _frames(cases: Cases) -> Tensor:
    assert cases.batch.frames is not None
    return cases.batch.frames


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()
