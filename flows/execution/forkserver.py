"""The server process from which the worker processes of this machine are forked, with their modules imported.

A spawned worker imports Dask and the stages, which takes two seconds; a forked one is ready immediately. Python's
forkserver is used: a process of a single thread, which is safe to fork. It imports while the run is planned. Neither
torch nor a segmenter is imported in it, because a process that has used a GPU must not be forked.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from flows.execution.memory import KEPT_BYTES

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
"""Start method of worker processes; Windows has no forkserver."""

ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(KEPT_BYTES)),
    "MALLOC_ARENA_MAX": "1",
}
"""Environment of workers: one thread per library, and the allocator settings of `keep_memory` from the start."""


QUIET = {"PYTHONWARNINGS": "ignore:resource_tracker"}
"""Environment of the process that removes the locks of workers: after a SIGTERM to all of them it would say that there
were some."""

WORKER = "flows.execution.worker"
"""Preload module of every worker."""


def begin(preload: Sequence[str]) -> None:
    """Start the forkserver of this process, unless it runs, and let it import some modules; returns at once."""
    if METHOD != "forkserver":
        return
    from multiprocessing import forkserver, resource_tracker

    with _environment(QUIET):
        resource_tracker.ensure_running()
    # A worker also imports the script that started the run, and with it the command line.
    script = [name for name in ("flows.cli",) if name in sys.modules]
    forkserver.set_forkserver_preload(["distributed", WORKER, *preload, *script])
    with _environment(ENVIRONMENT):
        forkserver.ensure_running()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a process that is started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
