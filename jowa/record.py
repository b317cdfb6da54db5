"""``python -m jowa.record``: record Atari play into an episode store.

Scripted experts, look-ahead in the simulator, random play or a trained agent; interrupt it whenever you like, run
the same command again and it goes on where it stopped.
"""

from __future__ import annotations

import sys

from jowa.data.record import RecordConfig, record
from jowa.errors import command
from jowa.options import parse_options


@command
def main() -> None:
    """Parse the options, record, and say in one line what there is now."""
    config = parse_options(RecordConfig, "python -m jowa.record", description=__doc__)
    summary = record(config, progress=sys.stderr.isatty())
    print(summary.describe())


if __name__ == "__main__":
    main()
