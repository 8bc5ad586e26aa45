"""The main job under Prefect: the same stages, as tasks of a flow run.

A task is one stage of one group of images, so a run has at most a few hundred tasks; tiles are sent to Dask or to the
local executor inside the task. Prefect retries a task only after its tiles were retried individually.
"""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import FailedRun, MissingContextError, MissingResult
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.evaluation.evaluate import Evaluated, EvaluateJob, evaluate
from flows.execution.orchestrate import reach_api
from flows.jobs import SegmentJob, WatchJob
from flows.scheduling.artifacts import publish_evaluation, publish_outcome, publish_record
from flows.scheduling.plate import process, report_run
from flows.scheduling.watch import Outcome, Watch, open_watch, tick
from flows.segmentation.record import Progress, RunRecord, silent
from flows.segmentation.run import segment
from flows.segmentation.stages.tiles import TileJob
from pipeline.errors import BadArgument, BadStore, RunConflict

LOG_S = 30
"""Seconds between lines of progress in the log of a flow run."""

EXPLAINED = (FailedRun, BadArgument, BadStore, RunConflict)
"""Errors whose message says all that a user needs."""

FAULTS = ("failed", "partial", "conflict")
"""Outcomes of a plate that make its flow run fail."""


class OneLine(logging.Filter):
    """Logs a failure that its flow run explains as that explanation, without the stack of Prefect's engine."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten a record about such a failure; every record passes."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, EXPLAINED):
            record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
        return True


for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(OneLine())


class RunLog:
    """An observer that logs the progress of the flow run."""

    def __init__(self) -> None:
        self._done = self._total = 0
        self._said = 0.0

    def start(self, stage: str, total: int) -> None:
        """Start counting."""
        self._done, self._total, self._said = 0, total, time.monotonic()

    def advance(self, stage: str, item: TileJob | None) -> None:
        """Count, and report at intervals."""
        self._done += 1
        if time.monotonic() - self._said > LOG_S:
            self._said = time.monotonic()
            _log().info("%s: %d of %d", stage, self._done, self._total)

    def finish(self, stage: str) -> None:
        """Report the end of the stage."""
        _log().info("%s: %d of %d, done", stage, self._done, self._total)


def _log() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


def _is_worth_retrying(task: Any, run: Any, state: State) -> bool:
    """Whether a failed stage may succeed when repeated: not if the job, the data or another run caused the failure."""
    try:
        state.result()
    except (BadArgument, BadStore, RunConflict):
        return False
    except Exception:
        # Other causes (a dead worker, a full disk, the network) may have passed.
        return True
    return False


def as_task(call: Callable[..., Any], *arguments: Any, name: str) -> Any:
    """Call a stage as a Prefect task; arguments are not recorded, because they contain long lists of jobs."""

    def stage() -> Any:
        return call(*arguments)

    # No cache key from the inputs: the ledger beside the data records finished work.
    run = task(
        name=name.split()[0], task_run_name=name, retries=1, retry_condition_fn=_is_worth_retrying,
        cache_policy=NO_CACHE, persist_result=False,
    )(stage)  # fmt: skip
    return run()


def run_segment(job: SegmentJob, progress: Progress = silent) -> RunRecord:
    """Run a job as a flow of the configured server, in this process."""
    reach_api()

    @flow(
        name="segment", flow_run_name=f"segment {job.source}", persist_result=False, validate_parameters=False
    )
    def segment_here() -> RunRecord:
        return _segmented(job, progress)

    return segment_here()


def _segmented(job: SegmentJob, progress: Progress) -> RunRecord:
    record = segment(job, progress=progress, step=as_task)
    page = ""
    if record.images:
        try:
            page = as_task(report_run, record, job.source, name="report")
        except (BadArgument, BadStore) as error:
            _log().warning("no report: %s", error)
    publish_record(record, page)
    return record


@flow(name="segment", flow_run_name="segment {job.source}", persist_result=False)
def segment_flow(job: SegmentJob) -> dict[str, Any]:
    """Segment every image of a source; for deployments: the parameter is the job itself."""
    record = _segmented(job, RunLog())
    if record.failures:
        raise RunConflict(
            f"{len(record.failures)} image(s) were set aside; run again to repair them: {record.failures}"
        )
    return {"run": record.run, "objects": record.objects, "images": len(record.images)}


@flow(name="evaluate", flow_run_name="evaluate {job.prediction}", persist_result=False)
def evaluate_flow(job: EvaluateJob) -> Evaluated:
    """Evaluate a whole dataset: a task per group of images, one for the report; the numbers are artifacts."""
    evaluated = evaluate(job, step=as_task)
    publish_evaluation(evaluated)
    return evaluated


def run_evaluate(job: EvaluateJob) -> Evaluated:
    """Evaluate as a flow of the configured server, in this process."""
    reach_api()
    return evaluate_flow(job)


@flow(name="plate", flow_run_name="plate {plate}", persist_result=False)
def plate_flow(watch: WatchJob, plate: str) -> State:
    """Segment, evaluate and report one plate of a watched place; a repeated run is resumed."""
    outcome = process(open_watch(watch), plate, step=as_task, progress=RunLog())
    if outcome.status != "busy":
        publish_outcome(outcome)
    for warning in outcome.drift:
        _log().warning("drift: %s", warning)
    return _state(outcome)


def _state(outcome: Outcome) -> State:
    reasons = "; ".join([*outcome.problems, *(failure["reason"] for failure in outcome.failures)])
    message = f"{outcome.status}: {reasons}" if reasons else f"{outcome.status}: {outcome.objects} objects"
    kind = Failed if outcome.status in FAULTS else Completed
    return kind(message=message, data=asdict(outcome))


@flow(name="watch", flow_run_name="watch {watch.place}", persist_result=False)
def watch_flow(watch: WatchJob) -> State:
    """Check a place once and process every complete, unfinished plate; one flow run per plate."""
    opened = open_watch(watch)
    with ExitStack() as stack:
        try:
            stack.enter_context(opened.alone())
        except RunConflict:
            return Completed(message="another look on this host is still at work")
        states = {outcome.plate: outcome.status for outcome in tick(opened, partial(_as_subflow, opened))}
    failed = [plate for plate, status in states.items() if status in FAULTS]
    if failed:
        named = ", ".join(failed)
        return Failed(
            message=f"{len(failed)} of {len(states)} plate(s) failed: {named}; their flow runs say why"
        )
    return Completed(message=f"{len(states)} plate(s) done: {', '.join(states) or 'none was ready'}")


def _as_subflow(watch: Watch, plate: str) -> Outcome:
    """Process a plate as a flow run of its own, whose failure does not stop the check of the others."""
    state = plate_flow(watch.job, plate, return_state=True)
    try:
        answer = state.result(raise_on_failure=False)
    except MissingResult:
        # The state came from the server, which keeps no results: this flow run had ended before its parent was retried.
        answer = None
    if isinstance(answer, dict):
        return Outcome(**answer)
    kept = watch.outcome(plate) if state.is_completed() else None
    return kept or Outcome(
        plate=plate, status="failed", problems=[f"{state.name}: {state.message or answer}"]
    )
