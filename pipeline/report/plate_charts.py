"""Plate maps from one number per image: wells laid out as on the plate, hover text, links to pictures."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pipeline.report.blocks import Chart, number_text
from pipeline.report.charts import escaped, styled
from pipeline.report.palette import VERMILLION
from pipeline.report.wells import Places, well_name

ALARM_COLOURS = [[0, "#e8ecef"], [0.01, "#f6c9a4"], [1, VERMILLION]]
"""Colours of counts that should be zero."""

LEAST_SPREAD = 0.25
"""The colours span at least the median plus and minus this share of it, so that 12 to 15 objects look alike."""

TAILS = (0.05, 0.95)
"""Quantiles of the wells between which colours differ; wells beyond have the colour of the end."""

WELL_PX, BESIDE_PX, ABOVE_PX = 54, 115, 50
"""Largest side of a well, and the space beside and above the wells for colour bar and names, in px."""

MOST_WRITTEN = 12
"""Plates with more columns have no numbers in their wells: they would not fit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlateMap:
    """One number per well of a plate."""

    rows: tuple[str, ...]
    """Row names, top to bottom."""
    columns: tuple[str, ...]
    """Column names, left to right."""
    values: np.ndarray
    """float ``(rows, columns)``; NaN where there is no number."""
    texts: tuple[tuple[str, ...], ...]
    """Hover text of each well, one tuple per row."""
    anchors: tuple[tuple[str, ...], ...]
    """Id of the picture a well links to, or empty."""
    unit: str
    """Title of the colour bar."""
    span: tuple[float, float] | None = None
    """Values of the first and the last colour; default: see `colour_span`."""
    marked: tuple[tuple[int, int], ...] = ()
    """``(row, column)`` of wells marked with a cross."""
    alarm: bool = False
    """Colours for counts that should be zero instead of colours for amounts."""


def colour_span(values: np.ndarray, *, alarm: bool = False) -> tuple[float, float]:
    """Values of the first and the last colour of a plate map, or of several that share their scale.

    Robust: between the 5 % and 95 % quantiles of the wells, and never narrower than a quarter of the median to each
    side, so that a scale is not blown up to the full range of colours by small differences or by one bright well.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    if alarm:
        return 0.0, max(float(known.max()), 1.0)
    middle, (low, high) = float(np.median(known)), np.quantile(known, TAILS).tolist()
    spread = LEAST_SPREAD * abs(middle)
    low, high = min(low, middle - spread), max(high, middle + spread)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


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
    span: tuple[float, float] | None = None,
    caption: str = "",
) -> Chart:
    """Draw one number per image as a plate map.

    Args:
        where: places of the images.
        values: one number per image, in the order of ``where``.
        title: heading.
        how: aggregation of the images of a well, ``sum`` or ``median``.
        unit: title of the colour bar, and the unit in the hover text.
        anchors: id of the picture of each image, to which a click on its well leads.
        marked: boolean per image; the wells of these get a cross.
        alarm: colours for counts that should be zero.
        notes: a line for the hover text of a well, such as its condition.
        span: values of the first and last colour, for maps that share a scale.
        caption: explanation of the map.
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
        span=span,
        marked=tuple((int(y), int(x)) for y, x in np.argwhere(crosses)),
        alarm=alarm,
    )
    width = BESIDE_PX + WELL_PX * len(columns)
    return Chart(
        title=title, figure=plate_map(plate), caption=caption, aspect=_aspect(len(rows), len(columns)),
        width_px=width if width < 600 else 0,
    )  # fmt: skip


def _aspect(rows: int, columns: int) -> float:
    """Width over height of a map with square wells on half a page (600 px), or of a small one."""
    width = min(600, BESIDE_PX + WELL_PX * columns)
    return round(width / (ABOVE_PX + (width - BESIDE_PX) * rows / columns), 3)


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


def plate_map(plate: PlateMap) -> str:
    """Heat map of a plate as Plotly JSON, row A on top; a click leads to the well's picture."""
    low, high = plate.span or colour_span(plate.values, alarm=plate.alarm)
    figure = go.Figure()
    figure.add_heatmap(
        z=[[None if np.isnan(value) else float(value) for value in row] for row in plate.values],
        x=[escaped(name) for name in plate.columns],
        y=[escaped(name) for name in plate.rows],
        hovertext=[[escaped(text).replace("\n", "<br>") for text in row] for row in plate.texts],
        customdata=plate.anchors,
        hovertemplate="%{hovertext}<extra></extra>",
        colorscale=ALARM_COLOURS if plate.alarm else "Viridis",
        zmin=low,
        zmax=high,
        xgap=1,
        ygap=1,
        colorbar={
            "thickness": 12,
            "len": 1,
            "title": {"text": escaped(plate.unit), "side": "right"},
            "nticks": 5,
            "tickvals": [0, int(high)] if plate.alarm else None,
        },
    )
    if len(plate.columns) <= MOST_WRITTEN:
        written = [["" if np.isnan(v) else number_text(float(v)) for v in row] for row in plate.values]
        figure.data[0].update(text=written, texttemplate="%{text}", textfont={"size": 11})
    if plate.marked:
        _add_marks(figure, plate)
    styled(figure, margin={"l": 28, "r": 8, "t": 24, "b": 8})
    figure.update_xaxes(type="category", side="top", showgrid=False, ticks="", showline=False, tickangle=0)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, ticks="", showline=False)
    if len(plate.columns) > MOST_WRITTEN:
        figure.update_xaxes(tickvals=[escaped(name) for name in plate.columns[1::2]])
        figure.update_layout(xaxis_tickfont_size=10, yaxis_tickfont_size=10)
    return str(figure.to_json())


def _add_marks(figure: go.Figure, plate: PlateMap) -> None:
    # hoverinfo skip: the heat map below keeps answering for the well
    figure.add_scatter(
        x=[escaped(plate.columns[column]) for _, column in plate.marked],
        y=[escaped(plate.rows[row]) for row, _ in plate.marked],
        mode="markers",
        marker={"symbol": "x", "size": 7, "color": VERMILLION, "line": {"width": 1, "color": "white"}},
        hoverinfo="skip",
        showlegend=False,
    )
