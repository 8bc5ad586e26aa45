"""Preload script of the Dask workers that a run starts."""

import signal
from typing import Any

from flows.execution.memory import keep_memory


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C and SIGTERM, because the run stops its workers; keep memory from the first thread on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    keep_memory()
