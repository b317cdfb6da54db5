"""The small study: from its tables (:mod:`jowa.suite.studies`) and what was asked for to its jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jowa.suite import commands, studies
from jowa.suite.commands import Data
from jowa.suite.jobs import Job, Measured
from jowa.suite.results import Method, Planned, Quality, Transfer, describe_planned
from jowa.suite.studies import BASE, SIZES

STORE = "data/training"


@dataclass(frozen=True)
class Asked:
    """What decides the jobs of the small study."""

    games: tuple[str, ...]
    held_out: tuple[str, ...]
    sizes: tuple[str, ...]
    methods: tuple[str, ...]
    """jowa, and the rivals of it."""
    ablations: tuple[str, ...]
    seeds: int
    episodes: int
    scale: float
    """Share of the steps that are recorded, trained and fine-tuned."""
    max_steps: int
    """Agent steps after which an episode of play is cut off."""
    device: str = "auto"
    threads: int = 1
    """Of each job; for estimates alone."""

    @property
    def base(self) -> str:
        """The size of everything but the scaling curve."""
        return BASE if BASE in self.sizes else self.sizes[0]

    @property
    def speed(self) -> float:
        """How much faster than on one core a job is: a step of M took 52 ms on one thread, 32 on two."""
        return 1.0 if self.threads == 1 else 1.6

    @property
    def training_steps(self) -> int:
        """Of stage 2, and of a rival."""
        return self.scaled(studies.STAGE2_STEPS_PER_GAME * len(self.games), 2)

    def scaled(self, steps: int, least: int = 1) -> int:
        """So many steps, at this scale."""
        return max(least, round(steps * self.scale))


def small_study(asked: Asked) -> list[Job]:
    """All jobs of the small study, of all groups."""
    return [replace(job, minutes=job.minutes / asked.speed) for job in _Small(asked).jobs]


@dataclass(frozen=True)
class _Trained:
    """A training of the plan."""

    job: str
    agent: str
    """Folder of the agent or rival."""
    method: Method
    size: str
    seed: int
    variant: str
    steps: int


class _Small:
    """Collects the jobs."""

    def __init__(self, asked: Asked) -> None:
        self.asked, self.jobs = asked, list[Job]()
        self.device = ("--device", asked.device)
        self.recorded = [self._record_training(data) for data in studies.TRAINING if data.game in asked.games]
        self._untrained()
        for seed in range(asked.seeds):
            base = self._train(seed, asked.base)
            self.tokens = self._tokenize(base)
            self._joint(base)
            for method in asked.methods:
                if method in studies.RIVALS:
                    self._rival(method, base)
        self._transfer_all()

    # What is recorded, and what needs no training.

    def _record_training(self, data: studies.GameData) -> str:
        steps = self.asked.scaled(data.steps)
        arguments = commands.record(STORE, data.game, steps, data.policies, studies.RECORD_STEPS_MOST, seed=0)
        return self._record(f"record/{data.game}", STORE, data.game, arguments, data.minutes * self.asked.scale)

    def _record(self, name: str, store: str, game: str, arguments: commands.Arguments, minutes: float) -> str:
        groups = ("transfer",) if store != STORE else ()
        self.jobs.append(
            Job(
                name,
                "jowa.record",
                arguments,
                f"{store}/{game}",
                (f"{store}/{game}/zarr.json",),
                kind=name,
                minutes=minutes + studies.START_MINUTES,
                groups=groups,
                alone=store,
            )
        )
        return name

    def _untrained(self) -> None:
        asked = self.asked
        self._random("random", asked.games, ("methods",))
        out = "evaluations/data.json"
        self._play(
            "evaluate/data", "jowa.suite.untrained", commands.scores_of_data(Data(STORE, asked.games), 0, out), out,
            tuple(self.recorded), 0.0, Measured("data", ("methods",), "data"),
        )  # fmt: skip

    def _random(self, name: str, games: tuple[str, ...], groups: tuple[str, ...]) -> None:
        asked, out = self.asked, f"evaluations/{name}.json"
        episodes = asked.episodes * asked.seeds
        arguments = commands.play_random(games, episodes, studies.EVALUATION_SEED, out, asked.max_steps)
        minutes = self._minutes(len(games) * episodes, studies.RANDOM_SECONDS)
        measured = Measured(name, groups, "random")
        self._play(f"evaluate/{name}", "jowa.suite.untrained", arguments, out, (), minutes, measured)

    # The agents.

    def _joint(self, base: _Trained) -> None:
        """Everything of one seed that is trained with the joint objective, and its evaluations."""
        asked = self.asked
        self._evaluate(base, Planned(), ("methods", "scale", "ablations"))
        self._evaluate(base, studies.OWN_PLAN, ("methods", "scale"))
        self._evaluate(base, studies.PAPERS_PLAN, ("methods",))
        for size in asked.sizes:
            if size != asked.base:
                trained = self._train(base.seed, size, base, groups=("scale",))
                self._evaluate(trained, Planned(), ("scale",))
                self._evaluate(trained, studies.OWN_PLAN, ("scale",))
        for variant in asked.ablations:
            options = studies.ABLATIONS[variant]
            trained = self._train(base.seed, asked.base, base, variant, options, ("ablations",))
            self._evaluate(trained, Planned(), ("ablations",))
        planner = self._train(
            base.seed, asked.base, base, studies.PLANNING_VARIANT, studies.PLANNING_OPTIONS, ("planning",)
        )
        some = tuple(game for game in asked.games if game in studies.PLANNING_GAMES) or asked.games
        for planned in studies.PLANS:
            self._evaluate(planner, planned, ("planning",), games=some)

    def _train(
        self, seed: int, size: str, base: _Trained | None = None, variant: str = "", options: Sequence[str] = (),
        groups: tuple[str, ...] = (),
    ) -> _Trained:  # fmt: skip
        """A training of the joint agent; without ``base``, whose tokenizer is used, it is that of its seed."""
        asked = self.asked
        stage1, stage2 = asked.scaled(studies.STAGE1_STEPS), asked.training_steps
        name = "-".join(filter(None, ("jowa", size, variant, f"seed{seed}")))
        folder = f"work/{name}"
        data = Data(STORE, asked.games, tokens="" if base is None else self.tokens[1])
        imagined_from = str(round(stage2 * studies.IMAGINED_SHARE))
        chosen = [*SIZES[size].options, *(part.replace("{imagined_from}", imagined_from) for part in options)]
        arguments = commands.train(folder, data, seed, stage1, stage2, chosen, "" if base is None else base.agent)
        seconds = stage2 * SIZES[size].step_seconds * studies.STEP_FACTORS.get(variant, 1.0)
        seconds += stage1 * studies.STAGE1_SECONDS
        needs = tuple(self.recorded) if base is None else (base.job, self.tokens[0])
        return self._trained(
            _Trained(
                f"train/{name}", f"{folder}/agent", "jowa", size, seed, variant,
                stage1 + stage2,
            ),
            "jowa.train", arguments, needs, seconds, groups,
        )  # fmt: skip

    def _trained(
        self, trained: _Trained, module: str, arguments: commands.Arguments, needs: tuple[str, ...], seconds: float,
        groups: tuple[str, ...],
    ) -> _Trained:  # fmt: skip
        folder = trained.agent.removesuffix("/agent")
        self.jobs.append(
            Job(
                trained.job,
                module,
                arguments,
                folder,
                (f"{trained.agent}/config.json", f"{trained.agent}/model.safetensors"),
                needs,
                # seeds of one thing take equally long
                kind=trained.job.replace(f"seed{trained.seed}", "seed"),
                minutes=seconds / 60 + studies.START_MINUTES,
                groups=groups,
                discard=(f"{folder}/checkpoints", f"{folder}/tokens"),
                free=self.device,
            )
        )
        return trained

    def _tokenize(self, base: _Trained) -> tuple[str, str]:
        """(job, folder) of the training data's tokens by the tokenizer of one seed."""
        name, folder = f"tokenize/seed{base.seed}", f"tokens/seed{base.seed}"
        self.jobs.append(
            Job(
                name,
                "jowa.tokenize",
                commands.tokenize(base.agent, STORE, folder),
                folder,
                (folder,),
                (base.job,),
                kind="tokenize",
                minutes=0.5 * self.asked.scale + studies.START_MINUTES,
                free=self.device,
            )
        )
        return name, folder

    def _rival(self, kind: str, base: _Trained) -> None:
        asked, name = self.asked, f"{kind}-{base.size}-seed{base.seed}"
        folder, steps = f"work/{name}", asked.training_steps
        data = Data(STORE, asked.games, tokens=self.tokens[1])
        arguments = commands.rival(kind, folder, data, base.size, steps, base.seed, base.agent)
        needs = tuple(self.recorded) if kind == "scaled-ql" else (base.job, self.tokens[0])
        trained = self._trained(
            _Trained(f"train/{name}", f"{folder}/agent", _method(kind), base.size, base.seed, "", steps),
            "jowa.baselines", arguments, needs, steps * studies.RIVAL_STEP_SECONDS[kind], ("methods",),
        )  # fmt: skip
        self._evaluate(trained, None, ("methods",))

    # Playing.

    def _evaluate(
        self, trained: _Trained, planned: Planned | None, groups: tuple[str, ...], transfer: Transfer | None = None,
        games: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """A player of the training games (or ``games``), or of the game of a ``transfer``."""
        asked = self.asked
        how = "none" if planned is None else describe_planned(planned).replace(", ", "-").replace(" ", "-") or "none"
        id = f"{trained.job.removeprefix('train/')}/{how}"
        games = (transfer.game,) if transfer is not None else games or asked.games
        out = f"evaluations/{id}.json"
        arguments = commands.evaluate(
            trained.agent, games, asked.episodes, studies.EVALUATION_SEED + trained.seed, out, asked.max_steps, planned
        )
        seconds = studies.DECISION_SECONDS + studies.IMAGINED_SECONDS * imagined_steps(planned or Planned())
        self._play(
            f"evaluate/{id}", "jowa.evaluate", arguments, out, (trained.job,),
            self._minutes(len(games) * asked.episodes, seconds),
            Measured(
                id, groups, trained.method, trained.size, trained.seed, trained.variant, planned or Planned(), transfer,
                trained.job, trained.steps,
            ),
        )  # fmt: skip

    def _minutes(self, episodes: int, decision: float) -> float:
        """An estimate, for so many seconds a decision."""
        return episodes * min(studies.EPISODE_STEPS, self.asked.max_steps) * decision / 60

    def _play(
        self, name: str, module: str, arguments: commands.Arguments, out: str, needs: tuple[str, ...], minutes: float,
        measured: Measured,
    ) -> None:  # fmt: skip
        kind = name.replace(f"seed{measured.seed}", "seed")
        free = self.device if module == "jowa.evaluate" else ()
        self.jobs.append(
            Job(
                name,
                module,
                arguments,
                out,
                (out,),
                needs,
                kind,
                minutes + studies.START_MINUTES,
                measured.groups,
                free=free,
                measured=measured,
            )
        )

    # Transfer.

    def _transfer_all(self) -> None:
        asked = self.asked
        if not asked.held_out:
            return
        self._random("transfer/random", asked.held_out, ("transfer",))
        for game in asked.held_out:
            for quality in studies.TRANSFER_POLICIES:
                self._transfer(game, quality)

    def _transfer(self, game: str, quality: Quality) -> None:
        asked, store = self.asked, f"data/{game}-{quality}"
        recorded, used = asked.scaled(studies.TRANSFER_RECORDED), asked.scaled(studies.TRANSFER_TRANSITIONS)
        policies = studies.TRANSFER_POLICIES[quality]
        # Other seeds than those of the other qualities: else their first episodes would begin alike.
        seed = 1 + list(studies.TRANSFER_POLICIES).index(quality)
        arguments = commands.record(store, game, recorded, policies, studies.RECORD_STEPS_MOST, seed)
        minutes = studies.TRANSFER_RECORD_MINUTES * asked.scale
        job = self._record(f"record/{game}-{quality}", store, game, arguments, minutes)
        data = Data(store, (game,), used)
        name = f"transfer/{game}-{quality}/data"
        out = f"evaluations/{name}.json"
        measured = Measured(name, ("transfer",), "data", transfer=Transfer(game, quality, used, pretrained=False))
        arguments = commands.scores_of_data(data, 0, out)
        self._play(f"evaluate/{name}", "jowa.suite.untrained", arguments, out, (job,), 0.0, measured)
        for seed in range(asked.seeds):
            self._finetune(game, quality, data, job, seed)
            for kind in asked.methods:
                if kind in studies.RIVALS:
                    self._finetune_rival(kind, game, quality, data, job, seed)

    def _finetune(self, game: str, quality: Quality, data: Data, recorded: str, seed: int) -> None:
        steps = self.asked.scaled(studies.FINETUNE_STEPS, 2)
        imagined_from = str(round(steps * studies.IMAGINED_SHARE))
        ways: dict[str, tuple[str, ...]] = {"fine-tuned": (), "from-scratch": studies.SCRATCH_OPTIONS}
        ways |= {name: options for name, (options, where) in studies.FINETUNE_VARIANTS.items() if quality in where}
        origin = f"jowa-{self.asked.base}-seed{seed}"
        for way, options in ways.items():
            name = f"transfer/{game}-{quality}/{origin}-{way}"
            chosen = [*studies.FINETUNE_OPTIONS, *(part.replace("{imagined_from}", imagined_from) for part in options)]
            arguments = commands.finetune(f"work/{origin}/agent", f"work/{name}", data, steps, seed, chosen)
            variant = way if way in studies.FINETUNE_VARIANTS else ""
            trained = self._trained(
                _Trained(f"train/{name}", f"work/{name}/agent", "jowa", self.asked.base, seed, variant, steps),
                "jowa.finetune", arguments, (f"train/{origin}", recorded),
                steps * studies.FINETUNE_STEP_SECONDS, ("transfer",),
            )  # fmt: skip
            transfer = Transfer(game, quality, data.transitions, pretrained=way != "from-scratch")
            self._evaluate(trained, Planned(), ("transfer",), transfer)

    def _finetune_rival(self, kind: str, game: str, quality: Quality, data: Data, recorded: str, seed: int) -> None:
        steps = self.asked.scaled(studies.RIVAL_FINETUNE_STEPS)
        origin = f"{kind}-{self.asked.base}-seed{seed}"
        name = f"transfer/{game}-{quality}/{origin}"
        arguments = commands.rival(
            kind, f"work/{name}", data, self.asked.base, steps, seed, start_from=f"work/{origin}/agent"
        )
        trained = self._trained(
            _Trained(f"train/{name}", f"work/{name}/agent", _method(kind), self.asked.base, seed, "", steps),
            "jowa.baselines", arguments, (f"train/{origin}", recorded),
            steps * studies.RIVAL_STEP_SECONDS[kind], ("transfer",),
        )  # fmt: skip
        self._evaluate(trained, None, ("transfer",), Transfer(game, quality, data.transitions, pretrained=True))


def imagined_steps(planned: Planned) -> int:
    """Steps that a decision imagines at most."""
    if planned.name == "beam" and planned.horizon:
        return planned.width + planned.width**2 * (planned.horizon - 1)
    return planned.simulations


def _method(kind: str) -> Method:
    known: dict[str, Method] = {"mtbc": "mtbc", "mgdt": "mgdt", "scaled-ql": "scaled-ql"}
    return known[kind]
