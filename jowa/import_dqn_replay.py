"""``python -m jowa.import_dqn_replay``: import the published logs of DQN agents into an episode store.

Draws whole episodes from a local folder or an address; interrupt it whenever you like, run the same command
again and it does only what is missing. docs/dqn-replay.md has the rules.
"""

from __future__ import annotations

from jowa.data.dqn_replay.config import ImportConfig
from jowa.data.dqn_replay.importer import import_dqn_replay
from jowa.errors import command
from jowa.options import parse_options


@command
def main() -> None:
    """Parse the options, import, and say what there is now and what was left out."""
    config = parse_options(ImportConfig, "python -m jowa.import_dqn_replay", description=__doc__)
    summary = import_dqn_replay(config)
    print(summary.describe())


if __name__ == "__main__":
    main()
