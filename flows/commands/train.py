"""`platelayer train`: a job file, and a model that can be resumed."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.jobs import TrainJob, job, read_toml, with_settings
from flows.jobs import example as job_example
from pipeline.errors import BadArgument

if TYPE_CHECKING:
    from model.training import Trained

LINE_S = 15
"""Seconds between lines of progress."""


def train(
    job_file: Annotated[str | None, Parameter(help="Job file (.toml); --example prints one.")] = None,
    *,
    set: Annotated[
        list[str] | None, Parameter(help="Any key of the job: change.batch=4", negative="")
    ] = None,
    example: Annotated[bool, Parameter(help="Print a commented job file.", negative="")] = False,
) -> int:
    """Train a model from ingested images with truth; killed and started again, it goes on where it was."""
    if example:
        sys.stdout.write(job_example(TrainJob))
        return 0
    if job_file is None and not set:
        raise BadArgument("train: expected a job file; `platelayer train --example` prints one")
    table: dict[str, Any] = read_toml(job_file) if job_file else {}
    work = job(TrainJob, with_settings(table, set or []))
    from flows.training.train import train_model

    lines = _Lines()
    try:
        trained = train_model(work, on_step=lines)
    except ValueError as error:
        raise BadArgument(str(error)) from None
    _say(trained, fresh=lines.called)
    return 0


def _say(trained: "Trained", *, fresh: bool) -> None:
    from model.parallel import is_first

    if not is_first():
        return
    # A recipe may choose its best model by the loss, which then counts with a minus.
    score = trained.score
    best = f"best validation score {score:.4f}" if score >= 0 else f"lowest validation loss {-score:.4f}"
    steps = (
        f"{trained.steps} steps" if fresh else f"nothing to do: all {trained.steps} steps were done before"
    )
    sys.stdout.write(f"{steps}, {best} -> {trained.folder}\n")


class _Lines:
    """Says now and then how far the training is; of several processes, the first one speaks."""

    def __init__(self) -> None:
        self._began = self._said = time.perf_counter()
        self._first: int | None = None

    @property
    def called(self) -> bool:
        """Whether there was a step."""
        return self._first is not None

    def __call__(self, step: int, steps: int) -> None:
        from model.parallel import is_first

        now = time.perf_counter()
        self._first = step if self._first is None else self._first
        if is_first() and (now - self._said > LINE_S or step == steps):
            self._said = now
            rate = (step - self._first) / max(now - self._began, 1e-3)
            left = f", {(steps - step) / rate / 60:.0f} min left" if rate else ""
            sys.stdout.write(f"step {step}/{steps}{left}\n")
            sys.stdout.flush()
