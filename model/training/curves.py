"""Curves of a training: every loss term and validation score, as a table on disk and as a picture.

The invariant: each record is a row that is written immediately, so a killed training leaves a readable table; a
resumed one drops the rows after its state and continues the table.
"""

import csv
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

TABLE = "curves.csv"
PICTURE = "curves.png"
PLACE = ("phase", "step", "total_step", "seconds", "lr")
SCORES = ("score", "validation_loss")


def start_table(folder: Path, *, terms: Sequence[str], last_step: int) -> None:
    """Create the table with a column per loss term, or drop the rows after ``last_step`` of an existing one."""
    rows = [row for row in read_table(folder) if int(row["total_step"]) <= last_step]
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*PLACE, "loss", *terms, *SCORES), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def add_row(folder: Path, row: dict[str, str | float]) -> None:
    """Append a record; columns it does not name stay empty."""
    with (folder / TABLE).open("r+", newline="", encoding="utf-8") as file:
        columns = next(csv.reader(file))
        file.seek(0, os.SEEK_END)
        csv.DictWriter(file, columns).writerow(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        )


def read_table(folder: Path) -> list[dict[str, str]]:
    """Return the records as text by column; none where there is no table."""
    path = folder / TABLE
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw(folder: Path) -> Path | None:
    """Draw the table as two panels, losses and scores over steps; return the path, or ``None`` without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("%s: no picture of the curves, because matplotlib is not installed", folder)
        return None
    rows = read_table(folder)
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name in [name for name in (rows[0] if rows else ()) if name not in (*PLACE, "score")]:
        _line(upper, rows, name)
    _line(lower, rows, "score")
    upper.set(ylabel="loss", yscale="log" if upper.lines else "linear")
    lower.set(ylabel="validation score", xlabel="step")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(folder / PICTURE, dpi=100)
    return folder / PICTURE


def _line(axes: "Axes", rows: list[dict[str, str]], name: str) -> None:
    points = [(int(row["total_step"]), float(row[name])) for row in rows if row[name] and float(row[name])]
    if points:
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
