"""`platelayer train`: a job file, and a model that can be resumed."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.commands.terminal import print_line
from flows.jobs import TrainJob, job, read_toml, with_settings
from flows.jobs import example as job_example
from pipeline.errors import BadArgument

if TYPE_CHECKING:
    from model.training.loop import Trained

LINE_S = 15
"""Seconds between lines of progress."""


def train(
    job_file: Annotated[str | None, Parameter(help="Job file (.toml); --example prints one.")] = None,
    *,
    set: Annotated[
        list[str] | None, Parameter(help="Any key of the job: change.batch=4", negative="")
    ] = None,
    minutes: Annotated[float | None, Parameter(help="Shorten the phases to so many minutes in all.")] = None,
    steps: Annotated[int | None, Parameter(help="Shorten the phases to so many steps in all.")] = None,
    pack: Annotated[
        str | None,
        Parameter(help="Write the samples into this file for `python -m model.fit`; train nothing."),
    ] = None,
    example: Annotated[bool, Parameter(help="Print a commented job file.", negative="")] = False,
) -> int:
    """Train a model from ingested images with truth; a killed training is resumed by the same command."""
    if example:
        sys.stdout.write(job_example(TrainJob))
        return 0
    if job_file is None and not set:
        raise BadArgument("train: expected a job file; `platelayer train --example` prints one")
    if minutes is not None and steps is not None:
        raise BadArgument("train: expected --minutes or --steps, got both")
    table: dict[str, Any] = read_toml(job_file) if job_file else {}
    work = job(TrainJob, with_settings(table, set or []))
    from flows.training.train import pack as pack_samples
    from flows.training.train import train_model

    lines = _Lines()
    try:
        if pack is not None:
            print_line(f"{pack_samples(work, pack) / 2**20:.1f} MiB -> {pack}")
            return 0
        trained = train_model(work, minutes=minutes, steps=steps, on_step=lines, say=print_line)
    except ValueError as error:
        raise BadArgument(str(error)) from None
    _say(trained, fresh=lines.called)
    return 0


def _say(trained: "Trained", *, fresh: bool) -> None:
    from model.training.parallel import is_first

    if not is_first():
        return
    best = _judged(trained.score)
    steps = (
        f"{trained.steps} steps" if fresh else f"nothing to do: all {trained.steps} steps were done before"
    )
    before = trained.initial_score
    if before is not None and trained.score < before:
        print_line(
            f"below the model it started from, {_judged(before)}: keep that model, or train longer or at a lower lr"
        )
    left = "" if trained.finished else ", not finished: start again to go on"
    sys.stdout.write(f"{steps}, {best}{left} -> {trained.folder}\n")


def _judged(score: float) -> str:
    """Name a score with its value; a recipe may choose its best model by the loss, which is stored negated."""
    return f"best validation score {score:.4f}" if score >= 0 else f"lowest validation loss {-score:.4f}"


class _Lines:
    """Reports the progress of a training at intervals, from the first of several processes."""

    def __init__(self) -> None:
        self._began = self._said = time.perf_counter()
        self._first: int | None = None

    @property
    def called(self) -> bool:
        """Whether there was a step."""
        return self._first is not None

    def __call__(self, step: int, steps: int) -> None:
        from model.training.parallel import is_first

        now = time.perf_counter()
        self._first = step if self._first is None else self._first
        if is_first() and (now - self._said > LINE_S or step == steps):
            self._said = now
            rate = (step - self._first) / max(now - self._began, 1e-3)
            left = f", {(steps - step) / rate / 60:.0f} min left" if rate else ""
            print_line(f"step {step}/{steps}{left}")
