"""Loaded into every Dask worker that a run starts, before it takes work."""

import signal
from typing import Any

from flows.execution.memory import keep_memory


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C and SIGTERM to the run, which stops its workers; keep memory from the first thread on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    keep_memory()
