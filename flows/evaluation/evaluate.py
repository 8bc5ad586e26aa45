"""Evaluation of a whole dataset: the comparison of its images, the numbers and the page.

The steps are called through a `Step`: directly, or as tasks of a Prefect flow, with the same result.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from flows.evaluation.comparing import TRUTH, Compared, Labelled, compare
from flows.evaluation.layout import read_layout
from flows.evaluation.pictures import Comparisons
from flows.execution.orchestrate import Step, direct
from flows.execution.versions import now, versions
from pipeline.errors import BadArgument, BadStore
from pipeline.metrics.comparison import Difference, difference
from pipeline.metrics.evaluation import Evaluation
from pipeline.report.blocks import Page
from pipeline.report.evaluation.assessment import Assessment
from pipeline.report.evaluation.page import evaluation_page
from pipeline.report.layout import CONDITION
from pipeline.report.markdown import csv_tables, markdown_page
from pipeline.report.page import html_page
from pipeline.report.provenance import Pairs, model_facts
from pipeline.store.ledger import ROOT, Ledger
from pipeline.store.ome.labels import label_origin
from pipeline.store.ome.tables import table_bytes
from pipeline.store.places.address import Address, address


@dataclass(frozen=True, kw_only=True)
class EvaluateJob:
    """What to compare, and what to write about it."""

    prediction: str
    """Store, plate or folder of stores with the predicted labels."""
    truth: str = ""
    """The same with the true labels; default: the same place."""
    report: str = "evaluation"
    """Folder for the numbers and the page."""
    prediction_name: str | None = None
    """Predicted labels; default: the only ones beside the truth."""
    truth_name: str = TRUTH
    """True labels."""
    layout: str | None = None
    """CSV or Parquet table with columns well (or image) and condition, maybe plate: numbers by condition."""
    condition_column: str = CONDITION
    """Column of the layout that holds the conditions."""
    split_components: bool = False
    """Every connected part of a label is an object of its own (for semantic masks, on both sides)."""
    project: str = "none"
    """max: compare the projections of both sides over z, where of objects above each other only the
    pixels of the larger id are left; none: plane by plane."""
    baseline: tuple[str, ...] = ()
    """Folders of other evaluations to compare with."""
    strict: bool = False
    """Refuse images that lack a side or a condition, and a layout that names places without an image."""
    markdown: bool = False
    """Also write the page as Markdown."""
    csv: bool = False
    """Also write its tables as CSV."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The result of an evaluation."""

    compared: Compared
    """The numbers."""
    page: Page
    """The report."""
    place: str
    """Address of report.html."""


def evaluate(job: EvaluateJob, *, step: Step = direct) -> Evaluated:
    """Compare, write numbers and page; nothing is written unless the whole job is valid.

    Raises:
        BadArgument, BadStore: a side, the layout or a baseline cannot be used.
    """
    baselines = {address(folder).name: read_evaluation(folder) for folder in job.baseline}
    if len(baselines) < len(job.baseline):
        raise BadArgument("--baseline: two folders of one name; the name stands in the tables, so rename one")
    layout = read_layout(job.layout, column=job.condition_column) if job.layout else None
    compared = compare(
        job.prediction, job.truth or job.prediction, prediction_name=job.prediction_name,
        truth_name=job.truth_name, layout=layout, strict=job.strict,
        split_components=job.split_components, project=job.project == "max", step=step,
    )  # fmt: skip
    title = address(job.prediction).name
    page = step(write_report, compared, job.report, title, baselines, job.markdown, job.csv, name="report")
    return Evaluated(compared=compared, page=page, place=str(address(job.report).child("report.html")))


def read_evaluation(folder: str) -> Evaluation:
    """Read what an earlier evaluation wrote; one that kept no sums is shown without intervals of the difference."""
    place = address(folder)
    try:
        summary = json.loads(place.read_bytes("summary.json"))
        images, matches = (_table(place.read_bytes(f"{name}.parquet")) for name in ("metrics", "matches"))
        sums = place.read_bytes_or_none("sums.parquet")
    except (BadStore, OSError, ValueError) as error:
        raise BadArgument(f"--baseline {folder}: expected the folder of an evaluation ({error})") from None
    return Evaluation(
        images=images, matches=matches, summary=summary, sums=_table(sums) if sums else pd.DataFrame()
    )


def _table(data: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(data))


def write_report(
    compared: Compared,
    folder: str,
    title: str,
    baselines: Mapping[str, Evaluation] | None = None,
    markdown: bool = False,
    csv: bool = False,
) -> Page:
    """Write the numbers and the page of an evaluation; return the page."""
    baselines = baselines or {}
    differences = {name: _difference(compared, name, run) for name, run in baselines.items() if len(run.sums)}
    assessment = Assessment(
        title=title, name=compared.prediction_name, evaluation=compared.evaluation, baselines=baselines,
        differences=differences, facts=compared.facts(), provenance=provenance(compared),
        models=_models(compared),
    )  # fmt: skip
    page = evaluation_page(assessment, picture=Comparisons(compared.pairs).picture)
    place = address(folder)
    write_numbers(compared, place, differences)
    place.write_bytes("report.html", html_page(page).encode())
    if markdown:
        place.write_bytes("report.md", markdown_page(page).encode())
    for name, table in (csv_tables(page) if csv else {}).items():
        place.write_bytes(f"{name}.csv", table.encode())
    return page


NO_RUN = "not recorded in the store of the labels"


def provenance(compared: Compared) -> Pairs:
    """Provenance of an evaluation: labels, truth, their run and model, date and version of the code."""
    predictions = {
        labelled.address.url: labelled for _, labelled in compared.pairs.values() if labelled is not None
    }
    prediction, truth = next(iter(predictions.values())), next(iter(compared.pairs.values()))[0]
    records = [_run_of(labelled) for labelled in predictions.values()]
    facts = [model_facts(record) for record in records]
    models = list(dict.fromkeys(fact["Model"] for fact in facts if fact["Model"]))
    more = f" and {len(predictions) - 1} more store(s)" if len(predictions) > 1 else ""
    named = {
        "Date": f"{now()[:10]} UTC",
        "Scored labels": f"{prediction.name} in {prediction.address}{more}",
        "Truth": f"{truth.name} in {truth.address}{more}",
        "Run": ", ".join(str(record["run"]) for record in records if record) or NO_RUN,
        # With several models, the thresholds and filters of one would be taken for those of all.
        **(facts[0] if len(models) <= 1 else {"Model": ", ".join(models)}),
        "Code": f"platelayer {versions().get('platelayer', '')}",
    }
    return tuple((name, value) for name, value in named.items() if value)


def _models(compared: Compared) -> dict[str, str]:
    """Name and digest of the model that segmented each plate; plates whose run is not recorded are left out."""
    sides = {
        true.address.name.removesuffix(".zarr"): labelled
        for true, labelled in compared.pairs.values()
        if labelled
    }
    models = {plate: model_facts(_run_of(labelled))["Model"] for plate, labelled in sides.items()}
    return {plate: model for plate, model in models.items() if model}


def _run_of(labels: Labelled) -> dict[str, Any]:
    """Record of the run that made some labels: the one with the fingerprint that the labels carry."""
    origin = label_origin(labels.address, labels.image.path, labels.name)
    for run in labels.address.children(ROOT):
        record = Ledger(labels.address, run).find_json("record.json")
        if record and record.get("name") == labels.name and record.get("origin", origin) == origin:
            return record
    return {}


def _difference(compared: Compared, name: str, baseline: Evaluation) -> Difference:
    try:
        return difference(compared.evaluation, baseline)
    except BadArgument as error:
        raise BadArgument(f"--baseline {name}: {error}") from None


def write_numbers(compared: Compared, folder: Address, differences: Mapping[str, Difference]) -> None:
    """Write summary.json and the tables of images, matches, groups, and the sums that a later run is compared by."""
    evaluation = compared.evaluation
    summary: dict[str, Any] = evaluation.summary | {
        "images": len(evaluation.images),
        "compared": compared.facts(),
    }
    if differences:
        summary["differences"] = {name: difference.as_dict() for name, difference in differences.items()}
    tables = {"metrics": evaluation.images, "matches": evaluation.matches, "sums": evaluation.sums}
    tables |= {f"metrics_by_{name}": table for name, table in evaluation.groups.items()}
    for name, table in tables.items():
        folder.write_bytes(f"{name}.parquet", table_bytes(table))
    folder.write_bytes("summary.json", json.dumps(summary, indent=1).encode())
