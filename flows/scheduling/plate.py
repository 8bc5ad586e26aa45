"""Processing of one plate of a watched place: segment, evaluate if there is truth, report, compare.

It happens under the claim on the plate and ends with its outcome. After a kill it is resumed, because every part can
be resumed or writes the same files again.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from flows.evaluation.comparing import compare
from flows.evaluation.evaluate import write_report
from flows.evaluation.report import ReportOn, report_page
from flows.execution.executors import describe_error
from flows.execution.orchestrate import Step, direct
from flows.jobs import SegmentJob
from flows.scheduling.drift import add_to_history, drift, plate_numbers, read_history
from flows.scheduling.reports import write_index, write_plate_page
from flows.scheduling.watch import Outcome, Watch, changed, signature
from flows.segmentation.record import Progress, RunRecord, silent
from flows.segmentation.run import segment
from pipeline.errors import BadArgument, BadStore, RunConflict
from pipeline.report.page import html_page
from pipeline.store.ledger import ROOT, Ledger
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.labels import list_labels
from pipeline.store.ome.tables import read_table
from pipeline.store.places.address import address
from pipeline.store.places.faults import StoreLost

SCORES = ("meanAP", "AJI", "PQ")
"""Scores that an outcome contains; all others are in the evaluation beside the run."""


def process(watch: Watch, plate: str, *, step: Step = direct, progress: Progress = silent) -> Outcome:
    """Process a plate once; its failures are in the outcome, and only faults that do not concern the plate are raised.

    Raises:
        StoreLost: the source or the output is out of reach; the plate is tried again at the next tick.
    """
    with ExitStack() as stack:
        try:
            hold = stack.enter_context(watch.claim(plate))
        except RunConflict as error:
            return Outcome(plate=plate, status="busy", problems=[str(error)])
        before, now = watch.outcome(plate), signature(watch, plate)
        if watch.is_settled(before, lambda: now) is not None:
            return Outcome(plate=plate, status="busy", problems=["another server has just done it"])
        same = before is not None and before.signature == now
        begun = Outcome(
            plate=plate, status="failed", signature=now, attempts=1 + (before.attempts if before and same else 0)
        )  # fmt: skip
        job = watch.job_of(plate)
        if before is not None and before.run and not same:
            # Labels that this watch made of an earlier state of the plate may be replaced.
            job = replace(job, overwrite=True)
        outcome = _tried(watch, begun, job, step, progress)
        hold.check()
        if outcome.status != "conflict":
            outcome = changed(watch, outcome)
            watch.write_outcome(outcome)
            write_index(watch)
        return outcome


def _tried(watch: Watch, begun: Outcome, job: SegmentJob, step: Step, progress: Progress) -> Outcome:
    try:
        record = segment(job, step=step, progress=progress)
    except StoreLost:
        raise
    except RunConflict as error:
        return replace(begun, status="conflict", problems=[str(error)])
    except (BadArgument, BadStore) as error:
        return replace(begun, ended=_now(), problems=[str(error)])
    except Exception as error:
        # No failure of one plate may prevent the others from being processed.
        logging.getLogger(__name__).warning("%s failed", begun.plate, exc_info=True)
        return replace(begun, ended=_now(), problems=[describe_error(error)])
    return _followed(watch, begun, record, step)


def _followed(watch: Watch, begun: Outcome, record: RunRecord, step: Step) -> Outcome:
    """Run the steps after a segmentation; a failed step is named in the outcome and does not undo it."""
    outcome = replace(
        begun, status="partial" if record.failures or record.missing else "complete", ended=_now(),
        output=record.output, run=record.run, name=record.name, images=len(record.images),
        objects=record.objects, failures=record.failures, problems=list(record.missing),
    )  # fmt: skip
    source = str(watch.place.child(begun.plate))
    follow_ups: dict[str, tuple[Callable[..., Any], Callable[[Outcome], tuple]]] = {
        "scores": (evaluate, lambda _: (record, source, watch.job.truth)),
        "drift": (look_back, lambda sofar: (watch, begun.plate, sofar.ended, record)),
        # Last, so that the page contains the results of the other steps.
        "report": (report, lambda sofar: (watch, begun.plate, record, source, sofar.drift)),
    }
    for field, (call, arguments) in follow_ups.items():
        try:
            outcome = replace(outcome, **{field: step(call, *arguments(outcome), name=call.__name__)})
        except (BadArgument, BadStore) as error:
            outcome = replace(outcome, problems=[*outcome.problems, f"{call.__name__}: {error}"])
    return outcome


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def evaluate(record: RunRecord, source: str, truth: str) -> dict[str, float]:
    """Evaluate against the truth of the plate if there is one; numbers and page are written beside the run."""
    place = address(source)
    if not any(truth in list_labels(place, image.path) for image in open_collection(place).images):
        return {}
    compared = compare(record.output, source, prediction_name=record.name, truth_name=truth)
    write_report(compared, str(address(record.output).child(f"{ROOT}/{record.run}/evaluation")), place.name)
    summary = compared.evaluation.summary
    return {name: round(float(summary[name]), 4) for name in SCORES} | {"AP_0.5": summary["AP"]["0.5"]}


def report(watch: Watch, plate: str, record: RunRecord, source: str, drift: Sequence[str]) -> str:
    """Write the page of the run beside its record and to the reports of the watched place; return its address there."""
    page = report_page(_report_on(record, source, drift))
    data = html_page(page).encode()
    Ledger(address(record.output), record.run).write("report.html", data)
    return write_plate_page(watch, plate, page, data)


def _report_on(record: RunRecord, source: str, drift: Sequence[str] = ()) -> ReportOn:
    return ReportOn(store=record.output, name=record.name, source=source, run=record.run, drift=drift)


def report_run(record: RunRecord, source: str) -> str:
    """Write the page of a run outside of a watched place beside its record; return its address."""
    page = report_page(_report_on(record, source))
    beside = Ledger(address(record.output), record.run)
    beside.write("report.html", html_page(page).encode())
    return str(beside.output.child(f"{beside.folder}/report.html"))


def look_back(watch: Watch, plate: str, ended: str, record: RunRecord) -> list[str]:
    """Compare with earlier plates and add this one to the history, unless images are missing from it."""
    output = address(record.output)
    tables = [read_table(output, path, record.name).assign(image=path) for path in record.images]
    if not tables:
        return []
    numbers = plate_numbers(plate, ended, pd.concat(tables, ignore_index=True), record.images)
    differences = drift(numbers, read_history(watch.history), threshold=watch.job.drift)
    if not record.failures and not record.missing:
        add_to_history(watch.history, numbers)
    return [str(one) for one in differences]
