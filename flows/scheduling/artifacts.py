"""Artifacts of a run in Prefect's UI: tables, facts, a link to the report, and an event when a plate drifts.

They contain only facts from records and outcomes, so no address with a credential.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from flows.evaluation.evaluate import Evaluated
from flows.scheduling.watch import Outcome
from flows.segmentation.archive import ArchiveRecord
from flows.segmentation.record import RunRecord
from pipeline.report.markdown import markdown_page

SHOWN = 2000
"""Upper limit of rows in a table artifact; the report has all rows."""

NUMBERS = ("summary", "precision", "errors", "groups", "scores")
"""Sections of the page of an evaluation that an artifact shows; images are in the page."""

DRIFT_EVENT = "platelayer.plate.drift"
"""Name of the event that an automation can act upon."""


def publish_record(record: RunRecord, page: str = "") -> None:
    """Publish a run: a table of images, the facts, and a link to the report."""
    rows: list[dict[str, Any]] = [
        {"image": path or "image", "objects": facts["objects"]} for path, facts in record.images.items()
    ]
    create_table_artifact(
        table=rows[:SHOWN] or [{"image": "none", "objects": 0}], key="platelayer-images",
        description=f"{record.name} in {record.output}",
    )  # fmt: skip
    stages = "\n".join(
        f"| {name} | {facts['seconds']:.1f} | {facts['px'] / 1e6 / max(facts['seconds'], 1e-9):.1f} |"
        for name, facts in record.stages.items()
    )
    create_markdown_artifact(
        f"**{record.name}** in {record.output}, run {record.run}: {record.status}, {record.objects} objects\n\n"
        f"| stage | s | Mpx/s |\n|---|---|---|\n{stages}\n\n{_set_aside(record.failures)}\n",
        key="platelayer-run",
    )
    if page:
        _link(page)


def publish_archive(archive: ArchiveRecord) -> None:
    """Publish an archive: a line per store, and a link to its report."""
    rows: list[dict[str, Any]] = [
        {"store": key, "status": record.status, "objects": record.objects, "set aside": len(record.failures)}
        for key, record in archive.stores.items()
    ]
    rows += [{"store": key, "status": "set aside", "reason": why} for key, why in archive.set_aside.items()]
    create_table_artifact(table=rows[:SHOWN], key="platelayer-archive", description=archive.place)
    _link(archive.report)


def publish_outcome(outcome: Outcome) -> None:
    """Publish a plate: counts, failures, scores, drift against earlier plates, and a link to its report."""
    facts = asdict(outcome)
    shown = ("plate", "status", "images", "objects", "run", "name", "output", "attempts", "ended")
    row = {name: facts[name] for name in shown} | {
        "set aside": len(outcome.failures), "drift": "; ".join(outcome.drift), "report": outcome.report,
    }  # fmt: skip
    create_table_artifact(table=[row | outcome.scores], key="platelayer-plate", description=outcome.plate)
    drifts = "\n".join(f"- {one}" for one in outcome.drift) or "none beyond the threshold"
    problems = "\n".join(f"- {one}" for one in outcome.problems) or "none"
    create_markdown_artifact(
        f"**{outcome.plate}**: {outcome.status}, {outcome.objects} objects in {outcome.images} image(s)\n\n"
        f"Drift against earlier plates:\n\n{drifts}\n\nProblems:\n\n{problems}\n\n{_set_aside(outcome.failures)}\n",
        key="platelayer-plate-facts",
    )
    if outcome.report:
        _link(outcome.report)
    if outcome.drift:
        emit_event(
            event=DRIFT_EVENT,
            resource={"prefect.resource.id": f"platelayer.plate.{outcome.plate}"},
            payload={"plate": outcome.plate, "drift": outcome.drift, "report": outcome.report},
        )


def publish_evaluation(evaluated: Evaluated) -> None:
    """Publish an evaluation: its tables of numbers, and a link to its page."""
    page = evaluated.page
    shown = tuple(section for section in page.sections if section.name in NUMBERS)
    create_markdown_artifact(markdown_page(replace(page, sections=shown)), key="platelayer-evaluation")
    _link(evaluated.place)


def _link(page: str) -> None:
    # A browser opens local files by a file URL only; of object storage the plain address is shown.
    link = page if "://" in page else Path(page).resolve().as_uri()
    create_link_artifact(link=link, link_text="report", key="platelayer-report")


def _set_aside(failures: list[dict[str, str]]) -> str:
    lines = "\n".join(f"- {f['image'] or 'image'} in {f['stage']}: {f['reason']}" for f in failures)
    return f"Set aside:\n\n{lines or 'none'}"
