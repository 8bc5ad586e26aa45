"""Loaded into every Dask worker that a run starts, before it takes work."""

import signal
from typing import Any

from flows.execution.memory import keep_memory


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the run, which closes its workers in order; keep memory from the first thread on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()
