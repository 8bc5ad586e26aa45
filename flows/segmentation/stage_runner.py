"""A run in progress: its plan, workers and record, and the images it had to set aside."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from flows.execution.executors import Outcome, Pool, describe_error
from flows.execution.windows import Phase, run_phases
from flows.segmentation.image_job import ImageJob, TileJob
from flows.segmentation.plan import Plan
from flows.segmentation.record import Progress, RunRecord
from pipeline.store.ledger import Hold
from pipeline.store.places.traffic import take_counts

T = TypeVar("T")


def pixels_of(about: TileJob | ImageJob) -> int:
    """Pixels of a tile, or of a whole image."""
    shape = about.tile.core.shape if isinstance(about, TileJob) else about.extent
    return int(np.prod(shape))


def tile_pixels(about: TileJob | ImageJob) -> int:
    """Pixels of a tile; 0 for work on a whole image, which is done beside that on its tiles."""
    return pixels_of(about) if isinstance(about, TileJob) else 0


@dataclass
class Run:
    """A plan in progress."""

    plan: Plan
    pool: Pool
    record: RunRecord
    progress: Progress
    hold: Hold
    failed: set[str] = field(default_factory=set)
    """Images that were set aside, by their keys in the scratch."""
    empty: set[str] = field(default_factory=set)
    """Keys of the images in which the limits found only noise."""

    def alive(self, works: Iterable[ImageJob]) -> list[ImageJob]:
        """Images that were not set aside."""
        return [work for work in works if work.key not in self.failed]

    def set_aside(self, work: ImageJob, stage: str, where: object, reason: str) -> None:
        """Set an image aside that cannot be finished; it is never written as zeros."""
        self.failed.add(work.key)
        self.record.failure(image=work.image.path, stage=stage, where=str(where), reason=reason)

    def each(
        self,
        stage: str,
        call: Callable[[T], Any],
        todo: Sequence[T],
        *,
        item: Callable[[T], TileJob | ImageJob],
        gpu: bool = False,
        short: bool | None = None,
        pixels: Callable[[TileJob | ImageJob], int] = pixels_of,
    ) -> Iterator[Outcome]:
        """Run ``call`` on every unit of work, a bounded number at a time; failures set their image aside.

        Args:
            stage: name in the record and for the observer.
            call: the function.
            todo: the argument of each call.
            item: returns the tile or image that an argument is about.
            gpu: run on the workers of the network.
            short: whether many may be sent as one call; by default unless they are for the network.
            pixels: pixels that a finished call adds, for the rate that is shown.
        """
        together = self.pool.together if (not gpu if short is None else short) else 1
        yield from self.through(
            stage, [Phase(call=call, gpu=gpu, together=together)], todo, item=item, pixels=pixels
        )

    def through(
        self,
        stage: str,
        phases: Sequence[Phase],
        todo: Sequence[Any],
        *,
        item: Callable[[Any], TileJob | ImageJob],
        pixels: Callable[[TileJob | ImageJob], int] = pixels_of,
    ) -> Iterator[Outcome]:
        """Take every unit of work through several phases, as `each` does; the outcomes are those of the last phase."""
        if not todo:
            return
        started, done_px, busy_s, last = time.perf_counter(), 0, 0.0, len(phases) - 1
        retries = self.plan.job.execution.retries
        self.progress.start(stage, len(todo))
        try:
            # Closed after any exception here: calls that have not started are cancelled before the workers stop.
            with closing(run_phases(self.pool, phases, todo, retries=retries)) as outcomes:
                for phase, outcome in outcomes:
                    self.hold.check()
                    self.record.retried(stage, outcome.retries)
                    self.record.moved(stage, outcome.traffic)
                    busy_s += outcome.seconds
                    if phase < last and outcome.error is None:
                        continue
                    about = item(outcome.item)
                    self.progress.advance(stage, about if isinstance(about, TileJob) else None)
                    if outcome.error is None:
                        done_px += pixels(about)
                        yield outcome
                    else:
                        self._set_aside(stage, about, outcome)
        finally:
            elapsed = time.perf_counter() - started
            self.record.spent(stage, elapsed, done_px, len(todo))
            self.record.worked(stage, busy_s, of_s=elapsed * self.pool.workers)
            self.record.moved(stage, take_counts())
        self.progress.finish(stage)

    def _set_aside(self, stage: str, about: TileJob | ImageJob, outcome: Outcome) -> None:
        """Set an image aside because a unit of work failed after all retries."""
        work = about.work if isinstance(about, TileJob) else about
        reason = describe_error(outcome.error) if outcome.error else ""
        self.set_aside(work, outcome.stage or stage, outcome.where or about, reason)
