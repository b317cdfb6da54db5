"""``--paper``: the study of arXiv 2410.00564 as jobs, and what it would cost; for whoever has the GPUs and the data.

Three sizes on fifteen games of DQN-Replay, both protocols, with the paper's planner settings for each game; ablations
at 40M; fine-tuning on five more games.  Rivals at the sizes that ``python -m jowa.baselines`` has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from jowa.games import BORROWED_TASK, PRETRAINING_GAMES
from jowa.suite import commands
from jowa.suite.commands import Arguments, Data, inside
from jowa.suite.jobs import Job, Measured
from jowa.suite.results import Method, Planned, Quality, Transfer

if TYPE_CHECKING:
    from jowa.suite.ledger import Ledger

SIZES = ("40M", "70M", "150M")
ABLATED = "40M"
"""The size of the ablations."""
RIVAL_SIZES: dict[Method, tuple[str, ...]] = {"mtbc": SIZES, "mgdt": SIZES, "scaled-ql": ("L",)}
STORE = "data/atari15"
RUNS, FRACTION = ("1", "2"), "0.1"
"""Of DQN-Replay: 10% of two runs of 50 million steps are about ten million transitions a game."""
TRANSITIONS_A_GAME = 10_000_000
FINETUNE_GAMES = tuple(BORROWED_TASK)
QUALITIES: tuple[Quality, ...] = ("expert", "mixed", "weak")
FINETUNED, FINETUNE_STEPS = 5_000, 50_000
STAGE2_STEPS, BATCH = 1_500_000, 512
"""Rivals get as many steps of as many segments as the agent's second stage."""
ABLATIONS: dict[str, Arguments] = {
    "detach-q": ("--objective.detach-q",),
    "mse": ("--objective.critic", "mse", "--model.num-atoms", "1"),
    "no-cql": ("--objective.conservative", "none"),
    "combo": ("--objective.conservative", "combo", "--stage2.imagined", "half"),
    "no-task-embedding": ("--model.no-task-embedding",),
}
"""REM is left out: 40M has one member."""
PAPERS = Planned("beam", width=0, horizon=2, context=0)
"""Beam search with the paper's width and context for each game, which 0 stands for."""
OWN = Planned("beam", width=4, horizon=2, context=4)
GPU = "H200"
BYTES_A_FRAME = 149
"""Measured on scripted play (Zstandard, 64 frames a chunk); DQN-Replay was not measured."""
TOKEN_BYTES_A_FRAME = 72


@dataclass(frozen=True)
class PaperAsked:
    """What decides the jobs of the paper's study."""

    source: str
    methods: tuple[str, ...]
    seeds: int
    episodes: int
    gpus: int
    device: str = "auto"


def paper_study(asked: PaperAsked) -> list[Job]:
    """All jobs of the paper's study, of all groups."""
    return _Paper(asked).jobs


class _Paper:
    """Collects the jobs."""

    def __init__(self, asked: PaperAsked) -> None:
        self.asked, self.jobs = asked, list[Job]()
        self._import("import/atari15", PRETRAINING_GAMES, STORE, ("--fraction", FRACTION, "--runs", *RUNS), ())
        for game in FINETUNE_GAMES:
            for quality in QUALITIES:
                how = ("--transitions", str(FINETUNED), "--runs", *RUNS, "--subset", quality)
                self._import(f"import/{game}-{quality}", (game,), f"data/{game}-{quality}", how, ("transfer",))
        for seed in range(asked.seeds):
            for size in SIZES:
                self._agent(size, seed)
            for variant, options in ABLATIONS.items():
                name = self._pretrain(ABLATED, seed, variant, options, ("ablations",))
                self._play(name, ABLATED, seed, Planned(), ("ablations",), variant=variant)
            for method, sizes in RIVAL_SIZES.items():
                for size in sizes if method in asked.methods else ():
                    self._rival(method, size, seed)

    def _import(self, name: str, games: Sequence[str], store: str, how: Arguments, groups: Arguments) -> None:
        arguments = ("--source", self.asked.source, "--games", *games, *how, "--out", inside(store))
        outputs = tuple(f"{store}/{game}/zarr.json" for game in games)
        self.jobs.append(
            Job(name, "jowa.import_dqn_replay", arguments, store, outputs, kind="import", groups=groups, alone="import")
        )

    def _agent(self, size: str, seed: int) -> None:
        groups = ("methods", "scale", "ablations") if size == ABLATED else ("methods", "scale")
        name = self._pretrain(size, seed, "", (), groups)
        self._play(name, size, seed, Planned(), groups)
        for planned in (OWN, replace(OWN, ends=False), Planned("mcts", horizon=2, simulations=20, context=4)):
            self._play(name, size, seed, planned, ("methods", "scale", "planning") if planned == OWN else ("planning",))
        self._play(name, size, seed, Planned(), (*groups, "planning"), "published")
        self._play(name, size, seed, PAPERS, ("methods", "scale", "planning"), "published")
        for game in FINETUNE_GAMES:
            for quality in QUALITIES:
                for scratch in (False, True):
                    self._finetune(name, size, seed, Transfer(game, quality, FINETUNED, not scratch))

    def _pretrain(self, size: str, seed: int, variant: str, options: Arguments, groups: Arguments) -> str:
        name = "-".join(filter(None, ("jowa", size, variant, f"seed{seed}")))
        arguments = (
            "--preset", size, "--out", inside(f"work/{name}"), "--seed", str(seed), "--data.path", inside(STORE),
            "--evaluation.episodes", "0", *options,
        )  # fmt: skip
        self._train(name, self._distributed("jowa.train", arguments), ("import/atari15",), groups, f"train jowa-{size}")
        return name

    def _finetune(self, origin: str, size: str, seed: int, transfer: Transfer) -> None:
        way = "fine-tuned" if transfer.pretrained else "from-scratch"
        name = f"transfer/{transfer.game}-{transfer.data}/{origin}-{way}"
        store = f"data/{transfer.game}-{transfer.data}"
        options = () if transfer.pretrained else ("--from-scratch",)
        arguments = commands.finetune(
            f"work/{origin}/agent",
            f"work/{name}",
            Data(store, (transfer.game,), FINETUNED),
            FINETUNE_STEPS,
            seed,
            options,
        )
        needs = (f"train/{origin}", f"import/{transfer.game}-{transfer.data}")
        self._train(name, ("jowa.finetune", arguments), needs, ("transfer",), f"finetune jowa-{size}")
        for planned in (Planned(), OWN):
            self._play(name, size, seed, planned, ("transfer",), transfer=transfer)

    def _rival(self, method: Method, size: str, seed: int) -> None:
        name, origin = f"{method}-{size}-seed{seed}", f"jowa-{size}-seed{seed}"
        reads_tokens = method != "scaled-ql"
        arguments = commands.rival(
            method, f"work/{name}", Data(STORE, PRETRAINING_GAMES), size, STAGE2_STEPS, seed,
            f"work/{origin}/agent" if reads_tokens else "",
        )  # fmt: skip
        arguments += ("--batch-size", str(BATCH), "--learning-rate", "5e-5")
        arguments += ("--data.segment-length", "8", "--data.segment-stride", "4") if reads_tokens else ()
        needs = ("import/atari15", *((f"train/{origin}",) if reads_tokens else ()))
        self._train(name, ("jowa.baselines", arguments), needs, ("methods",), f"train {method}-{size}")
        for protocol in ("sticky", "published"):
            self._play(name, size, seed, None, ("methods",), protocol, method=method)

    def _distributed(self, module: str, arguments: Arguments) -> tuple[str, Arguments]:
        if self.asked.gpus == 1:
            return module, arguments
        return "torch.distributed.run", (
            "--standalone", "--nproc-per-node", str(self.asked.gpus), "-m", module, *arguments,
        )  # fmt: skip

    def _train(self, name: str, what: tuple[str, Arguments], needs: Arguments, groups: Arguments, kind: str) -> None:
        agent = f"work/{name}/agent"
        self.jobs.append(
            Job(
                f"train/{name}",
                *what,
                f"work/{name}",
                (f"{agent}/config.json", f"{agent}/model.safetensors"),
                needs,
                kind,
                minutes_of(kind) / (self.asked.gpus if what[0] == "torch.distributed.run" else 1),
                groups,
                free=("--device", self.asked.device),
            )
        )

    def _play(
        self, name: str, size: str, seed: int, planned: Planned | None, groups: Arguments, protocol: str = "sticky",
        method: Method = "jowa", variant: str = "", transfer: Transfer | None = None,
    ) -> None:  # fmt: skip
        how: str = "none" if planned is None else planned.name
        how += "-papers" if planned == PAPERS else "" if planned is None or planned.ends else "-without-ends"
        id = f"{name}/{how}-{protocol}"
        games = PRETRAINING_GAMES if transfer is None else (transfer.game,)
        out = f"evaluations/{id}.json"
        arguments = commands.evaluate(
            f"work/{name}/agent", games, self.asked.episodes, 1_000 + seed, out, planned=planned, protocol=protocol
        )
        trained = f"train/{name}"
        steps = FINETUNE_STEPS if transfer else STAGE2_STEPS + (250_000 if method == "jowa" else 0)
        self.jobs.append(
            Job(
                f"evaluate/{id}",
                "jowa.evaluate",
                arguments,
                out,
                (out,),
                (trained,),
                kind=f"evaluate {method}-{size} {how}",
                groups=groups,
                free=("--device", self.asked.device),
                measured=Measured(
                    id, groups, method, size, seed, variant, planned or Planned(), transfer, trained, steps
                ),
            )
        )


def minutes_of(kind: str) -> float:
    """Minutes of one GPU for a training of ``kind`` (``train jowa-40M``, ``finetune jowa-40M``, ``train mtbc-40M``).

    From its operations, at the share of the GPU's rate that ``python -m jowa.train --dry-run`` assumes; 0 where they
    cannot be counted beforehand.
    """
    from jowa.train.dry_run import ASSUMED_UTILISATION, GPUS
    from jowa.train.flops import model_flops_per_step, world_flops
    from jowa.train.presets import get_train_preset

    what, _, named = kind.partition(" ")
    method, _, size = named.rpartition("-")
    if size not in SIZES:
        return 0.0
    config = get_train_preset(size)
    if method != "jowa":
        operations = STAGE2_STEPS * BATCH * world_flops(config.model, config.data.segment_length)
    elif what == "finetune":
        config = replace(config, stage2=replace(config.stage2, batch_size=32))
        operations = FINETUNE_STEPS * model_flops_per_step(config, 2)
    else:
        steps = {1: config.stage1.steps, 2: config.stage2.steps}
        operations = sum(count * model_flops_per_step(config, stage) for stage, count in steps.items())
    return operations / (GPUS[GPU].rate * ASSUMED_UTILISATION) / 60


def show_cost(console: Console, ledger: Ledger, jobs: Sequence[Job], gpus: int) -> None:
    """Print what the study would take, by kind of job."""
    from jowa.train.dry_run import ASSUMED_UTILISATION

    console.print(cost_table(jobs, ledger.minutes(), gpus))
    games, rows = len(PRETRAINING_GAMES), len(PRETRAINING_GAMES) * TRANSITIONS_A_GAME
    stored, tokens = rows * BYTES_A_FRAME / 1e9, rows * TOKEN_BYTES_A_FRAME / 1e9
    said = (
        f"Data: about {rows / 1e6:.0f} million transitions of {games} games, {stored:.0f} GB as stored",
        f"if they pack like scripted play ({BYTES_A_FRAME} bytes a frame), their tokens {tokens:.0f} GB",
        f"in the memory of each process. The import reads the logs of {len(RUNS)} runs whole.",
        f"GPU days assume {ASSUMED_UTILISATION:.0%} of the maker's rate of an {GPU}, which no run has shown yet;",
        "a rival is reckoned as a world model of its size.",
        "Import, evaluation, scaled-ql and the perceptual term are not reckoned.",
    )
    console.print(" ".join(said), soft_wrap=True, markup=False, highlight=False)


def cost_table(jobs: Sequence[Job], minutes: Mapping[str, float], gpus: int) -> Table:
    """A row a kind of job: how many, GPU days of one and of all."""
    table = Table("kind", title=f"cost on {GPU} GPUs, {gpus} for each pretraining of an agent")
    for column in ("jobs", "GPU days each", "GPU days"):
        table.add_column(column, justify="right")
    total = 0.0
    for kind in dict.fromkeys(job.kind for job in jobs):
        own = [job for job in jobs if job.kind == kind]
        days = [minutes[job.name] * (gpus if job.module == "torch.distributed.run" else 1) / 1440 for job in own]
        total += sum(days)
        cells = (f"{days[0]:.3g}", f"{sum(days):.3g}") if days[0] else ("not reckoned", "")
        table.add_row(kind, str(len(own)), *cells)
    table.add_section()
    table.add_row("all", str(len(jobs)), "", f"{total:.0f}")
    return table
