"""Calls on workers: grouped by the time they take, a bounded number in flight, with retries.

A unit of work may pass several phases on different workers, such as the network on a GPU and the rest on a CPU. Its
second phase is submitted as soon as the first has finished, so that neither kind of worker waits for the other.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from flows.execution.executors import Answer, Outcome, Pool, StageFailed, cause_of
from pipeline.errors import BadArgument, RunConflict
from pipeline.store.places.faults import StoreLost
from pipeline.store.places.traffic import Traffic, take_counts

CALL_S = 0.3
"""Target length in s of a call: short units of work are sent together, since a call to a process costs milliseconds."""

CALLS_AHEAD = 2
"""Calls of several units in flight per worker."""

POLL_S = 5.0
"""Seconds without an outcome after which the workers are checked."""

QUEUED_PER_CALL = 4
"""Limit of the units that wait for the second phase, per call of it in flight; beyond it, the first phase pauses."""


@dataclass(frozen=True)
class Batch:
    """A call for several units of work; it keeps the name of the function, which Dask displays."""

    call: Callable[[Any], Any]
    many: Callable[[Sequence[Any]], list[Any]] | None = None
    """Processes all units at once, in one pass of the network; None: ``call`` for one after the other."""

    @property
    def __name__(self) -> str:
        named = self.call.func if isinstance(self.call, partial) else self.call
        return str(getattr(named, "__name__", "work"))

    def __call__(self, items: Sequence[Any]) -> Answer:
        """Process all units; stop at the first failure, and raise it if no unit succeeded before."""
        started = time.perf_counter()
        results = self._at_once(items) or []
        for item in items[len(results) :]:
            try:
                results.append(self.call(item))
            except (
                Exception
            ):  # Whatever it is, the finished units are kept, and the sender tries the failed one again.
                if not results:
                    raise
                break
        return Answer(results, take_counts(), time.perf_counter() - started)

    def _at_once(self, items: Sequence[Any]) -> list[Any] | None:
        """Return the results of all units; None without ``many``, or where it failed for one of them."""
        if self.many is None or len(items) < 2:
            return None
        try:
            return self.many(items)
        except Exception:  # Each unit is then called alone, so that its own error is reported.
            return None


class Batches:
    """Groups units of work into calls of about `CALL_S`, by the time that recent units took."""

    def __init__(self, items: Iterable[Any], *, most: int, workers: int) -> None:
        self._items, self._next, self._most, self._workers = list(items), 0, most, workers
        self._seconds: float | None = None
        """Seconds per unit; None before the first has finished."""

    def learn(self, pieces: int, seconds: float) -> None:
        """Update the estimate with the duration of some units."""
        latest = max(seconds / pieces, 1e-6)
        # The first call also imports modules and loads the segmenter, so its time is soon replaced.
        self._seconds = latest if self._seconds is None else (self._seconds + latest) / 2

    def add(self, item: Any) -> None:
        """Add a unit to the queue."""
        self._items.append(item)

    @property
    def left(self) -> int:
        """Number of units that are not in a call yet."""
        return len(self._items) - self._next

    def following(self) -> tuple[Any, ...]:
        """Return the units of the next call; fewer towards the end, so that all workers finish at the same time."""
        fair = max(self.left // (2 * self._workers), 1)
        start, self._next = self._next, self._next + min(self._fitting(), fair, self.left)
        return tuple(self._items[start : self._next])

    def _fitting(self) -> int:
        """Number of units that fit into a call; one before the first has finished."""
        if self._most == 1 or self._seconds is None:
            return 1
        return max(min(round(CALL_S / self._seconds), self._most), 1)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A function that is called for every unit of work, and the workers that run it."""

    call: Callable[[Any], Any]
    """The next phase is called with its result."""
    many: Callable[[Sequence[Any]], list[Any]] | None = None
    """The same for several units at once, see `Batch`."""
    gpu: bool = False
    """Whether the workers of the network run it."""
    together: int = 1
    """Upper limit of the units per call."""


class _Window:
    """The calls of one phase: those in flight, and the units that wait."""

    def __init__(self, pool: Pool, phase: Phase, items: Iterable[Any], retries: int) -> None:
        self._executor = pool.gpu if phase.gpu else pool.cpu
        self._batch, self._retries = Batch(phase.call, phase.many), retries
        # Calls of this length need no long queue: each worker has one in progress and one waiting.
        together, workers = phase.together, (phase.gpu and pool.gpu_workers) or pool.workers
        self.most = pool.window if together == 1 else min(pool.window, CALLS_AHEAD * workers)
        self.waiting = Batches(items, most=together, workers=workers)
        self.running: dict[Future[Answer], tuple[tuple[Any, ...], int]] = {}

    @property
    def is_full(self) -> bool:
        """Whether so many units are waiting that the previous phase should pause."""
        return self.waiting.left >= QUEUED_PER_CALL * self.most

    def fill(self) -> None:
        """Submit calls until enough are in flight."""
        while len(self.running) < self.most and (some := self.waiting.following()):
            self._send(some, 0)

    def collect(self, future: "Future[Answer]") -> Iterator[Outcome]:
        """Yield the outcomes of a finished call, and submit units again that have to be repeated."""
        some, tried = self.running.pop(future)
        error = _error(future)
        if error is None:
            answer = future.result()
            self.waiting.learn(len(answer.results), answer.seconds)
            yield from _outcomes(some, answer, tried)
            left = some[len(answer.results) :]
            for part in (left[:1], left[1:]):
                if part:
                    self._send(part, 0)
        elif len(some) > 1:
            for item in some:
                self._send((item,), 0)
        elif tried < self._retries and not isinstance(cause_of(error), BadArgument):
            self._send(some, tried + 1)
        elif isinstance(cause_of(error), StoreLost):
            raise cause_of(error)
        else:
            yield _failed(some[0], error, tried)

    def cancel(self) -> None:
        """Cancel the calls that have not started."""
        for future in self.running:
            future.cancel()

    def _send(self, some: tuple[Any, ...], tried: int) -> None:
        self.running[self._executor.submit(self._batch, some)] = (some, tried)


def run_window(
    pool: Pool,
    call: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    retries: int,
    gpu: bool = False,
    together: int = 1,
) -> Generator[Outcome, None, None]:
    """Call ``call`` on every item, a bounded number in flight; yield the outcomes in order of completion.

    See `run_phases` for retries and errors.
    """
    phase = Phase(call=call, gpu=gpu, together=together)
    for _, outcome in run_phases(pool, [phase], items, retries=retries):
        yield outcome


def run_phases(
    pool: Pool, phases: Sequence[Phase], items: Iterable[Any], *, retries: int
) -> Generator[tuple[int, Outcome], None, None]:
    """Take every item through all phases; yield (number of the phase, outcome) in order of completion.

    A call that fails is repeated up to ``retries`` times and then reported, not raised; the item passes no further
    phase. Two errors concern the whole run and are raised: `RunConflict` immediately, `StoreLost` after the retries.
    When the iteration ends for any reason, calls that have not started are cancelled. Up to ``together`` quick items
    are sent as one call; an item that fails in such a call is repeated alone, and the others without it.
    """
    windows = [_Window(pool, phase, items if not n else (), retries) for n, phase in enumerate(phases)]
    try:
        while True:
            for window, following in zip(windows, [*windows[1:], None]):
                if following is None or not following.is_full:
                    window.fill()
            running = {future: n for n, window in enumerate(windows) for future in window.running}
            if not running:
                return
            done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            if not done:
                for window, phase in zip(windows, phases):
                    if window.running:
                        pool.check(phase.gpu)
            for future in done:
                n = running[future]
                for outcome in windows[n].collect(future):
                    if outcome.error is None and n + 1 < len(windows):
                        windows[n + 1].waiting.add(outcome.result)
                    yield n, outcome
    finally:
        for window in windows:
            window.cancel()


def _outcomes(items: Sequence[Any], answer: Answer, tried: int) -> Iterator[Outcome]:
    traffic, seconds = answer.traffic, answer.seconds / max(len(answer.results), 1)
    for item, result in zip(items, answer.results, strict=False):
        yield Outcome(item, result, retries=tried, traffic=traffic, seconds=seconds)
        traffic = Traffic()


def _failed(item: Any, error: BaseException, tried: int) -> Outcome:
    if isinstance(error, StageFailed):
        return Outcome(item, error=error.cause, retries=tried, stage=error.stage, where=error.where)
    return Outcome(item, error=error, retries=tried)


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
