"""The process that worker processes of this machine are forked from, with all that they need imported already.

Workers that are started from nothing each import Dask and the stages, two seconds of work; a forked one is there at
once. The forkserver of Python is used: a process of one thread that does nothing else, so forking it is safe. It
imports while the run is planned. Neither torch nor a segmenter is imported there, because a process that has used a
GPU must not be forked.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from flows.execution.memory import KEPT_BYTES

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
"""How worker processes are started; Windows knows no forkserver."""

ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(KEPT_BYTES)),
    "MALLOC_ARENA_MAX": "1",
}
"""Of workers: one thread each, and memory kept as `keep_memory` does, from the start: Dask's own threads come first."""


WORKER = "flows.execution.worker"
"""What every worker loads before it takes work."""


def begin(preload: Sequence[str]) -> None:
    """Start the forkserver of this process, unless it runs, and let it import some modules; returns at once."""
    if METHOD != "forkserver":
        return
    from multiprocessing import forkserver

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
