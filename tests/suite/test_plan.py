"""The small study and the paper's: every command line is one that its command takes, and ids and groups are right."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from jowa.data.dqn_replay.config import ImportConfig
from jowa.data.record import RecordConfig
from jowa.evaluate.__main__ import EvaluateConfig
from jowa.finetune.config import FinetuneConfig
from jowa.games import PRETRAINING_GAMES
from jowa.options import parse_options
from jowa.suite import studies
from jowa.suite.__main__ import AblationName
from jowa.suite.aggregate import Contender
from jowa.suite.jobs import Job, chosen, fingerprints
from jowa.suite.ledger import Ledger
from jowa.suite.paper import PaperAsked, cost_table, minutes_of, paper_study, show_cost
from jowa.suite.plan import Asked, small_study
from jowa.suite.results import GamePlayed, Result
from jowa.suite.untrained import UntrainedConfig
from jowa.tokenize import TokenizeConfig
from jowa.train.checks import check_config
from jowa.train.config import TrainConfig
from jowa.train.presets import get_train_preset

ALL = ("jowa", "mtbc", "mgdt", "scaled-ql")
GAMES = tuple(data.game for data in studies.TRAINING)
PARSED = {
    "jowa.record": RecordConfig, "jowa.evaluate": EvaluateConfig, "jowa.finetune": FinetuneConfig,
    "jowa.tokenize": TokenizeConfig, "jowa.suite.untrained": UntrainedConfig, "jowa.import_dqn_replay": ImportConfig,
}  # fmt: skip


def asked(**changes: Any) -> Asked:
    usual = dict(
        games=GAMES, held_out=studies.HELD_OUT, sizes=("S", "M", "L"), methods=ALL, ablations=tuple(studies.ABLATIONS),
        seeds=3, episodes=10, scale=1.0, max_steps=3000,
    )  # fmt: skip
    return Asked(**(usual | changes))


def parsed(job: Job) -> Any:
    """The settings that the command of ``job`` would run with."""
    module, arguments = job.module, job.command(Path("study"))[3:]
    if module == "torch.distributed.run":
        module, arguments = arguments[4], arguments[5:]
    if module == "jowa.train":
        preset = get_train_preset(arguments[arguments.index("--preset") + 1])
        config = parse_options(TrainConfig, module, default=preset, arguments=arguments)
        check_config(config)
        return config
    if module == "jowa.baselines":
        return None  # their own tests parse their options
    return parse_options(PARSED[module], module, arguments=arguments)


@pytest.fixture(scope="module")
def study() -> list[Job]:
    return small_study(asked())


def test_every_command_line_is_understood(study: list[Job]) -> None:
    """Of one seed, one held-out game and quality: the others differ in names alone."""
    few = small_study(asked(seeds=1, held_out=("Assault",)))
    jobs = [job for job in few if not any(word in job.name for word in ("expert", "weak"))]
    configs = {job.name: parsed(job) for job in jobs}
    base = configs["train/jowa-M-seed0"]
    assert base.data.games == GAMES and base.evaluation.episodes == 0 and base.draft.steps == 0
    assert (base.stage1.steps, base.stage2.steps) == (
        studies.STAGE1_STEPS,
        len(GAMES) * studies.STAGE2_STEPS_PER_GAME,
    )
    ablated = configs["train/jowa-M-combo-seed0"]
    assert str(ablated.tokenizer_from) == "study/work/jowa-M-seed0/agent" and ablated.stage1.world_from == 0
    assert str(ablated.data.tokens) == "study/tokens/seed0" and ablated.objective.conservative == "combo"
    plan = configs["evaluate/jowa-M-context-4-seed0/beam-2x2-without-ends-lambda-0.25"]
    assert (plan.planner, plan.width, plan.horizon, plan.ignore_ends) == ("beam", 2, 2, True)
    tuned = configs["train/transfer/Assault-mixed/jowa-M-seed0-imagined"]
    assert (tuned.transitions, tuned.imagined, tuned.seed) == (5000, "half", 0)
    assert configs["evaluate/random"].episodes == 10 and configs["record/Pong"].seed == 0


def test_tiny_studies_are_understood_too() -> None:
    for job in small_study(asked(seeds=1, scale=1e-5, sizes=("S",), methods=("jowa",), held_out=("Assault",))):
        if job.module == "jowa.train":
            assert parsed(job).stage2.steps == 2
    assert "train/jowa-S-detach-q-seed0" in {job.name for job in small_study(asked(sizes=("S",)))}


@pytest.mark.skipif(importlib.util.find_spec("jowa.baselines") is None, reason="no rivals in this package")
def test_rivals_take_the_options(command: Any, tmp_path: Path) -> None:
    jobs = [job for job in small_study(asked(seeds=1, held_out=())) if job.module == "jowa.baselines"]
    assert len(jobs) == 3
    for job in jobs:
        done = command("jowa.baselines", *job.command(tmp_path)[3:])
        assert done.returncode == 1 and "data/training" in done.stderr, done.stderr  # which is not there


def test_ids_are_unique_and_every_group_has_its_usual_agent(study: list[Job]) -> None:
    measured = [job.measured for job in study if job.measured is not None]
    assert max(Counter(one.id for one in measured).values()) == 1
    assert len(fingerprints(study)) == len(study) == len({job.makes for job in study})
    for group in ("methods", "scale", "ablations", "planning"):
        own = [one for one in measured if group in one.groups]
        cells = Counter(
            (Contender.of(Result("x", (), one.method, {"Pong": GamePlayed((1.0,))}, one.size, one.seed, one.variant,
                                 one.planned)), one.seed)
            for one in own
        )  # fmt: skip
        assert max(cells.values()) == 1, group
    methods = {one.method for one in measured if "methods" in one.groups}
    assert methods == {"jowa", "mtbc", "mgdt", "scaled-ql", "random", "data"}
    assert {one.size for one in measured if "scale" in one.groups} == {"S", "M", "L"}
    assert {one.variant for one in measured if "ablations" in one.groups} == {"", *studies.ABLATIONS}
    assert {one.seed for one in measured if one.method == "mgdt"} == {0, 1, 2}
    transfers = {
        (one.transfer.game, one.transfer.data, one.method, one.transfer.pretrained, one.variant)
        for one in measured
        if one.transfer is not None and one.method not in ("data", "random")
    }
    for game in studies.HELD_OUT:
        for quality in ("expert", "mixed", "weak"):
            own = {each[2:] for each in transfers if each[:2] == (game, quality)}
            ways = {("jowa", True, ""), ("jowa", False, ""), *((rival, True, "") for rival in studies.RIVALS)}
            assert own - {("jowa", True, "imagined")} == ways


def test_groups_and_knobs_take_away(study: list[Job]) -> None:
    planning = {job.name for job in chosen(study, ["planning"])}
    assert "train/jowa-M-context-4-seed2" in planning and "record/Pong" in planning
    assert not any("mtbc" in name or "transfer" in name or "detach" in name for name in planning)
    assert not any("mgdt" in job.name for job in small_study(asked(methods=("jowa", "mtbc"))))
    assert not any("transfer" in job.name for job in small_study(asked(held_out=())))
    half = {job.name: job for job in small_study(asked(scale=0.5))}["train/jowa-M-seed0"]
    assert parsed(half).stage2.steps == len(GAMES) * studies.STAGE2_STEPS_PER_GAME // 2
    ablated = {one.variant for job in small_study(asked(ablations=("mse",))) if (one := job.measured)}
    assert "mse" in ablated and "rem" not in ablated
    assert get_args(AblationName) == tuple(studies.ABLATIONS)


def test_what_bears_on_nothing_changes_no_fingerprint(study: list[Job]) -> None:
    on_gpu = fingerprints(small_study(asked(device="cuda", seeds=1)))
    before = fingerprints(study)
    assert {name for name, one in on_gpu.items() if before[name] != one} == {
        "evaluate/random",
        "evaluate/transfer/random",
    }


def test_the_papers_study(tmp_path: Path) -> None:
    jobs = paper_study(PaperAsked("gs://somewhere", ALL, seeds=1, episodes=16, gpus=8))
    by_name = {job.name: job for job in jobs}
    imported = parsed(by_name["import/atari15"])
    assert imported.games == PRETRAINING_GAMES and imported.fraction == 0.1 and imported.runs == (1, 2)
    for variant in ("40M", "70M", "150M", "40M-combo", "40M-mse"):
        config = parsed(by_name[f"train/jowa-{variant}-seed0"])
        assert config.stage2.steps == 1_500_000 and config.data.games == PRETRAINING_GAMES
    command = by_name["train/jowa-150M-seed0"].line(tmp_path)
    assert "torch.distributed.run --standalone --nproc-per-node 8 -m jowa.train --preset 150M" in command
    published = parsed(by_name["evaluate/jowa-70M-seed0/beam-papers-published"])
    assert (published.protocol, published.width, published.context) == ("published", None, None), "the game's own"
    sticky = parsed(by_name["evaluate/jowa-70M-seed0/beam-sticky"])
    assert (sticky.protocol, sticky.width, sticky.horizon, sticky.context) == ("sticky", 4, 2, 4)
    tuned = parsed(by_name["import/Robotank-expert"])
    assert (tuned.transitions, tuned.subset) == (5000, "expert")
    needed = by_name["train/transfer/Gravitar-weak/jowa-40M-seed0-from-scratch"].needs
    assert needed == ("train/jowa-40M-seed0", "import/Gravitar-weak")
    alone = {job.name: job for job in paper_study(PaperAsked("x", ("jowa",), seeds=1, episodes=16, gpus=1))}
    assert alone["train/jowa-40M-seed0"].module == "jowa.train" and not any("mtbc" in name for name in alone)
    assert len({job.measured.id for job in jobs if job.measured}) == sum(job.measured is not None for job in jobs)


def test_the_papers_cost(tmp_path: Path) -> None:
    jobs = paper_study(PaperAsked("gs://somewhere", ALL, seeds=3, episodes=16, gpus=8))
    days = minutes_of("train jowa-150M") / 1440
    assert 4.0 < days < 5.5, "1.75 million steps at 40% of an H200's 989 TFLOP/s"
    assert minutes_of("train scaled-ql-L") == minutes_of("import") == 0.0
    ledger = Ledger(tmp_path, jobs)
    console = Console(record=True, width=160, file=(tmp_path / "shown").open("w"))
    show_cost(console, ledger, jobs, gpus=8)
    shown = console.export_text()
    assert f"{3 * days:.3g}" in shown and "22 GB as stored" in shown and "not reckoned" in shown
    assert cost_table(jobs, ledger.minutes(), 8).row_count == len({job.kind for job in jobs}) + 1
