"""Files of a data set that change while somebody reads them are noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jowa.data.changes import UnchangedFiles
from jowa.errors import DataError


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def replace(path: Path) -> None:
    """As a writer does that appends: another file of the same name, however alike."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize(
    ("change", "said"), [(rewrite, "was changed"), (replace, "was changed"), (Path.unlink, "was deleted")]
)
@pytest.mark.parametrize("name", ["frames", "actions", "rewards"])
def test_a_changed_shard_is_named(make_store: Callable, name: str, change: Callable, said: str) -> None:
    store = make_store(Boxing=[3, -9, 8, 1], Pong=[17, -33, 4])
    watched = UnchangedFiles(store, ("Pong",))
    watched.check()
    others = [path for path in (store.path / "Boxing" / name / "c").rglob("*") if path.is_file()]
    change(others[0])
    watched.check()
    file = next(path for path in (store.path / "Pong" / name / "c").rglob("*") if path.is_file())
    change(file)
    with pytest.raises(DataError) as caught:
        watched.check()
    assert f"{file} {said}" in str(caught.value) and "\n" not in str(caught.value)
