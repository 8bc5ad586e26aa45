"""The page of a training: the validation score and the losses over the steps, with the phases and the starting score.

Rows of the table of curves in, a page out. Knows nothing of networks or recipes.
"""

from collections.abc import Mapping, Sequence

from pipeline.report.blocks import Block, Chart, KeyNumber, KeyNumbers, Note, Page, Section, number_text
from pipeline.report.charts import Curve, curves
from pipeline.report.provenance import Pairs

Rows = Sequence[Mapping[str, str]]
"""The table of curves, text by column; empty where a row says nothing of it."""

PLACE = ("phase", "step", "total_step", "seconds", "lr")
"""Columns that say where in the training a row was written."""

VALIDATION = ("score", "validation_loss")

INITIAL = "initial"
"""Phase of the row with the score of the model that the training went on from."""


def training_page(title: str, rows: Rows, *, provenance: Pairs = ()) -> Page:
    """Lay out the page of a training.

    Args:
        title: name of the model.
        rows: see ``Rows``; columns other than those of place and validation are terms of the loss.
        provenance: what was trained, when and by which code.
    """
    charts = [
        _chart(rows, "score", "Validation score", "validation score"),
        _losses(rows),
        _validation_loss(rows),
    ]
    blocks: list[Block] = [_numbers(rows), *(chart for chart in charts if chart)]
    if not _points(rows, "score"):
        text = "No image was scored: the model is chosen by its loss, or nothing was kept for validation."
        blocks.append(Note(text=text))
    section = Section(name="training", title="Training", blocks=tuple(blocks))
    return Page(title=title, subtitle="Training of a model", sections=(section,), provenance=provenance)


def _points(rows: Rows, column: str) -> list[tuple[int, float]]:
    """Step and number of the rows that have one in a column, without that of the starting model."""
    return [
        (int(row["total_step"]), float(row[column]))
        for row in rows
        if row.get(column) and row["phase"] != INITIAL
    ]


def _starting(rows: Rows, column: str) -> float | None:
    """The number of the starting model in a column; None where the training began at random weights."""
    values = [row[column] for row in rows if row["phase"] == INITIAL and row.get(column)]
    return float(values[0]) if values else None


def _borders(rows: Rows) -> dict[str, int]:
    """Step before which each phase begins, by its name."""
    borders: dict[str, int] = {}
    for row in rows:
        if row["phase"] != INITIAL:
            borders.setdefault(row["phase"], int(row["total_step"]) - int(row["step"]))
    return borders


def _numbers(rows: Rows) -> KeyNumbers:
    last = rows[-1] if rows else {}
    numbers = [
        KeyNumber(
            label="Steps",
            value=f"{int(last.get('total_step') or 0):,}",
            detail=f"in {len(_borders(rows))} phase(s)",
        ),
        KeyNumber(label="Time", value=f"{float(last.get('seconds') or 0) / 60:,.1f} min"),
    ]
    scores, before = _points(rows, "score"), _starting(rows, "score")
    if before is not None:
        numbers.append(
            KeyNumber(
                label="Starting score", value=number_text(before, 4), detail="of the model it went on from"
            )
        )
    if scores:
        step, best = max(scores, key=lambda point: point[1])
        tone = "plain" if before is None else "good" if best > before else "bad"
        change = "" if before is None else f", {best - before:+.4f} against the start"
        numbers.append(
            KeyNumber(
                label="Best score", value=number_text(best, 4), detail=f"at step {step:,}{change}", tone=tone
            )
        )
    return KeyNumbers(numbers=tuple(numbers))


def _chart(rows: Rows, column: str, title: str, name: str) -> Chart | None:
    points = _points(rows, column)
    if not points:
        return None
    steps, values = zip(*points)
    before = _starting(rows, column)
    figure = curves(
        [Curve(name=name, x=steps, y=values)], x_title="step", y_title=name, y_digits=4,
        borders=_borders(rows), level=None if before is None else ("starting model", before),
    )  # fmt: skip
    caption = "Dotted lines: where a phase begins."
    caption += "" if before is None else " Dashed line: the model that the training went on from."
    return Chart(title=title, figure=figure, caption=caption, wide=True)


def _validation_loss(rows: Rows) -> Chart | None:
    return _chart(rows, "validation_loss", "Validation loss", "validation loss")


def _losses(rows: Rows) -> Chart | None:
    """Terms of the training loss and their sum."""
    terms = [name for name in (rows[0] if rows else ()) if name not in (*PLACE, *VALIDATION)]
    lines = [
        Curve(name=name, x=[step for step, _ in points], y=[value for _, value in points])
        for name in terms
        if (points := _points(rows, name))
    ]
    if not lines:
        return None
    figure = curves(lines, x_title="step", y_title="loss", y_digits=4, borders=_borders(rows))
    return Chart(
        title="Training loss and its terms",
        figure=figure,
        caption="Dotted lines: where a phase begins.",
        wide=True,
    )
