"""The executors behind long work: what is handed out, and what goes wrong."""

from __future__ import annotations

import errno
import operator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from jowa.data.workers import InThisProcess, as_finished, dask_workers, local_workers, plain_failures
from jowa.errors import JowaError, UsageError


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    with local_workers(workers) as pool:
        done = dict(as_finished(pool, 2 * workers, operator.neg, range(20)))
    assert done == {number: -number for number in range(20)}


def test_no_more_jobs_are_handed_out_than_asked_for() -> None:
    class Counting(InThisProcess):
        handed = 0

        def submit(self, function, /, *args, **kwargs) -> Future:
            self.handed += 1
            return super().submit(function, *args, **kwargs)

    pool: Executor = Counting()
    for done, _ in enumerate(as_finished(pool, 3, abs, range(10))):
        assert pool.handed <= done + 3
    assert pool.handed == 10


def test_failures_are_plain(tmp_path) -> None:
    with pytest.raises(OSError) as full, plain_failures(tmp_path, "pieces"):
        raise OSError(errno.ENOSPC, "No space left on device", "/some/temporary/file")
    assert full.value.filename == str(tmp_path)
    died = pytest.raises(JowaError, match=r"a working process died .*; finished pieces are kept")
    with died, plain_failures(tmp_path, "finished pieces"):
        raise BrokenProcessPool


def test_a_cluster_that_is_not_there_or_has_no_workers(tmp_path) -> None:
    pytest.importorskip("distributed")
    import dask
    import distributed

    nobody = pytest.raises(UsageError, match=r"no Dask scheduler at tcp://127.0.0.1:9 \(")
    with dask.config.set({"distributed.comm.timeouts.connect": "0.3s"}), nobody, dask_workers("tcp://127.0.0.1:9"):
        pass
    idle = pytest.raises(UsageError, match="has no workers: start some with dask worker")
    cluster = distributed.LocalCluster(n_workers=0, dashboard_address=None, processes=False)
    with cluster, idle, dask_workers(cluster.scheduler_address):
        pass
