"""The table of all images of a run: numbers of the objects in each, focus and saturation, what went wrong."""

from collections.abc import Mapping

import pandas as pd

from pipeline.report.blocks import Column, Row, Table, Value, is_blank
from pipeline.report.run.numbers import Run, area_column, channels, quality_columns
from pipeline.report.wells import Places

QUALITY_COLUMNS = {
    "focus": ("Energy of the Laplacian over the variance of the image, without noise; low: blurred.", 3),
    "saturated": ("Share of the pixels that are clipped at the largest value.", 4),
}
"""Hint and decimals of the columns of focus and saturation."""


def image_table(run: Run, where: Places, table: pd.DataFrame, anchors: Mapping[str, str]) -> Table:
    """Lay out the table of images: objects, focus and failures of each, without empty columns."""
    unit = area_column(run.objects)[1]
    columns = [
        Column(name="image"),
        *([Column(name="well")] if where.is_plate else []),
        Column(name="condition"),
        Column(name="role"),
        Column(name="dose"),
        Column(name="status"),
        Column(name="flags"),
        Column(name="objects", digits=0),
        Column(name="median area", unit=unit),
        Column(
            name="covered",
            digits=3,
            hint="Share of the image that objects cover; pixels shared by two objects count once.",
        ),
        Column(name="overlapping", digits=3, hint="Share of the objects that share pixels with another."),
        *(
            Column(name=f"intensity {name}", hint="Median over objects of their mean.")
            for name in channels(run.objects)
        ),
        *(_quality_column(name) for name in quality_columns(table)),
        Column(name="failed tiles"),
        Column(name="retries"),
        Column(name="reason"),
    ]
    numbers = [
        "objects",
        "area",
        "covered",
        "overlapping",
        *(f"intensity_{name}" for name in channels(run.objects)),
        *quality_columns(table),
    ]
    rows = []
    for well, (name, row) in zip(where.wells, table.iterrows()):
        cells: list[Value] = [str(name) or "image", *([well] if where.is_plate else [])]
        cells += [row["condition"], row["role"], float(row["dose"]), row["status"], row["flags"]]
        cells += [float(row[number]) for number in numbers]
        cells += [int(row["failed_tiles"]), int(row["retries"]), row["reason"]]
        rows.append(
            Row(cells=tuple(cells), anchor=anchors.get(str(name), ""), group=well if where.is_plate else "")
        )
    shown = [
        at for at, column in enumerate(columns) if at == 0 or any(not _empty(row.cells[at]) for row in rows)
    ]
    return Table(
        name="images",
        title="",
        columns=tuple(columns[at] for at in shown),
        rows=tuple(
            Row(cells=tuple(row.cells[at] for at in shown), anchor=row.anchor, group=row.group)
            for row in rows
        ),
        filterable=True,
        caption="A click on a heading sorts; the name leads to the picture.",
    )


def _quality_column(name: str) -> Column:
    kind, _, channel = name.partition("_")
    hint, digits = QUALITY_COLUMNS[kind]
    return Column(name=f"{kind} {channel}", hint=hint, digits=digits)


def _empty(value: Value) -> bool:
    return is_blank(value) or value == ""
