"""Plate maps from one number per image: wells laid out as on the plate, hover text, links to pictures."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.report.blocks import Chart, number_text
from pipeline.report.charts import PlateMap, plate_map
from pipeline.report.wells import Places, well_name


def plate_chart(
    where: Places,
    values: pd.Series,
    *,
    title: str,
    how: str,
    unit: str,
    anchors: Mapping[str, str],
    marked: np.ndarray | None = None,
    alarm: bool = False,
    notes: Mapping[str, str] | None = None,
    caption: str = "",
) -> Chart:
    """Draw one number per image as a plate map; ``how`` joins the images of a well (``sum`` or ``median``).

    ``alarm`` is for counts that should be zero. ``marked`` is a boolean per image: its well gets a cross.
    ``notes`` is a line for the hover text of a well, such as its condition.
    """
    grid = where.grid(values.to_numpy(float), how)
    fields = where.grid(np.ones(len(where.images)), "sum")
    crosses = (
        where.grid(marked.astype(float), "sum") > 0 if marked is not None else np.zeros(grid.shape, bool)
    )
    links = _first_anchor(where, anchors)
    rows, columns = where.plate_rows, where.plate_columns
    wells = [[well_name(row, column) for column in columns] for row in rows]
    texts = tuple(
        tuple(
            _text(wells[y][x], grid[y, x], fields[y, x], bool(crosses[y, x]), unit)
            + (f"\n{notes[wells[y][x]]}" if notes and wells[y][x] in notes else "")
            for x in range(len(columns))
        )
        for y in range(len(rows))
    )
    plate = PlateMap(
        rows=rows,
        columns=columns,
        values=grid,
        texts=texts,
        anchors=tuple(tuple(links.get(well, "") for well in row) for row in wells),
        unit=unit,
        marked=tuple((int(y), int(x)) for y, x in np.argwhere(crosses)),
        alarm=alarm,
    )
    return Chart(
        title=title, figure=plate_map(plate), caption=caption, aspect=_aspect(len(rows), len(columns))
    )


def _aspect(rows: int, columns: int) -> float:
    # square wells on half a page: the plot is about 600 px wide, 115 of them beside and 32 above the wells
    return round(600 / min(460, max(110, 32 + 485 * rows / columns)), 3)


def _text(well: str, value: float, fields: float, crossed: bool, unit: str) -> str:
    if np.isnan(fields):
        return f"{well}\nno image"
    images = f"{fields:.0f} image{'s' if fields > 1 else ''}"
    number = "no number" if np.isnan(value) else f"{number_text(float(value))} {unit}"
    return f"{well}: {number}\n{images}" + (", failures" if crossed else "")


def _first_anchor(where: Places, anchors: Mapping[str, str]) -> dict[str, str]:
    links: dict[str, str] = {}
    for image, well in zip(where.images, where.wells):
        if image in anchors:
            links.setdefault(well, anchors[image])
    return links
