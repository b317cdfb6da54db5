"""A training run from its settings to its table of scores."""

from __future__ import annotations

import os
from dataclasses import replace

from jowa.hub import find_agent
from jowa.train.checks import check_config, check_split
from jowa.train.config import TrainConfig
from jowa.train.distributed import process_group
from jowa.train.dry_run import show
from jowa.train.folder import begin
from jowa.train.session import play_and_report, prepare_data, train
from jowa.train.stop import Stopped, stop_at_once


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
