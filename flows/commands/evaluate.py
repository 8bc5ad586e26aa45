"""`platelayer evaluate`: predicted against true labels, as numbers and as a page."""

import json
import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
from cyclopts import Parameter

from flows.evaluate import TRUTH, Compared, compare, write_numbers
from flows.pictures import Comparisons
from pipeline.errors import BadArgument
from pipeline.metrics.evaluation import Evaluation
from pipeline.report.assessment import Assessment
from pipeline.report.evaluation_page import evaluation_page
from pipeline.report.markdown import csv_tables, markdown_page
from pipeline.report.page import html_page
from pipeline.store.address import address


def evaluate(
    prediction: Annotated[str, Parameter(help="Store, plate or folder of stores with the predicted labels.")],
    truth: Annotated[
        str | None, Parameter(help="The same with the true labels; default: the same place.")
    ] = None,
    *,
    report: Annotated[Path, Parameter(help="Folder for the numbers and the page.")] = Path("evaluation"),
    prediction_name: Annotated[
        str | None, Parameter(help="Predicted labels; default: the only ones.")
    ] = None,
    truth_name: Annotated[str, Parameter(help="True labels.")] = TRUTH,
    baseline: Annotated[
        list[Path] | None, Parameter(help="Folder of another evaluation to compare with.")
    ] = None,
    strict: Annotated[bool, Parameter(help="Refuse images that lack a side.", negative="")] = False,
    markdown: Annotated[bool, Parameter(help="Also write the page as Markdown.", negative="")] = False,
    csv: Annotated[bool, Parameter(help="Also write its tables as CSV.", negative="")] = False,
) -> int:
    """Compare predicted with true labels and write numbers and a report."""
    compared = compare(
        prediction, truth or prediction, prediction_name=prediction_name, truth_name=truth_name, strict=strict
    )
    baselines = {folder.name: read_evaluation(folder) for folder in baseline or []}
    write_report(
        compared, report, title=address(prediction).name, baselines=baselines, markdown=markdown, csv=csv
    )
    _say(compared, report)
    return 0


def read_evaluation(folder: Path) -> Evaluation:
    """Read what an earlier evaluation wrote."""
    try:
        summary = json.loads((folder / "summary.json").read_text())
        return Evaluation(
            images=pd.read_parquet(folder / "metrics.parquet"),
            matches=pd.read_parquet(folder / "matches.parquet"),
            summary=summary,
        )
    except (OSError, ValueError) as error:
        raise BadArgument(f"--baseline {folder}: expected the folder of an evaluation ({error})") from None


def write_report(
    compared: Compared,
    folder: Path,
    *,
    title: str,
    baselines: dict[str, Evaluation] | None = None,
    markdown: bool = False,
    csv: bool = False,
) -> None:
    """Write the numbers and the page of an evaluation."""  # fmt: skip
    write_numbers(compared, address(folder))
    assessment = Assessment(
        title=title, name=compared.prediction_name, evaluation=compared.evaluation, baselines=baselines or {},
        facts=compared.facts(),
    )  # fmt: skip
    page = evaluation_page(assessment, picture=Comparisons(compared.pairs).picture)
    place = address(folder)
    place.write_bytes("report.html", html_page(page).encode())
    if markdown:
        place.write_bytes("report.md", markdown_page(page).encode())
    for name, table in (csv_tables(page) if csv else {}).items():
        place.write_bytes(f"{name}.csv", table.encode())


def _say(compared: Compared, folder: Path) -> None:
    summary = compared.evaluation.summary
    ap = "  ".join(f"AP{threshold} {value:.4f}" for threshold, value in summary["AP"].items())
    sys.stdout.write(
        f"{len(compared.evaluation.images)} image(s), {compared.prediction_name!r} against {compared.truth_name!r}\n"
        f"meanAP {summary['meanAP']:.4f}  AJI {summary['AJI']:.4f}  PQ {summary['PQ']:.4f}  {ap}\n"
        f"{(folder / 'report.html').resolve()}\n"
    )
    for message, names in (
        ("without prediction", compared.without_prediction),
        ("without truth", compared.without_truth),
    ):
        if names:
            sys.stderr.write(f"{message}: {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}\n")
