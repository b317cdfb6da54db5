"""Writing files atomically, also from several threads."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from jowa.files import atomic_write_text


def test_threads_do_not_spoil_each_others_permissions(tmp_path, monkeypatch) -> None:
    umask = os.umask

    def slow(mask: int) -> int:
        before = umask(mask)
        time.sleep(0.001)  # long enough for the other threads to come in between
        return before

    before = umask(0o027)
    monkeypatch.setattr(os, "umask", slow)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda k: atomic_write_text(tmp_path / str(k), "x"), range(50)))
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}
        assert umask(0o027) == 0o027
    finally:
        umask(before)
