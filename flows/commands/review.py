"""`platelayer review`: the objects of a run most worth a look, as a table."""

import sys
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from flows.commands.terminal import wide_console
from flows.evaluation.report import ReportOn, described_run
from pipeline.report.run.doubtful import MOST, doubtful_objects
from pipeline.store.places.address import address


def review(
    store: Annotated[str, Parameter(help="The output store of a run.")],
    *,
    name: Annotated[str | None, Parameter(help="Labels to review; default: those of the run.")] = None,
    run: Annotated[str | None, Parameter(help="Which run, where there are several.")] = None,
    source: Annotated[str | None, Parameter(help="Where the images are; default: what the run says.")] = None,
    most: Annotated[int, Parameter(help="Objects to list at most.")] = MOST,
    csv: Annotated[str | None, Parameter(help="Write the table to this CSV file too, path or URL.")] = None,
) -> int:
    """List the objects most worth a look: cut at tile borders, unusual in size or shape, or much overlapped."""
    described, _ = described_run(ReportOn(store=store, name=name, source=source, run=run))
    tiling = described.facts.get("tiling") or {}
    core = tiling.get("core") if isinstance(tiling, dict) else None
    doubtful = doubtful_objects(described.objects, core_px=core, most=most)
    if csv:
        address(csv).write_bytes("", doubtful.to_csv(index=False).encode())
    if not len(doubtful):
        sys.stdout.write("no object ends at a tile border, is much overlapped or unusual in size or shape\n")
        return 0
    shown = Table(*doubtful.columns)
    for row in doubtful.itertuples(index=False):
        shown.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    wide_console().print(shown)
    sys.stdout.write("platelayer report shows them as pictures; platelayer view opens the store in napari\n")
    return 0
