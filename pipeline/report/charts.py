"""Figures a reader can hover over, as Plotly JSON: plate maps, curves, histograms, bars and ranges.

One look for all of them; text that comes from data is escaped here, because Plotly reads a subset of HTML.
Numbers in, JSON out; the page decides where and when a figure is drawn.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from pipeline.report.palette import BLUE, GREY, RUN_COLOURS, VERMILLION

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
LINE = "#d9dee3"
ALARM_COLOURS = [[0, "#e8ecef"], [0.01, "#f6c9a4"], [1, VERMILLION]]
RATIO_TICKS = (
    (1.5, (0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4)),
    (4.0, (0.3, 0.5, 0.7, 1, 1.4, 2, 3)),
    (float("inf"), (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)),
)
NULL_BAND = "rgba(138,148,158,0.30)"


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
    """What hovering over a well says, one tuple per row."""
    anchors: tuple[tuple[str, ...], ...]
    """Id of the picture a well links to, or empty."""
    unit: str
    """Title of the colour bar."""
    marked: tuple[tuple[int, int], ...] = ()
    """``(row, column)`` of wells marked with a cross."""
    alarm: bool = False
    """Colours for counts that should be zero instead of colours for amounts."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line with an optional band."""

    name: str
    """Legend entry."""
    x: Sequence[float]
    """Abscissae."""
    y: Sequence[float]
    """Ordinates."""
    low: Sequence[float] | None = None
    """Lower edge of the band."""
    high: Sequence[float] | None = None
    """Upper edge of the band."""


def escaped(text: object) -> str:
    """Make text from data safe inside a Plotly figure."""
    return html.escape(str(text), quote=False)


def plate_map(plate: PlateMap) -> str:
    """Heat map of a plate, row A on top; a click leads to the well's picture."""
    figure = go.Figure()
    figure.add_heatmap(
        z=[[None if np.isnan(value) else float(value) for value in row] for row in plate.values],
        x=[escaped(name) for name in plate.columns],
        y=[escaped(name) for name in plate.rows],
        text=[[escaped(text).replace("\n", "<br>") for text in row] for row in plate.texts],
        customdata=plate.anchors,
        hovertemplate="%{text}<extra></extra>",
        colorscale=ALARM_COLOURS if plate.alarm else "Viridis",
        zmin=0 if plate.alarm else None,
        xgap=1,
        ygap=1,
        colorbar={
            "thickness": 12,
            "len": 1,
            "title": {"text": escaped(plate.unit), "side": "right"},
            "nticks": 5,
            "tickvals": [0, int(np.nanmax(plate.values, initial=1))] if plate.alarm else None,
        },
    )
    if plate.marked:
        _add_marks(figure, plate)
    styled(figure, margin={"l": 28, "r": 8, "t": 24, "b": 8})
    figure.update_xaxes(type="category", side="top", showgrid=False, ticks="", showline=False, tickangle=0)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, ticks="", showline=False)
    if len(plate.columns) > 12:
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


def curves(
    lines: Sequence[Curve],
    *,
    x_title: str,
    y_title: str,
    y_range: tuple[float, float] | None = None,
    y_digits: int = 3,
) -> str:
    """Lines with markers over one another, each with its band."""
    figure = go.Figure()
    for index, line in enumerate(lines):
        colour = RUN_COLOURS[index % len(RUN_COLOURS)]
        if line.low is not None and line.high is not None:
            _add_band(figure, line.x, line.low, line.high, fill=_faint(colour))
        figure.add_scatter(
            x=list(line.x),
            y=list(line.y),
            name=escaped(line.name),
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": "solid" if index == 0 else "dash"},
            marker={"size": 6, "symbol": ("circle", "square", "diamond", "triangle-up", "x")[index % 5]},
            hovertemplate=f"{escaped(line.name)}<br>%{{x}}: %{{y:.{y_digits}f}}<extra></extra>",
        )
    styled(figure, legend=len(lines) > 1)
    figure.update_xaxes(title_text=escaped(x_title))
    figure.update_yaxes(title_text=escaped(y_title), range=y_range)
    return str(figure.to_json())


def histogram(values: np.ndarray, *, x_title: str, bins: int = 40, clip_share: float = 0.005) -> str:
    """Histogram of one number per object, counted here so that the page carries bins and not objects.

    The outer ``clip_share`` of the values on either side is counted in the first and last bin.
    """
    clean = np.asarray(values, float)
    clean = clean[np.isfinite(clean)]
    low, high = np.quantile(clean, (clip_share, 1 - clip_share)) if clean.size else (0.0, 1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(clean, low, high), bins=bins, range=(low, high))
    figure = go.Figure()
    figure.add_bar(
        x=((edges[:-1] + edges[1:]) / 2).tolist(),
        y=counts.tolist(),
        width=float(edges[1] - edges[0]),
        marker={"color": BLUE, "line": {"width": 0}},
        customdata=[f"{a:.4g} to {b:.4g}" for a, b in zip(edges[:-1], edges[1:])],
        hovertemplate="%{customdata}<br>%{y} objects<extra></extra>",
    )
    styled(figure)
    figure.update_layout(bargap=0.04)
    figure.update_xaxes(title_text=escaped(x_title))
    figure.update_yaxes(title_text="objects", rangemode="tozero")
    return str(figure.to_json())


def bars(counts: Mapping[str, Mapping[str, float | None]], *, x_title: str) -> str:
    """Horizontal bars, ``{series: {label: number}}``, first label on top; None leaves a gap."""
    figure = go.Figure()
    for index, (series, numbers) in enumerate(counts.items()):
        figure.add_bar(
            y=[escaped(label) for label in numbers],
            x=list(numbers.values()),
            name=escaped(series),
            orientation="h",
            text=["" if value is None else f"{value:,.0f}" for value in numbers.values()],
            textposition="outside",
            cliponaxis=False,
            marker={"color": RUN_COLOURS[index % len(RUN_COLOURS)]},
            hovertemplate="%{y}: %{x}<extra>" + escaped(series) + "</extra>",
        )
    styled(figure, legend=len(counts) > 1, margin={"l": 8, "r": 48, "t": 8, "b": 8})
    figure.update_layout(barmode="group")
    figure.update_xaxes(title_text=escaped(x_title), rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return str(figure.to_json())


def against_chance(labels: Sequence[str], observed: Sequence[float], band: np.ndarray) -> str:
    """Observed ratios as points on the range ``band (n, 2)`` that chance gives, on a logarithmic axis."""
    figure = go.Figure()
    for index, label in enumerate(labels):
        figure.add_scatter(
            x=band[index].tolist(),
            y=[escaped(label)] * 2,
            mode="lines",
            line={"color": GREY, "width": 14},
            opacity=0.45,
            name="95 % of shifted grids",
            showlegend=index == 0,
            hovertemplate="chance: %{x:.3f}<extra></extra>",
        )
    figure.add_scatter(
        x=list(observed),
        y=[escaped(label) for label in labels],
        mode="markers",
        name="at the tile borders",
        marker={"color": VERMILLION, "size": 11, "symbol": "diamond"},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    styled(figure, legend=True)
    farthest = np.exp(np.nanmax(np.abs(np.log(np.r_[observed, band.ravel()])), initial=0))
    spread = max(1.25, 1.15 * float(farthest))
    figure.update_xaxes(
        type="log",
        range=[-np.log10(spread), np.log10(spread)],
        title_text="ratio (1 = no trace)",
        tickvals=next(ticks for most, ticks in RATIO_TICKS if spread < most),
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.add_vline(x=1, line={"color": "#1b1f24", "width": 1, "dash": "dot"})
    return str(figure.to_json())


def band_profile(line: Curve, *, x_title: str, y_title: str) -> str:
    """One line over the range that chance gives at each abscissa."""
    figure = go.Figure()
    _add_band(figure, line.x, line.low or (), line.high or (), fill=NULL_BAND, name="95 % of shifted grids")
    figure.add_scatter(
        x=list(line.x),
        y=list(line.y),
        name=escaped(line.name),
        mode="lines+markers",
        line={"color": VERMILLION, "width": 2},
        marker={"size": 6, "symbol": "diamond"},
        hovertemplate="%{x:.0f} px: %{y:.3f}<extra></extra>",
    )
    styled(figure, legend=True)
    figure.update_xaxes(title_text=escaped(x_title), rangemode="tozero")
    figure.update_yaxes(title_text=escaped(y_title))
    return str(figure.to_json())


def _add_band(
    figure: go.Figure,
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    fill: str,
    name: str = "",
) -> None:
    figure.add_scatter(
        x=[*x, *reversed(list(x))],
        y=[*high, *reversed(list(low))],
        fill="toself",
        fillcolor=fill,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name=name,
        showlegend=bool(name),
    )


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def styled(figure: go.Figure, *, legend: bool = False, margin: dict[str, int] | None = None) -> None:
    """Give a figure the look of all."""
    axis = {
        "gridcolor": LINE,
        "linecolor": LINE,
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
        "title": {"standoff": 8},
    }
    figure.update_layout(
        template="none",
        font={"family": FONT, "size": 12, "color": "#1b1f24"},
        margin=margin or {"l": 8, "r": 12, "t": 12, "b": 8},
        paper_bgcolor="white",
        plot_bgcolor="white",
        showlegend=legend,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        dragmode=False,
        hoverlabel={"align": "left"},
        xaxis=axis,
        yaxis=axis,
    )
