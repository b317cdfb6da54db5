"""Imports that kill themselves (SIGKILL) at their n-th change to the store; started by test_dqn_replay_faults.py.

Arguments: source, folder, then pairs of ``before`` or ``after`` and n.  For each pair a process forked from this
one, which has loaded everything already, imports into ``folder/NUMBER`` and dies; another one finishes.  Prints for
each what the two exited with.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from jowa.data.dqn_replay.config import ImportConfig
from jowa.data.dqn_replay.importer import import_dqn_replay

CHANGES = ("replace", "rename", "unlink", "rmdir")
"""Methods of Path by which files get their names and lose them."""


def crash_at_change(number: int, where: str) -> None:
    calls = 0

    def wrap(original):
        def changed(self: Path, *args, **kwargs):
            nonlocal calls
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
    source, folder, *points = sys.argv[1:]
    for place, (where, number) in enumerate(zip(points[::2], points[1::2], strict=True)):
        out = Path(folder) / str(place)

        def dying(where: str = where, number: str = number, out: Path = out) -> None:
            crash_at_change(int(number), where)
            run_import(source, out)

        first = in_child(dying)
        print(first, in_child(lambda out=out: run_import(source, out)), flush=True)


if __name__ == "__main__":
    main()
