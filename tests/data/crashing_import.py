"""Imports that kill themselves (SIGKILL) at their n-th change to the store; started by test_dqn_replay_faults.py.

Arguments: source, folder, then the number of points and a seed.  A first import, into ``folder/once``, is let live and
its changes counted.  For each point a process forked from this one, which has loaded everything already, imports into
``folder/NUMBER`` and dies before or after one of as many changes, drawn at random; another one finishes.  Prints for
each what the two exited with, and the point.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from pathlib import Path

from jowa.data.dqn_replay.config import ImportConfig
from jowa.data.dqn_replay.importer import import_dqn_replay

CHANGES = ("replace", "rename", "unlink", "rmdir")
"""Methods of Path by which files get their names and lose them."""


calls = 0


def crash_at_change(number: int, where: str) -> None:
    def wrap(original):
        def changed(self: Path, *args, **kwargs):
            global calls
            calls += 1
            if calls == number and where == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(self, *args, **kwargs)
            if calls == number and where == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return changed

    for name in CHANGES:
        setattr(Path, name, wrap(getattr(Path, name)))


def run_import(source: str, out: Path) -> None:
    config = ImportConfig(source, ("Pong", "Freeway"), out, fraction=0.8, workers=1)
    import_dqn_replay(config, progress=False)


def in_child(work) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    source, folder, points, seed = sys.argv[1:]
    counted = Path(folder) / "count"

    def counting() -> None:
        crash_at_change(0, "never")
        run_import(source, Path(folder) / "once")
        counted.write_text(str(calls))

    assert in_child(counting) == 0
    changes, chance = int(counted.read_text()), random.Random(int(seed))
    for place in range(int(points)):
        out, where, number = Path(folder) / str(place), chance.choice(["before", "after"]), chance.randint(1, changes)

        first = 0
        # How many changes an import makes varies by a few with its pace: one may end before its point.
        while first == 0 and number:
            shutil.rmtree(out, ignore_errors=True)

            def dying(where: str = where, number: int = number, out: Path = out) -> None:
                crash_at_change(number, where)
                run_import(source, out)

            first = in_child(dying)
            number -= first == 0
        print(first, in_child(lambda out=out: run_import(source, out)), where, number, flush=True)


if __name__ == "__main__":
    main()
