"""`platelayer train`: a job file, and a model that can be resumed."""

import sys
import time
from typing import Annotated, Any

from cyclopts import Parameter

from flows.jobs import TrainJob, job, read_toml, with_settings
from flows.jobs import example as job_example
from pipeline.errors import BadArgument

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
    from flows.train import train_model

    try:
        trained = train_model(work, on_step=_Lines())
    except ValueError as error:
        raise BadArgument(str(error)) from None
    sys.stdout.write(
        f"{trained.steps} steps, best validation score {trained.score:.4f} -> {trained.folder}\n"
    )
    return 0


class _Lines:
    """Says now and then how far the training is."""

    def __init__(self) -> None:
        self._began = self._said = time.perf_counter()
        self._first: int | None = None

    def __call__(self, step: int, steps: int) -> None:
        now = time.perf_counter()
        self._first = step if self._first is None else self._first
        if now - self._said > LINE_S or step == steps:
            self._said = now
            rate = (step - self._first) / max(now - self._began, 1e-3)
            left = f", {(steps - step) / rate / 60:.0f} min left" if rate else ""
            sys.stdout.write(f"step {step}/{steps}{left}\n")
            sys.stdout.flush()
