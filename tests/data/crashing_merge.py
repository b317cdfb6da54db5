"""A merge that kills itself (SIGKILL) at its n-th write; started by test_merge.py.

Arguments: ``before`` or ``after`` the n-th file is put in its place, n, the new store, the sources.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from jowa.data.merge import merge


def main() -> None:
    where, number, out, *sources = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("crashing", Path(__file__).with_name("crashing_writer.py"))
    crashing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(crashing)
    crashing.crash_at_write(int(number), where)
    merge(sources, Path(out), progress=False)


if __name__ == "__main__":
    main()
