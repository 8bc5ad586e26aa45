"""`platelayer export`: labels of a store in the formats of other programs."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.jobs import field_comments
from pipeline.masks.exporting import ExportJob, Format
from pipeline.masks.exporting import export as write

_ABOUT = field_comments(ExportJob)

MOST_SHOWN = 5
"""Files listed one by one."""


def export(
    store: Annotated[str, Parameter(help=_ABOUT["store"])],
    *,
    format: Annotated[Format, Parameter(help=_ABOUT["format"])],
    output: Annotated[str | None, Parameter(help=_ABOUT["output"])] = None,
    name: Annotated[str | None, Parameter(help=_ABOUT["name"])] = None,
    unit: Annotated[Literal["px", "um"], Parameter(help=_ABOUT["unit"])] = "px",
    overwrite: Annotated[bool, Parameter(help=_ABOUT["overwrite"], negative="")] = False,
) -> int:
    """Write labels for other programs; overlaps are kept where the format can."""
    job = ExportJob(store=store, format=format, output=output, name=name, unit=unit, overwrite=overwrite)
    exported = write(job)
    more = f" ... ({len(exported.files)} files)" if len(exported.files) > MOST_SHOWN else ""
    sys.stdout.write(f"{exported.objects} objects -> {', '.join(exported.files[:MOST_SHOWN])}{more}\n")
    for remark in exported.remarks:
        sys.stdout.write(f"{remark}\n")
    return 0
