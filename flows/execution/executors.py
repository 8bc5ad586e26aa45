"""Workers of a run, and the outcomes of calls on them; every executor is a `concurrent.futures.Executor`.

Only tiles, addresses, small values and the encoded layers of small images are pickled. This module does not know
what the calls do; `flows.execution.windows` submits them.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import BadArgument, BadStore
from pipeline.store.places.traffic import Traffic

Result = TypeVar("Result")


class Serial(Executor):
    """An executor that runs each call immediately in the calling thread."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> "Future[Result]":
        """Call ``function`` now and return a finished future."""
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _always(gpu: bool) -> None:
    """Do nothing: local workers cannot disappear."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Workers of a run: ``gpu`` runs the network, ``cpu`` everything else; they may be the same."""

    cpu: Executor
    gpu: Executor
    workers: int
    window: int
    """Calls in flight."""
    together: int = 1
    """Upper limit of short units of work per call; more than one where a call costs milliseconds."""
    apart: bool = False
    """Whether the network runs on other workers than everything else."""
    gpu_workers: int = 0
    """Number of the workers that run the network, where it has workers of its own."""
    check: Callable[[bool], None] = _always
    """Raises RunConflict when no suitable worker is left; its argument says whether the network needs one."""


ALONE = Pool(cpu=Serial(), gpu=Serial(), workers=1, window=1)
"""No workers: every call runs in the calling thread."""


def has_gpu_driver() -> bool:
    """Whether the files of a GPU driver are on this machine: a quick answer, where importing torch takes seconds."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def usable_cores() -> int:
    """Cores this process may use, as the scheduler or container grants them, not all cores of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class StageFailed(Exception):
    """Error of a call that goes through several stages: the stage, the place and the cause."""

    def __init__(self, stage: str, where: str, cause: BaseException) -> None:
        super().__init__(stage, where, cause)
        self.stage, self.where, self.cause = stage, where, cause


@contextmanager
def failing_in(stage: str, where: object) -> Iterator[None]:
    """Attach the name of a stage to any error raised inside the block."""
    try:
        yield
    except Exception as error:
        raise StageFailed(stage, str(where), error) from error


@dataclass(frozen=True)
class Outcome:
    """How a unit of work ended."""

    item: Any
    result: Any = None
    error: BaseException | None = None
    retries: int = 0
    traffic: Traffic = Traffic()
    """Requests and bytes of the worker process since its last report."""
    stage: str = ""
    """The stage that failed, if the call names one."""
    where: str = ""
    """The tile or image at which it failed."""
    seconds: float = 0.0
    """Seconds that a worker took; 0 for a failure."""


@dataclass(frozen=True)
class Answer:
    """Return value of a call for several units of work."""

    results: list[Any]
    """Results of the units in order, up to the first failure."""
    traffic: Traffic
    """Requests and bytes of the process since its last report."""
    seconds: float
    """Duration of the call in s."""


def cause_of(error: BaseException) -> BaseException:
    """Return the cause of an error, without the stage."""
    return error.cause if isinstance(error, StageFailed) else error


def describe_error(error: BaseException) -> str:
    """Message for the user about an error of a unit of work."""
    if type(error).__name__ == "KilledWorker":
        return (
            "every worker process that tried it died: too little memory, or a crash in a library; "
            "try fewer workers or a smaller tiling.core"
        )
    if isinstance(error, BadArgument | BadStore):
        return str(error)
    return f"{type(error).__name__}: {error}"
