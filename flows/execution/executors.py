"""Calls on workers, a bounded number in flight, with retries; every executor is a `concurrent.futures.Executor`.

Only tiles, addresses and small values are pickled. This module does not know what the calls do.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pipeline.errors import BadArgument, BadStore, RunConflict
from pipeline.store.places.faults import StoreLost
from pipeline.store.places.traffic import Traffic, take_counts

Item = TypeVar("Item")
Result = TypeVar("Result")

CALL_S = 0.3
"""Target length in s of a call: short units of work are sent together, since a call to a process costs milliseconds."""

CALLS_AHEAD = 2
"""Calls of several units in flight per worker."""

POLL_S = 5.0
"""Seconds without an outcome after which the workers are checked."""


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
    check: Callable[[bool], None] = _always
    """Raises RunConflict when no suitable worker is left; its argument says whether the network needs one."""


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
    """How long a worker took; 0 where it failed."""


@dataclass(frozen=True)
class Answer:
    """Return value of a call for several units of work."""

    results: list[Any]
    """Results of the units in order, up to the first failure."""
    traffic: Traffic
    """Requests and bytes of the process since its last report."""
    seconds: float
    """Duration of the call in s."""


@dataclass(frozen=True)
class Batch:
    """A call for several units of work; it keeps the name of the function, which Dask displays."""

    call: Callable[[Any], Any]

    @property
    def __name__(self) -> str:
        named = self.call.func if isinstance(self.call, partial) else self.call
        return str(getattr(named, "__name__", "work"))

    def __call__(self, items: Sequence[Any]) -> Answer:
        """Call for one unit after the other; stop at the first failure, and raise it if no unit succeeded before."""
        started, results = time.perf_counter(), []
        for item in items:
            try:
                results.append(self.call(item))
            except Exception:
                if not results:
                    raise
                break
        return Answer(results, take_counts(), time.perf_counter() - started)


class Batches:
    """Groups units of work into calls of about `CALL_S`, by the time that recent units took."""

    def __init__(self, items: Sequence[Any], *, most: int, workers: int) -> None:
        self._items, self._next, self._most, self._workers = items, 0, most, workers
        self._seconds: float | None = None
        """Seconds per unit; None before the first has finished."""

    def learn(self, pieces: int, seconds: float) -> None:
        """Update the estimate with the duration of some units."""
        latest = max(seconds / pieces, 1e-6)
        # The first call also imports modules and loads the segmenter, so its time is soon replaced.
        self._seconds = latest if self._seconds is None else (self._seconds + latest) / 2

    def following(self) -> tuple[Any, ...]:
        """Return the units of the next call; fewer towards the end, so that all workers finish at the same time."""
        left = len(self._items) - self._next
        fair = max(left // (2 * self._workers), 1)
        start, self._next = self._next, self._next + min(self._fitting(), fair, left)
        return tuple(self._items[start : self._next])

    def _fitting(self) -> int:
        """Number of units that fit into a call; one before the first has finished."""
        if self._most == 1 or self._seconds is None:
            return 1
        return max(min(round(CALL_S / self._seconds), self._most), 1)


def run_window(
    pool: Pool,
    call: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    retries: int,
    gpu: bool = False,
    together: int = 1,
) -> Generator[Outcome, None, None]:
    """Call ``call`` on every item, a bounded number in flight; yield the outcomes in order of completion.

    A call that fails is repeated up to ``retries`` times and then reported, not raised. Two errors concern the whole
    run and are raised: `RunConflict` immediately, `StoreLost` after the retries. When the iteration ends for any
    reason, calls that have not started are cancelled. Up to ``together`` quick items are sent as one call; an item
    that fails in such a call is repeated alone, and the others without it.
    """
    executor, batch = (pool.gpu if gpu else pool.cpu), Batch(call)
    # Calls of this length need no long queue: each worker has one in progress and one waiting.
    most = pool.window if together == 1 else min(pool.window, CALLS_AHEAD * pool.workers)
    waiting = Batches(items, most=together, workers=pool.workers)
    following = waiting.following()
    running: dict[Future[Answer], tuple[tuple[Item, ...], int]] = {}
    try:
        while True:
            while following and len(running) < most:
                running[executor.submit(batch, following)] = (following, 0)
                following = waiting.following()
            if not running:
                return
            done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            if not done:
                pool.check(gpu)
            for future in done:
                some, tried = running.pop(future)
                error = _error(future)
                if error is None:
                    answer = future.result()
                    waiting.learn(len(answer.results), answer.seconds)
                    yield from _outcomes(some, answer, tried)
                    left = some[len(answer.results) :]
                    again = [part for part in (left[:1], left[1:]) if part]
                elif len(some) > 1:
                    again = [(item,) for item in some]
                elif tried < retries and not isinstance(cause_of(error), BadArgument):
                    running[executor.submit(batch, some)] = (some, tried + 1)
                    continue
                elif isinstance(cause_of(error), StoreLost):
                    raise cause_of(error)
                else:
                    yield _failed(some[0], error, tried)
                    continue
                running |= {executor.submit(batch, part): (part, 0) for part in again}
    finally:
        for future in running:
            future.cancel()


def _outcomes(items: Sequence[Any], answer: Answer, tried: int) -> Iterator[Outcome]:
    traffic, seconds = answer.traffic, answer.seconds / max(len(answer.results), 1)
    for item, result in zip(items, answer.results, strict=False):
        yield Outcome(item, result, retries=tried, traffic=traffic, seconds=seconds)
        traffic = Traffic()


def _failed(item: Any, error: BaseException, tried: int) -> Outcome:
    if isinstance(error, StageFailed):
        return Outcome(item, error=error.cause, retries=tried, stage=error.stage, where=error.where)
    return Outcome(item, error=error, retries=tried)


def cause_of(error: BaseException) -> BaseException:
    """Return the cause of an error, without the stage."""
    return error.cause if isinstance(error, StageFailed) else error


def _error(future: Future) -> BaseException | None:
    """Return the exception of a call; raise it if it ends the run."""
    try:
        error = future.exception()
    except CancelledError:
        raise RunConflict(
            "the Dask scheduler dropped work it had taken (it was stopped, or its connection broke); start it and "
            "give the same command again, finished work is kept"
        ) from None
    if error is not None and isinstance(cause_of(error), RunConflict):
        raise cause_of(error)
    return error


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
