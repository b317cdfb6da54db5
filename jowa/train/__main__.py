"""``python -m jowa.train``: record, train, play, print the table.  Under ``torchrun`` it trains on several processes."""

from __future__ import annotations

import json
import sys

import tyro
from rich.console import Console

from jowa.errors import command
from jowa.files import atomic_write_text
from jowa.train.config import TrainConfig, get_train_preset
from jowa.train.distributed import process_group
from jowa.train.scoring import demo_table, score
from jowa.train.session import prepare_data, read_results, train, write_picture


def preset_named_in(arguments: list[str]) -> str:
    """The value of ``--preset`` among ``arguments``: it decides every other default, so it is read first."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--preset="):
            return argument.removeprefix("--preset=")
        if argument == "--preset" and index + 1 < len(arguments):
            return arguments[index + 1]
    return "tiny"


def run(config: TrainConfig) -> None:
    """The whole path for ``config``; what an earlier run finished is reused."""
    config.check()
    with process_group(config.device) as place:
        if place.is_main:
            prepare_data(config)
        place.barrier()
        agent = train(config, place)
        if not place.is_main:
            return
        print(f"agent: {config.out / 'agent'}")
        print(f"imagined beside real frames: {write_picture(config, agent)}")
        total = config.stage1.steps + config.stage2.steps
        results = config.out / "results.json"
        if config.evaluation.episodes == 0:
            return
        document = read_results(results) if results.exists() else {}
        if document.get("step") == total:
            print(f"reusing the scores in {results}; --restart trains and plays anew")
        else:
            document = score(config, agent, total)
            atomic_write_text(results, json.dumps(document, indent=2) + "\n")
        Console().print(demo_table(document))


@command
def main() -> None:
    """Entry point."""
    run(tyro.cli(TrainConfig, default=get_train_preset(preset_named_in(sys.argv[1:])), description=TrainConfig.__doc__))


if __name__ == "__main__":
    main()
