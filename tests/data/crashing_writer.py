"""A writer that kills itself (SIGKILL) at its n-th write to the store; started by test_store.py.

Arguments: folder, ``before`` or ``after`` the n-th file is put in its place, n, lengths of the episodes.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

from jowa.data.writer import EpisodeWriter


def crash_at_write(number: int, where: str) -> None:
    """Replace ``Path.replace`` and ``Path.rename``, through which every finished file gets its name."""
    calls = 0

    def wrap(original):
        def moved(self: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls == number and where == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(self, target)
            if calls == number and where == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return moved

    Path.replace, Path.rename = wrap(Path.replace), wrap(Path.rename)


def main() -> None:
    folder, where, number, *lengths = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("episodes", Path(__file__).with_name("conftest.py"))
    episodes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(episodes)
    make_episode = episodes.episode_maker
    crash_at_write(int(number), where)
    with EpisodeWriter.open(folder) as writer:
        for number in range(writer.num_episodes("Pong"), len(lengths)):
            writer.append(make_episode("Pong", int(lengths[number]), number))


if __name__ == "__main__":
    main()
