"""Opening the workers a job asks for: this thread, threads, processes of this machine, or a Dask cluster."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from flows.execution.executors import Pool, Serial, has_gpu_driver, usable_cores
from flows.execution.starting import opened_meanwhile
from flows.jobs import Execution
from pipeline.errors import BadArgument

AHEAD = 2
"""Concurrent tiles in a process that works on remote data: one is read or written while one is in the network."""


def prepare_pool(execution: Execution, *, preload: Sequence[str] = ()) -> None:
    """Begin to start what a pool will need, if that takes long; returns at once, and may be called twice."""
    if execution.executor == "dask":
        from flows.execution.forkserver import begin

        begin(preload)


@contextmanager
def open_pool(
    execution: Execution, *, remote: bool = False, preload: Sequence[str] = (), early: bool = False
) -> Iterator[Pool]:
    """Open the workers a job asks for and close them afterwards.

    Args:
        execution: kind and number of workers.
        remote: images or results are on a server; then tiles are read ahead of the network.
        preload: modules that worker processes of this machine import before they take work.
        early: whether this process may do the first calls while worker processes of this machine start.

    Raises:
        BadArgument: no such kind of executor.
        RunConflict: the cluster does not answer, has no workers, or workers of another installation.
    """
    kind, workers = execution.executor, execution.workers or usable_cores()
    if kind == "serial" and remote:
        with ThreadPoolExecutor(AHEAD) as threads:
            yield Pool(cpu=Serial(), gpu=threads, workers=1, window=AHEAD)
    elif kind == "serial":
        serial = Serial()
        yield Pool(cpu=serial, gpu=serial, workers=1, window=1)
    elif kind == "threads":
        with ThreadPoolExecutor(workers) as threads:
            yield Pool(cpu=threads, gpu=threads, workers=workers, window=workers * execution.window)
    elif kind == "dask" or kind.startswith(("tcp://", "tls://")):
        from flows.execution.clusters import dask_pool, expected_pool

        opening = dask_pool(execution, workers, threads=AHEAD if remote else 1, preload=preload)
        if early and kind == "dask" and not remote and not has_gpu_driver():
            opening = opened_meanwhile(expected_pool(execution, workers), opening)
        with opening as cluster:
            yield cluster
    else:
        raise BadArgument(f"executor: expected serial, threads, dask or tcp://host:port, got {kind!r}")
