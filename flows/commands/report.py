"""`platelayer report`: the page of a run with plate maps, distributions, montage and seam quality."""

import sys
from typing import Annotated

from cyclopts import Parameter

from flows.evaluation.layout import read_layout
from flows.evaluation.report import ReportOn, report_page
from pipeline.errors import BadArgument
from pipeline.report.layout import CONDITION
from pipeline.report.markdown import markdown_page
from pipeline.report.page import html_page
from pipeline.store.places.address import address


def report(
    store: Annotated[str, Parameter(help="The output store of a run.")],
    *,
    name: Annotated[str | None, Parameter(help="Labels to report on; default: those of the run.")] = None,
    run: Annotated[str | None, Parameter(help="Which run, where there are several.")] = None,
    source: Annotated[str | None, Parameter(help="Where the images are; default: what the run says.")] = None,
    acquisition: Annotated[
        str | None, Parameter(help="Only this acquisition of the plate, by id or name.")
    ] = None,
    layout: Annotated[
        str | None, Parameter(help="CSV or Parquet table with columns well and condition.")
    ] = None,
    condition_column: Annotated[str, Parameter(help="Its column of conditions.")] = CONDITION,
    output: Annotated[str, Parameter(help="Page to write, path or URL.")] = "report.html",
    markdown: Annotated[bool, Parameter(help="Also write the numbers as Markdown.", negative="")] = False,
) -> int:
    """Draw the report of a run: plate maps, distributions, montage, seam quality."""
    chosen = read_layout(layout, column=condition_column) if layout else None
    page = report_page(
        ReportOn(store=store, name=name, source=source, run=run, layout=chosen, acquisition=acquisition)
    )
    target = address(output)
    if not target.is_writable_kind:
        raise BadArgument(
            f"--output {target}: this kind of address cannot be written; give a path or an s3:// URL"
        )
    data = html_page(page).encode()
    target.write_bytes("", data)
    if markdown:
        address(f"{target.url.removesuffix('.html')}.md").write_bytes("", markdown_page(page).encode())
    sys.stdout.write(f"{target} ({len(data) / 2**20:.1f} MiB)\n")
    return 0
