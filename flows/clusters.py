"""Dask as an executor: a cluster of processes on this machine, or an existing scheduler.

Tasks are tiles, never a graph over the image. GPU workers are taken by the resource ``GPU``.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

from flows.executors import Pool
from flows.jobs import Execution
from pipeline.errors import RunConflict

CONNECT_S = 10
"""How long an existing scheduler may take to answer."""


@contextmanager
def dask_pool(execution: Execution, workers: int) -> Iterator[Pool]:
    """Connect to the scheduler a job names, or start worker processes on this machine."""
    if execution.executor == "dask":
        resources = {"GPU": 1} if execution.device == "cuda" else None
        # Processes, one thread each: torch and numpy hold the interpreter's lock too long for threads.
        with (
            dask.config.set({"distributed.worker.daemon": True, "distributed.admin.log-format": "%(message)s"}),
            LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None,
                resources=resources, silence_logs=50, memory_limit=0,
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            yield _pool(client, execution, workers)
        return
    with _connected(execution.executor) as client:
        client.get_versions(check=True)
        count = len(client.scheduler_info(n_workers=-1)["workers"])
        yield _pool(client, execution, max(count, 1))


def _connected(url: str) -> Client:
    try:
        return Client(url, timeout=CONNECT_S)
    except (OSError, TimeoutError) as error:
        raise RunConflict(
            f"no Dask scheduler answered at {url} within {CONNECT_S} s ({error}); is it running?"
        ) from None


def _pool(client: Client, execution: Execution, workers: int) -> Pool:
    cpu = client.get_executor(pure=False)
    if execution.device != "cuda":
        return Pool(cpu, cpu, workers, "dask")
    offered = [
        w for w in client.scheduler_info(n_workers=-1)["workers"].values() if w["resources"].get("GPU")
    ]
    if not offered:
        raise RunConflict(
            "the job asks for a GPU (execution.device=cuda) but no worker offers one; start workers with "
            '--resources "GPU=1", or set execution.device=cpu'
        )
    return Pool(cpu, client.get_executor(pure=False, resources={"GPU": 1}), workers, "dask")
