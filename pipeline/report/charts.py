"""Interactive figures as Plotly JSON: curves, histograms, bars, ranges and dots.

All have the same style; text from data is escaped here, because Plotly interprets a subset of HTML. Pure functions
from numbers to JSON; the page draws the figures.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from pipeline.report.palette import BLUE, GREY, RUN_COLOURS, VERMILLION

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
LINE = "#d9dee3"


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


def curves(
    lines: Sequence[Curve],
    *,
    x_title: str,
    y_title: str,
    y_range: tuple[float, float] | None = None,
    y_digits: int = 3,
    borders: Mapping[str, float] | None = None,
    level: tuple[str, float] | None = None,
) -> str:
    """Lines with markers over one another, each with its band.

    ``borders``: dotted vertical lines by their names; ``level``: a dashed horizontal line with its name.
    """
    figure = go.Figure()
    for index, line in enumerate(lines):
        colour = RUN_COLOURS[index % len(RUN_COLOURS)]
        if line.low is not None and line.high is not None:
            add_band(figure, line.x, line.low, line.high, fill=_faint(colour))
        figure.add_scatter(
            x=list(line.x),
            y=list(line.y),
            name=escaped(line.name),
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": "solid" if index == 0 else "dash"},
            marker={"size": 6, "symbol": ("circle", "square", "diamond", "triangle-up", "x")[index % 5]},
            hovertemplate=f"{escaped(line.name)}<br>%{{x}}: %{{y:.{y_digits}f}}<extra></extra>",
        )
    for name, x in (borders or {}).items():
        figure.add_vline(
            x=x, line={"color": GREY, "width": 1, "dash": "dot"}, annotation_text=escaped(name),
            annotation_position="top right",
        )  # fmt: skip
    if level is not None:
        figure.add_hline(
            y=level[1], line={"color": VERMILLION, "width": 1, "dash": "dash"}, annotation_text=escaped(level[0]),
            annotation_position="bottom right",
        )  # fmt: skip
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


def add_band(
    figure: go.Figure,
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    fill: str,
    name: str = "",
) -> None:
    """Fill the range between two lines; without a name it has no place in the legend."""
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
    """Give a figure the common style."""
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


def height_px(rows: int) -> int:
    """Height of a figure of so many rows."""
    return min(900, 90 + 30 * rows)


def ranges(
    labels: Sequence[str],
    values: Sequence[float],
    between: np.ndarray,
    *,
    x_title: str,
    x_range: tuple[float, float] | None = None,
) -> str:
    """Points with their intervals ``between (n, 2)``, first label on top; NaN is no interval."""
    known = np.where(np.isnan(between), np.asarray(values, float)[:, None], between)
    figure = go.Figure()
    figure.add_scatter(
        x=list(values),
        y=[escaped(label) for label in labels],
        mode="markers",
        marker={"color": BLUE, "size": 9},
        error_x={
            "type": "data", "symmetric": False, "color": BLUE, "thickness": 1.5,
            "array": (known[:, 1] - values).tolist(), "arrayminus": (values - known[:, 0]).tolist(),
        },
        customdata=[
            "" if np.isnan(low) else f"<br>{low:.3f} to {high:.3f}" for low, high in between.tolist()
        ],
        hovertemplate="%{y}: %{x:.3f}%{customdata}<extra></extra>",
    )  # fmt: skip
    styled(figure)
    figure.update_xaxes(title_text=escaped(x_title), range=x_range)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=True)
    return str(figure.to_json())


def dots(groups: Mapping[str, Mapping[str, float]], *, x_title: str) -> str:
    """A dot per image, ``{condition: {image: number}}``, and a bar at the median; first condition on top."""
    figure = go.Figure()
    labels = [escaped(name) for name in groups]
    for at, (label, numbers) in enumerate(zip(labels, groups.values())):
        # dots of one value lie beside each other: spread evenly, so that the same numbers give the same figure
        spread = np.linspace(-0.22, 0.22, max(len(numbers), 2))[: len(numbers)]
        figure.add_scatter(
            x=list(numbers.values()), y=(at + spread).tolist(), mode="markers", showlegend=False,
            marker={"color": BLUE, "size": 6, "opacity": 0.55},
            customdata=[escaped(name) for name in numbers],
            hovertemplate=f"{label}, %{{customdata}}: %{{x:.4g}}<extra></extra>",
        )  # fmt: skip
    medians = [float(np.median(list(numbers.values()))) for numbers in groups.values()]
    figure.add_scatter(
        x=medians, y=list(range(len(labels))), mode="markers", showlegend=False,
        marker={"symbol": "line-ns", "size": 20, "line": {"width": 3, "color": VERMILLION}},
        customdata=labels, hovertemplate="%{customdata}, median: %{x:.4g}<extra></extra>",
    )  # fmt: skip
    styled(figure)
    figure.update_xaxes(title_text=escaped(x_title), rangemode="tozero")
    figure.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.5, -0.5], showgrid=False
    )
    return str(figure.to_json())
