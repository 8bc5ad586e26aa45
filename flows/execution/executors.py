"""Executors: serial, threads, dask, all as the standard `concurrent.futures.Executor`, and a bounded window.

Only tiles, addresses and small values are pickled. Nothing here knows what the work is.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from flows.jobs import Execution
from pipeline.errors import BadArgument, BadStore, RunConflict
from pipeline.store.places.faults import StoreLost
from pipeline.store.places.traffic import Traffic, take_counts

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Tiles at once in a process that works on a server's data: one is read or written while one is in the network."""

POLL_S = 5.0
"""After so long without an outcome, look whether the workers are still there."""


class Serial(Executor):
    """Runs each call at once, in this thread."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> "Future[Result]":
        """Call now; the future that comes back is done."""
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _always(gpu: bool) -> None:
    """Local workers do not go away."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Workers of a run: ``gpu`` takes the network's tiles, ``cpu`` all others; they may be the same."""

    cpu: Executor
    gpu: Executor
    workers: int
    window: int
    """Pieces of work in flight."""
    together: int = 1
    """Short pieces of work that travel as one call at most, where a call costs milliseconds."""
    check: Callable[[bool], None] = _always
    """Raises RunConflict when no worker is left that could do the work, which may be the network's."""


def usable_cores() -> int:
    """Cores this process may use: what the scheduler or container grants, not what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def pool(execution: Execution, *, remote: bool = False) -> Iterator[Pool]:
    """Open the workers a job asks for and close them afterwards.

    ``remote``: images or results are on a server; then tiles are read ahead of the network.
    """
    kind, workers = execution.executor, execution.workers or usable_cores()
    if kind == "serial" and remote:
        with ThreadPoolExecutor(AHEAD) as threads:
            yield Pool(cpu=Serial(), gpu=threads, workers=1, window=AHEAD)
    elif kind == "serial":
        serial = Serial()
        yield Pool(cpu=serial, gpu=serial, workers=1, window=1)
    elif kind == "threads":
        with ThreadPoolExecutor(workers) as threads:
            yield Pool(cpu=threads, gpu=threads, workers=workers, window=workers * execution.window)
    elif kind == "dask" or kind.startswith(("tcp://", "tls://")):
        from flows.execution.clusters import dask_pool

        with dask_pool(execution, workers, threads=AHEAD if remote else 1) as cluster:
            yield cluster
    else:
        raise BadArgument(f"executor: expected serial, threads, dask or tcp://host:port, got {kind!r}")


@dataclass(frozen=True)
class Outcome:
    """How a piece of work ended."""

    item: Any
    result: Any = None
    error: BaseException | None = None
    retries: int = 0
    traffic: Traffic = Traffic()
    """What the process that did it sent and got since it last said so."""


@dataclass(frozen=True)
class Counted:
    """A call for several pieces of work that also says what its process sent and got.

    Keeps the name of the call, which Dask shows.
    """

    call: Callable[[Any], Any]

    @property
    def __name__(self) -> str:
        named = self.call.func if isinstance(self.call, partial) else self.call
        return str(getattr(named, "__name__", "work"))

    def __call__(self, items: Sequence[Any]) -> tuple[list[Any], Traffic]:
        """Call one after the other, and take the count."""
        return [self.call(item) for item in items], take_counts()


def calls_of(items: Sequence[Item], *, together: int, workers: int) -> Iterator[tuple[Item, ...]]:
    """Cut pieces of work into calls: of ``together``, then of fewer and fewer, so that all workers end at one time."""
    start = 0
    while start < len(items):
        size = min(max((len(items) - start) // (2 * workers), 1), together)
        yield tuple(items[start : start + size])
        start += size


def run_window(
    pool: Pool,
    call: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    retries: int,
    gpu: bool = False,
    together: int = 1,
) -> Generator[Outcome, None, None]:
    """Call ``call`` on every item, a bounded number in flight; yield outcomes as they come.

    A call that raises is tried again up to ``retries`` times and then reported, never raised, but for what puts
    the run itself in doubt: a RunConflict at once, a `StoreLost` after the retries. Whatever ends the iteration,
    calls that have not begun are cancelled. Up to ``together`` items travel as one; where one of them fails, each is
    called again by itself.
    """
    executor, counted = (pool.gpu if gpu else pool.cpu), Counted(call)
    waiting = calls_of(items, together=max(min(together, pool.window), 1), workers=pool.workers)
    following = next(waiting, ())
    running: dict[Future[tuple[list[Result], Traffic]], tuple[tuple[Item, ...], int]] = {}
    try:
        while True:
            while following and _in_flight(running) + len(following) <= pool.window:
                running[executor.submit(counted, following)] = (following, 0)
                following = next(waiting, ())
            if not running:
                return
            done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            if not done:
                pool.check(gpu)
            for future in done:
                some, tried = running.pop(future)
                error = _error(future)
                if error is None:
                    results, traffic = future.result()
                    for item, result in zip(some, results, strict=True):
                        yield Outcome(item, result, retries=tried, traffic=traffic)
                        traffic = Traffic()
                elif len(some) > 1:
                    running |= {executor.submit(counted, (item,)): ((item,), 0) for item in some}
                elif tried < retries and not isinstance(error, BadArgument):
                    running[executor.submit(counted, some)] = (some, tried + 1)
                elif isinstance(error, StoreLost):
                    raise error
                else:
                    yield Outcome(some[0], error=error, retries=tried)
    finally:
        for future in running:
            future.cancel()


def _in_flight(running: Mapping[Future, tuple[tuple[Any, ...], int]]) -> int:
    return sum(len(some) for some, _ in running.values())


def _error(future: Future) -> BaseException | None:
    """What a call raised; raises what ends the run."""
    try:
        error = future.exception()
    except CancelledError:
        raise RunConflict(
            "the Dask scheduler dropped work it had taken (it was stopped, or its connection broke); start it and "
            "give the same command again, finished work is kept"
        ) from None
    if isinstance(error, RunConflict):
        raise error
    return error


def describe_error(error: BaseException) -> str:
    """What an error of a piece of work says to a person."""
    if type(error).__name__ == "KilledWorker":
        return (
            "every worker process that tried it died: too little memory, or a crash in a library; "
            "try fewer workers or a smaller tiling.core"
        )
    if isinstance(error, BadArgument | BadStore):
        return str(error)
    return f"{type(error).__name__}: {error}"
