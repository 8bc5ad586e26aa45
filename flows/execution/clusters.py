"""Dask as an executor: a cluster of processes on this machine, or an existing scheduler.

Tasks are tiles, never a graph over the image. GPU workers are recognised by the resource ``GPU``; every task of the
network requests a part of it, so that a worker reads and writes some tiles while another is in the network.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dask

from flows.execution.executors import Pool, Serial, has_gpu_driver
from flows.execution.forkserver import ENVIRONMENT, METHOD, WORKER, begin
from flows.execution.memory import keep_memory
from flows.execution.versions import versions
from flows.jobs import Execution
from pipeline.errors import RunConflict

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 10
"""How long an existing scheduler, and its first worker, may take to answer."""

ALONE_S = 60
"""Seconds without any worker after which a run gives up."""

GPU_SHARE = 0.3
"""Part of a worker's GPU that one tile requests: three tiles are in progress at a time, one in the network."""

GPU_THREADS = 3
"""Threads of a GPU worker: one in the network, the others reading and writing."""

GPU_PROCESSES = 2
"""Worker processes that share a GPU."""

TOGETHER = 1000
"""Upper limit of the units of work in a call; the number is chosen by time (`windows.CALL_S`)."""

TOLD = ("platelayer", "python", "numpy", "zarr", "dask")
"""Versions that must be the same here and on the workers."""


@contextmanager
def dask_pool(
    execution: Execution, workers: int, *, threads: int = 1, preload: Sequence[str] = ()
) -> Iterator[Pool]:
    """Connect to the scheduler a job names, or start worker processes of so many threads on this machine."""
    _quiet()
    keep_memory()
    local = execution.executor == "dask"
    opened = _local(execution, workers, threads, preload) if local else _connected(execution.executor)
    with opened as client:
        yield _pool(client, execution)


def _quiet() -> None:
    """Silence Dask's logging unless the user configured it; Dask sets it up on import, here and on workers."""
    dask.config.set({"logging": {"distributed": _log_level().lower(), "tornado": "critical"}})


def _log_level() -> str:
    return os.environ.get("PLATELAYER_LOG", "CRITICAL")


@contextmanager
def _local(execution: Execution, workers: int, threads: int, preload: Sequence[str]) -> "Iterator[Client]":
    """Worker processes on this machine, which end with this process."""
    begin(preload)
    from distributed import Client, Nanny, Scheduler, SpecCluster, utils

    # The forkserver has its modules: Dask would set others, and import pandas here to find out which there are.
    utils._forkserver_preload_set = True

    # Processes, because torch and numpy hold the GIL too long for threads, except while one of them waits.
    options: dict[str, Any] = {
        "host": "127.0.0.1", "nthreads": threads, "memory_limit": 0, "dashboard": False,
    }  # fmt: skip
    options |= {
        "silence_logs": _log_level(),
        "preload": [WORKER, *preload],
        "env": {**os.environ, **ENVIRONMENT},
    }
    spec = {f"cpu-{i}": {"cls": Nanny, "options": options} for i in range(workers)}
    for gpu in _gpus(execution.device):
        mine = options | {"nthreads": GPU_THREADS, "resources": {"GPU": 1}}
        mine["env"] = {**os.environ, **ENVIRONMENT, "CUDA_VISIBLE_DEVICES": gpu}
        spec |= {f"gpu-{gpu}-{i}": {"cls": Nanny, "options": mine} for i in range(GPU_PROCESSES)}
    # A free port, because on the default port every further cluster warns that it is in use.
    place = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": place}
    with (
        dask.config.set(
            {
                "distributed.worker.daemon": True,
                "distributed.worker.multiprocessing-method": METHOD,
                "distributed.worker.profile.enabled": False,  # Dask's profiler samples every thread 100 times a second.
                "distributed.admin.tick.interval": "1s",  # A tick of 20 ms costs idle processes 8 % of a core.
                "distributed.nanny.pre-spawn-environ": {} if METHOD == "forkserver" else ENVIRONMENT,
            }
        ),
        SpecCluster(workers=spec, scheduler=scheduler, silence_logs=False) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _gpus(device: str) -> list[str]:
    """GPUs of this machine that a job may use, as CUDA_VISIBLE_DEVICES names them."""
    # The driver's files are a quick check; torch, which takes seconds to import, is used only if they exist.
    if device in ("cpu", "openvino") or not has_gpu_driver():
        return []
    import torch

    count = torch.cuda.device_count()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return chosen.split(",")[:count] if chosen else [str(index) for index in range(count)]


@contextmanager
def _connected(url: str) -> "Iterator[Client]":
    from distributed import Client

    try:
        client = Client(url, timeout=CONNECT_S)
    except (OSError, ValueError, TypeError) as error:  # TypeError: tls:// without a certificate
        raise RunConflict(
            f"no Dask scheduler answered at {url} within {CONNECT_S} s ({error}); is it running?"
        ) from None
    with client:
        _check_workers(client, url)
        yield client


def _check_workers(client: "Client", url: str) -> None:
    """Refuse a cluster without workers, or with workers of another installation."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError:
        raise RunConflict(
            f"the Dask scheduler at {url} has no workers; start some (dask worker {url}) and try again"
        ) from None
    # A worker that has gone by now is ignored here; the run continues without it.
    answers = client.run(versions, on_error="return")
    answers = {worker: answer for worker, answer in answers.items() if not isinstance(answer, OSError)}
    failed = next((answer for answer in answers.values() if isinstance(answer, Exception)), None)
    if failed is not None:
        raise RunConflict(
            f"the Dask workers of {url} cannot run platelayer ({failed}); install it on every worker"
        )
    expected = versions()
    for worker, theirs in answers.items():
        other = [
            f"{name} {theirs.get(name)} (here {expected.get(name)})"
            for name in TOLD
            if theirs.get(name) != expected.get(name)
        ]
        if other:
            raise RunConflict(
                f"the Dask worker {worker} has another installation: {', '.join(other)}; install the same versions"
            )


def expected_pool(execution: Execution, workers: int) -> Pool:
    """The pool of so many local workers of one thread and no GPU, before they have started; its calls run here."""
    here = Serial()
    return Pool(cpu=here, gpu=here, workers=workers, window=workers * execution.window, together=TOGETHER)


def _pool(client: "Client", execution: Execution) -> Pool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    offered = any(worker["resources"].get("GPU") for worker in workers)
    if execution.device == "cuda" and not offered:
        raise RunConflict(
            "the job asks for a GPU (execution.device=cuda) but no worker offers one; start workers with "
            '--resources "GPU=1", or set execution.device=cpu'
        )
    cpu = client.get_executor(pure=False)
    share = {"GPU": GPU_SHARE}
    apart = offered and execution.device in ("auto", "cuda")
    gpu = client.get_executor(pure=False, resources=share) if apart else cpu
    threads = max(sum(worker["nthreads"] for worker in workers), 1)
    with_gpu = sum(worker["nthreads"] for worker in workers if worker["resources"].get("GPU"))
    return Pool(
        cpu=cpu,
        gpu=gpu,
        workers=threads,
        window=threads * execution.window,
        together=TOGETHER,
        apart=apart,
        gpu_workers=with_gpu if apart else 0,
        check=_watch(client, apart=apart),
    )


def _watch(client: "Client", *, apart: bool) -> Callable[[bool], None]:
    """Return a check of the cluster: RunConflict when the scheduler has gone or had no suitable worker for too long.

    ``apart``: tiles of the network go to GPU workers only, and would otherwise wait for one for ever.
    """
    missing_since: float | None = None

    def check(gpu: bool) -> None:
        nonlocal missing_since
        try:
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
        except (OSError, ValueError, RuntimeError) as error:
            raise RunConflict(
                f"the Dask scheduler has gone ({error}); start it and give the same command again, "
                "finished work is kept"
            ) from None
        kind = "Dask worker with a GPU" if gpu and apart else "Dask worker"
        if any(worker["resources"].get("GPU") for worker in workers) if gpu and apart else workers:
            missing_since = None
            return
        missing_since = missing_since or time.monotonic()
        if time.monotonic() - missing_since > ALONE_S:
            raise RunConflict(
                f"no {kind} for {ALONE_S} s; start some and give the same command again, finished work is kept"
            )

    return check
