"""`platelayer report`: the page a screening lab looks at after a run."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.evaluation.layout import read_layout
from flows.evaluation.report import report_page
from pipeline.report.layout import CONDITION
from pipeline.report.markdown import markdown_page
from pipeline.report.page import html_page


def report(
    store: Annotated[str, Parameter(help="The output store of a run.")],
    *,
    name: Annotated[str | None, Parameter(help="Labels to report on; default: those of the run.")] = None,
    run: Annotated[str | None, Parameter(help="Which run, where there are several.")] = None,
    source: Annotated[str | None, Parameter(help="Where the images are; default: what the run says.")] = None,
    layout: Annotated[
        str | None, Parameter(help="CSV or Parquet table with columns well and condition.")
    ] = None,
    condition_column: Annotated[str, Parameter(help="Its column of conditions.")] = CONDITION,
    output: Annotated[Path | None, Parameter(help="Page to write; default: report.html.")] = None,
    markdown: Annotated[bool, Parameter(help="Also write the numbers as Markdown.", negative="")] = False,
) -> int:
    """Draw the report of a run: plate maps, distributions, montage, seam quality."""
    chosen = read_layout(layout, column=condition_column) if layout else None
    page = report_page(store, name=name, source=source, run=run, layout=chosen)
    target = output or Path("report.html")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(html_page(page), encoding="utf-8")
    if markdown:
        target.with_suffix(".md").write_text(markdown_page(page), encoding="utf-8")
    sys.stdout.write(f"{target.resolve()} ({target.stat().st_size / 2**20:.1f} MiB)\n")
    return 0
