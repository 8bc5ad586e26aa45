"""Loaded into every Dask worker that a run starts: Ctrl-C is for the run, which closes its workers in order."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave interruption, which a terminal sends to all processes of a command, to the one that was started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
