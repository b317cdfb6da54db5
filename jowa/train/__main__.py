"""``python -m jowa.train``: record, train, play, print the table; under ``torchrun`` on several processes."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from jowa.errors import command
from jowa.hub import find_agent
from jowa.options import parse_options
from jowa.train.checks import check_config, check_split
from jowa.train.config import TrainConfig
from jowa.train.distributed import process_group
from jowa.train.dry_run import show
from jowa.train.folder import begin
from jowa.train.presets import get_train_preset
from jowa.train.session import play_and_report, prepare_data, train
from jowa.train.stop import Stopped, stop_at_once


def preset_named_in(arguments: list[str]) -> str:
    """The value of ``--preset`` among ``arguments``: it decides every other default, so it is read first."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--preset="):
            return argument.removeprefix("--preset=")
        if argument == "--preset" and index + 1 < len(arguments):
            return arguments[index + 1]
    return "tiny"


def with_folders(config: TrainConfig) -> TrainConfig:
    """``config`` with the folders of the agents that it names."""
    tokenizer_from, start_from = (
        None if name is None else find_agent(name) for name in (config.tokenizer_from, config.start_from)
    )
    return replace(config, tokenizer_from=tokenizer_from, start_from=start_from)


def run(config: TrainConfig) -> None:
    """The whole path for ``config``; what an earlier run finished is reused."""
    config = with_folders(config)
    check_config(config)
    if config.dry_run:
        show(config)
        return
    try:
        with stop_at_once():
            with process_group(config.device) as place:
                check_split(config, place.world)
                if place.is_main:
                    begin(config)
                    prepare_data(config)
                place.barrier()
                agent = train(config, place)
            if place.is_main:
                play_and_report(config, agent)
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(stopped, flush=True)


@command
def main() -> None:
    """Entry point."""
    default = get_train_preset(preset_named_in(sys.argv[1:]))
    run(parse_options(TrainConfig, "python -m jowa.train", default=default, description=TrainConfig.__doc__))


if __name__ == "__main__":
    main()
