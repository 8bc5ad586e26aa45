"""Executors: serial, threads, dask, all as the standard `concurrent.futures.Executor`, and a bounded window.

Only tiles, addresses and small values are pickled. Nothing here knows what the work is.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from flows.jobs import Execution
from pipeline.errors import BadArgument, RunConflict

Item = TypeVar("Item")
Result = TypeVar("Result")


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


@dataclass(frozen=True)
class Pool:
    """Workers of a run: ``gpu`` takes the network's tiles, ``cpu`` all others; they may be the same."""

    cpu: Executor
    gpu: Executor
    workers: int
    kind: str


def usable_cores() -> int:
    """Cores this process may use: what the scheduler or container grants, not what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def pool(execution: Execution) -> Iterator[Pool]:
    """Open the workers a job asks for and close them afterwards."""
    kind, workers = execution.executor, execution.workers or usable_cores()
    if kind == "serial":
        serial = Serial()
        yield Pool(serial, serial, 1, kind)
    elif kind == "threads":
        with ThreadPoolExecutor(workers) as threads:
            yield Pool(threads, threads, workers, kind)
    elif kind == "dask" or kind.startswith(("tcp://", "tls://")):
        from flows.clusters import dask_pool

        with dask_pool(execution, workers) as cluster:
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


def run_window(
    executor: Executor, call: Callable[[Item], Result], items: Iterable[Item], *, window: int, retries: int
) -> Iterator[Outcome]:
    """Call ``call`` on every item with at most ``window`` in flight; yield outcomes as they come.

    A call that raises is tried again up to ``retries`` times and then reported, never raised. A RunConflict
    (the run itself is in doubt) ends everything.
    """
    waiting = iter(items)
    running: dict[Future[Result], tuple[Item, int]] = {}
    exhausted = False
    while True:
        while not exhausted and len(running) < window:
            try:
                item = next(waiting)
            except StopIteration:
                exhausted = True
                break
            running[executor.submit(call, item)] = (item, 0)
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            item, tried = running.pop(future)
            error = future.exception()
            if error is None:
                yield Outcome(item, future.result(), retries=tried)
            elif isinstance(error, RunConflict):
                raise error
            elif tried < retries and not isinstance(error, BadArgument):
                running[executor.submit(call, item)] = (item, tried + 1)
            else:
                yield Outcome(item, error=error, retries=tried)
