"""``python -m jowa.finetune``: train an agent on, on few transitions of one game, and play it."""

from __future__ import annotations

from jowa.errors import JowaError, command
from jowa.finetune.config import FinetuneConfig, in_own_names
from jowa.options import parse_options


@command
def main() -> None:
    """Entry point."""
    options = parse_options(
        FinetuneConfig, "python -m jowa.finetune", first="agent", description=FinetuneConfig.__doc__
    )
    from jowa.train.run import run  # here: the options are known without torch, in a tenth of the time

    try:
        run(options.training())
    except JowaError as error:
        raise type(error)(in_own_names(str(error))) from error


if __name__ == "__main__":
    main()
