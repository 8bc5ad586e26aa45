"""Figures with a row per condition: a score with its interval, or a dot per image with the median."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from pipeline.report.charts import escaped, styled
from pipeline.report.palette import BLUE, VERMILLION


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
