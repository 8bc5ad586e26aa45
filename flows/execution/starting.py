"""Worker processes that are still starting: until they are there, this process does the work.

Dask takes two seconds to start, in which one process segments a hundred or more small fields.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from flows.execution.executors import Pool, Serial

Result = TypeVar("Result")


class Starting(Executor):
    """An executor that runs calls in the calling thread until its workers have started, and then on these."""

    def __init__(self, opening: "Future[Pool]") -> None:
        self._opening = opening
        self._here = Serial()

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> "Future[Result]":
        """Call ``fn`` now, or submit it to the workers; raises the error for which the workers did not start."""
        executor = self._opening.result().cpu if self._opening.done() else self._here
        return executor.submit(fn, *args, **kwargs)


@contextmanager
def opened_meanwhile(pool: Pool, opening: AbstractContextManager[Pool]) -> Iterator[Pool]:
    """Open a pool of workers in another thread, and use it as soon as it is open; see `Starting`.

    Args:
        pool: what is known of the pool before it is open: the number of workers, and how many calls they take.
        opening: opens it, and closes it at the end.
    """
    stack = ExitStack()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(stack.enter_context, opening)

        def check(gpu: bool) -> None:
            future.result().check(gpu)

        executor = Starting(future)
        try:
            yield replace(pool, cpu=executor, gpu=executor, check=check)
        finally:
            # In the same thread, because Dask's client belongs to the context in which it was opened.
            thread.submit(stack.close).result()
