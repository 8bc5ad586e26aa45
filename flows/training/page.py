"""The page of a training, from the table of curves that it left in its folder."""

from pathlib import Path

from flows.execution.versions import written_by
from flows.jobs import TrainJob
from model.training.curves import read_table
from pipeline.report.page import html_page
from pipeline.report.training_page import Rows, training_page

PAGE = "training.html"


def write_training_page(job: TrainJob, folder: Path, before: Rows) -> None:
    """Write the page of a training beside its table of curves, unless the table is as ``before`` and the page there."""
    rows, target = read_table(folder), folder / PAGE
    if rows == before and target.exists():
        return
    facts = (
        ("Data", ", ".join(job.data)),
        ("Recipe", job.recipe),
        ("Started from", job.initial or "random weights"),
        *written_by(),
    )
    target.write_text(html_page(training_page(folder.name, rows, provenance=facts)), encoding="utf-8")
