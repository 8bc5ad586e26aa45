"""`platelayer import-labels`: masks of other programs as label stacks of a store."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.jobs import field_comments
from pipeline.errors import BadArgument
from pipeline.masks.importing import Imported, ImportJob
from pipeline.masks.importing import import_labels as write
from pipeline.masks.sources import Format

_ABOUT = field_comments(ImportJob)

MOST_SHOWN = 10
"""Names listed one by one."""


def import_labels(
    source: Annotated[str, Parameter(help=_ABOUT["source"])],
    store: Annotated[str, Parameter(help=_ABOUT["store"])],
    *,
    name: Annotated[str, Parameter(help=_ABOUT["name"])],
    format: Annotated[Format, Parameter(help=_ABOUT["format"])] = "auto",
    table: Annotated[str | None, Parameter(help=_ABOUT["table"])] = None,
    unit: Annotated[Literal["px", "um"], Parameter(help=_ABOUT["unit"])] = "px",
    plane: Annotated[
        str | None, Parameter(help="T,Z: plane of the masks, for images of several planes.")
    ] = None,
    project: Annotated[
        Literal["none", "max"], Parameter(help="max: the masks belong to the projection over z.")
    ] = "none",
    split_components: Annotated[bool, Parameter(help=_ABOUT["split_components"], negative="")] = False,
    overwrite: Annotated[bool, Parameter(help=_ABOUT["overwrite"], negative="")] = False,
) -> int:
    """Put masks of other programs beside the images of a store, as label stacks in which overlaps are kept."""
    job = ImportJob(
        source=Path(source).expanduser(), store=store, name=name, format=format, table=Path(table) if table else None,
        unit=unit, plane=_plane(plane), project=project == "max", split_components=split_components,
        overwrite=overwrite,
    )  # fmt: skip
    return _say(job, write(job))


def _plane(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise BadArgument(f"--plane: expected T,Z such as 0,3, got {text!r}")
    return int(parts[0]), int(parts[1])


def _say(job: ImportJob, imported: Imported) -> int:
    sys.stdout.write(
        f"{sum(imported.objects.values())} objects in {len(imported.objects)} image(s) "
        f"-> labels {job.name!r} of {job.store}"
        f"{f', {imported.layers} layers (objects overlap)' if imported.layers > 1 else ''}\n"
    )
    if imported.classes:
        sys.stdout.write(_classes(job, imported))
    for remark in imported.remarks:
        sys.stdout.write(f"{remark}\n")
    for what, names in (
        ("image without masks", imported.without_masks),
        ("masks without image", imported.without_image),
    ):
        more = f" ... ({len(names)})" if len(names) > MOST_SHOWN else ""
        if names:
            sys.stderr.write(f"{what}: {', '.join(names[:MOST_SHOWN])}{more}\n")
    return 3 if imported.without_image else 0


def _classes(job: ImportJob, imported: Imported) -> str:
    """The classes of the objects, most frequent first, and how many objects have none."""
    counts = [f"{name!r} {count}" for name, count in imported.classes.most_common()]
    without = sum(imported.objects.values()) - imported.classes.total()
    listed = [*counts[:MOST_SHOWN], *(["..."] if len(counts) > MOST_SHOWN else [])]
    return (
        f"{len(counts)} class(es): {', '.join(listed)}{f'; {without} objects without' if without else ''} "
        f"-> table {job.name!r}\n"
    )
