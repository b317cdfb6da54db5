"""``python -m jowa.train``: record, train, play, print the table; under ``torchrun`` on several processes."""

from __future__ import annotations

import sys

from jowa.errors import command
from jowa.options import parse_options
from jowa.train.config import TrainConfig
from jowa.train.presets import get_train_preset


def preset_named_in(arguments: list[str]) -> str:
    """The value of ``--preset`` among ``arguments``: it decides every other default, so it is read first."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--preset="):
            return argument.removeprefix("--preset=")
        if argument == "--preset" and index + 1 < len(arguments):
            return arguments[index + 1]
    return "tiny"


@command
def main() -> None:
    """Entry point."""
    default = get_train_preset(preset_named_in(sys.argv[1:]))
    config = parse_options(TrainConfig, "python -m jowa.train", default=default, description=TrainConfig.__doc__)
    from jowa.train.run import run  # here: the options are known without torch, in a tenth of the time

    run(config)


if __name__ == "__main__":
    main()
