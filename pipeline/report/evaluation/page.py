"""The report of an evaluation, in the order of a reader: how good, pictures of the worst, kinds of error, all scores.

Every number stands with its assignment, its pooling and, where there is one, its confidence interval. Tables and
callables in, a page out; the same input gives the same page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.metrics.evaluation import Evaluation
from pipeline.metrics.resampling import FEWEST
from pipeline.report.blocks import (
    Block,
    Chart,
    Column,
    KeyNumber,
    KeyNumbers,
    Note,
    Page,
    Section,
    Table,
    Value,
    counted,
    number_text,
)
from pipeline.report.charts import Curve, bars, curves, height_px, ranges
from pipeline.report.evaluation.assessment import (
    Assessment,
    image_places,
    interval,
    level_text,
    score,
)
from pipeline.report.evaluation.overlaps import overlap_section
from pipeline.report.evaluation.pictures import picture_blocks
from pipeline.report.evaluation.tables import (
    author_table,
    changes,
    difference_tables,
    error_table,
    group_tables,
    image_table,
    paper_table,
    score_table,
    worst_first,
)
from pipeline.report.facts import fact_blocks
from pipeline.report.page import html_page
from pipeline.report.palette import KIND_MEANINGS
from pipeline.report.pictures import PictureOf, numbered
from pipeline.report.plate_charts import colour_span, plate_chart

READING = (
    "Scores run from 0 to 1, and 1 is perfect. AP at IoU 0.5 counts matched pairs over matched pairs, missed and false "
    "objects together; a pair matches if it shares at least half of its joint area. meanAP also asks for 0.6, 0.7, 0.8 "
    "and 0.9; AJI and PQ judge outlines too. Objects of all images are counted together."
)
"""What the first numbers mean, for readers who do not know them."""

LISTED = 8
"""Names spelled out in a note; the rest is counted."""

GAPS = {
    "without_prediction": ("image", "without a prediction; all of their objects count as missed"),
    "without_truth": ("image", "without a truth, left out"),
    "without_condition": ("image", "that the layout does not name, in no condition"),
    "unknown_places": ("place", "of the layout without an image"),
}
"""Facts that are notes and not rows of a table: what is counted, and what is the matter with it."""


SAID = ("prediction_name", "truth_name")
"""Facts that are shown at the top of the page already."""


def evaluation_report(assessment: Assessment, *, picture: PictureOf | None = None) -> str:
    """Write the report of an evaluation as one HTML file; see ``evaluation_page``."""
    return html_page(evaluation_page(assessment, picture=picture))


def evaluation_page(assessment: Assessment, *, picture: PictureOf | None = None) -> Page:
    """Lay out the report of an evaluation; ``picture`` is called for at most a few hundred images."""
    images = assessment.evaluation.images
    anchors = dict(numbered(tuple(images["image"].astype(str))))
    wells = (
        dict(zip(images["image"].astype(str), images["well"].fillna("").astype(str)))
        if "well" in images
        else {}
    )
    pictures = picture_blocks(assessment, anchors, wells, picture) if picture else ()
    order = worst_first(images)["image"].astype(str).tolist()
    plates = dict(zip(images["image"].astype(str), images["plate"].astype(str))) if "plate" in images else {}
    matches = assessment.evaluation.matches
    overlaps = overlap_section(order, matches, picture, plates) if picture else None
    author = author_table(assessment)
    precision: tuple[Block, ...] = (
        paper_table(assessment), *difference_tables(assessment), curve_chart(assessment),
    )  # fmt: skip
    sections = [
        Section(
            name="summary",
            title="Summary",
            blocks=(*_headline(assessment), *_notes(assessment)),
        ),
        *([Section(name="pictures", title="Pictures", blocks=pictures)] if pictures else []),
        *([overlaps] if overlaps else []),
        Section(
            name="errors", title="Kinds of error", blocks=(*_error_chart(assessment), error_table(assessment))
        ),
        Section(name="images", title=_image_title(images), blocks=_image_blocks(assessment, anchors, wells)),
        *_group_sections(assessment),
        Section(name="precision", title="Average precision", blocks=precision),
        Section(
            name="scores", title="All scores", blocks=(score_table(assessment), *([author] if author else []))
        ),
    ]
    facts = {key: value for key, value in assessment.facts.items() if key not in (*GAPS, *SAID)}
    if blocks := fact_blocks(facts):
        sections.append(Section(name="facts", title="Facts", blocks=blocks))
    subtitle = f"Evaluation of {assessment.name}, {counted(len(images), 'image')}"
    return Page(
        title=assessment.title, subtitle=subtitle, sections=tuple(sections), provenance=assessment.provenance
    )


def _image_title(images: pd.DataFrame) -> str:
    return f"{counted(len(images), 'image')}, worst first" if len(images) > 1 else "The image"


def _headline(assessment: Assessment) -> list[Block]:
    """The first numbers: pooled scores, and those of each plate; of several models only the latter mean something."""
    plates = _plate_table(assessment)
    if len(set(assessment.models.values())) > 1 and plates:
        text = "These plates were segmented by different models. Scores below that are not by plate pool all of them."
        return [*plates, Note(text=text)]
    return [_key_numbers(assessment), *plates]


def _plate_table(assessment: Assessment) -> list[Table]:
    """Scores of each plate, where several are pooled: they need not be of one kind, nor by one model."""
    plates = assessment.evaluation.groups.get("plate")
    if plates is None or len(plates) < 2:
        return []
    return [
        _with_models(table, assessment.models)
        for table in group_tables(assessment)
        if table.name == "by_plate"
    ]


def _with_models(table: Table, models: Mapping[str, str]) -> Table:
    """The table of plates with the model of each, where models are known."""
    if not models:
        return table
    rows = tuple(
        replace(row, cells=(row.cells[0], models.get(str(row.cells[0]), ""), *row.cells[1:]))
        for row in table.rows
    )
    return replace(table, columns=(table.columns[0], Column(name="model"), *table.columns[1:]), rows=rows)


def _key_numbers(assessment: Assessment) -> KeyNumbers:
    summary = assessment.evaluation.summary
    counts = summary.get("counts", {})
    numbers = [
        _key_number(assessment, "meanAP", "meanAP"),
        _key_number(assessment, "AP at IoU 0.5", "AP", "0.5"),
        _key_number(assessment, "AJI", "AJI"),
        _key_number(assessment, "PQ", "PQ"),
    ]
    if counts:
        detail = f"predicted, for {counts['n_truth']:,} true ones in {counted(counts['images'], 'image')}"
        numbers.append(KeyNumber(label="Objects", value=f"{counts['n_prediction']:,}", detail=detail))
    return KeyNumbers(numbers=tuple(numbers))


def _key_number(assessment: Assessment, label: str, *path: str) -> KeyNumber:
    value, between = (
        score(assessment.evaluation.summary, *path),
        interval(assessment.evaluation.summary, *path),
    )
    details = [f"{between[0]:.3f} to {between[1]:.3f}"] if between else []
    if assessment.baseline and value is not None:
        details += _against(assessment, value, *path)
    return KeyNumber(label=label, value=number_text(value, 3), detail="; ".join(details))


def _against(assessment: Assessment, value: float, *path: str) -> list[str]:
    """The difference to the first baseline: on the images both have where that is known, with its interval."""
    name, baseline = assessment.baseline or ("", None)
    difference = assessment.differences.get(name)
    if difference is not None:
        row = difference.scores.loc["_".join(path)]
        between = f" ({row['low']:+.3f} to {row['high']:+.3f})" if difference.resamples else ""
        return [f"{row['difference']:+.3f} against {name}{between}"]
    old = score(baseline.summary, *path) if baseline else None
    return [f"{value - old:+.3f} against {name}"] if old is not None else []


def _notes(assessment: Assessment) -> list[Block]:
    summary = assessment.evaluation.summary
    notes: list[Block] = [Note(text=f"{READING} Here: {level_text(summary)}.")]
    if change := changes(assessment):
        notes.append(_change_note(assessment, list(change.values())))
    for key, (noun, text) in GAPS.items():
        names = assessment.facts.get(key)
        if isinstance(names, Sequence) and names:
            notes.append(Note(text=f"{counted(len(names), noun)} {text}: {_listed(names)}.", tone="warn"))
    return notes


def _change_note(assessment: Assessment, change: list[Value]) -> Note:
    values = [float(value) for value in change if isinstance(value, int | float)]
    better, worse = sum(value > 0 for value in values), sum(value < 0 for value in values)
    name = assessment.baseline[0] if assessment.baseline else ""
    return Note(
        text=f"Against {name}, meanAP is higher in {better:,} images, lower in {worse:,} and equal in "
        f"{len(values) - better - worse:,}."
    )


def _listed(names: Sequence[object]) -> str:
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(str(name) for name in names[:LISTED]) + more


def curve_chart(assessment: Assessment) -> Chart:
    """Draw AP against the IoU threshold, one line per run with the band of its interval."""
    lines = [line for name, run in assessment.runs.items() if (line := _curve(name, run))]
    level = level_text(assessment.evaluation.summary)
    return Chart(
        title="AP against IoU",
        figure=curves(lines, x_title="IoU threshold", y_title="AP", y_range=(0, 1.02)),
        caption=f"Higher and further right is better. Bands: {level}.",
    )


def _curve(name: str, run: Evaluation) -> Curve | None:
    key = "AP_dense" if run.summary.get("AP_dense") else "AP"
    points = {
        at: value for at in run.summary.get(key, {}) if (value := score(run.summary, key, at)) is not None
    }
    if not points:
        return None
    between = [interval(run.summary, key, at) for at in points]
    known = [pair for pair in between if pair is not None]
    complete = len(known) == len(between)
    return Curve(
        name=name,
        x=[float(at) for at in points],
        y=list(points.values()),
        low=[pair[0] for pair in known] if complete else None,
        high=[pair[1] for pair in known] if complete else None,
    )


def _error_chart(assessment: Assessment) -> list[Chart]:
    errors = assessment.evaluation.summary.get("errors", {})
    sides = {"truth objects": errors.get("truth", {}), "predictions": errors.get("prediction", {})}
    kinds = [kind for kind in KIND_MEANINGS if kind != "match"]
    counts = {side: {kind: numbers.get(kind) for kind in kinds} for side, numbers in sides.items() if numbers}
    if not counts:
        return []
    return [
        Chart(
            title="Unmatched objects by kind",
            figure=bars(counts, x_title="objects"),
            caption="A truth object is never spurious, a prediction never missed.",
        )
    ]


def _image_blocks(
    assessment: Assessment, anchors: dict[str, str], wells: dict[str, str]
) -> tuple[Block, ...]:
    where = image_places(assessment.evaluation.images)
    table: Table = image_table(assessment, anchors, wells)
    if not where.is_plate:
        return (table,)
    images = assessment.evaluation.images.set_index(assessment.evaluation.images["image"].astype(str))
    by_place = images.loc[list(where.images)]
    errors = [name for name in ("truth_missed", "prediction_spurious") if name in by_place.columns]
    maps = [("meanAP", by_place["meanAP"], "median", "meanAP", False)]
    maps += [(_map_title(name), by_place[name], "sum", "objects", True) for name in errors]
    counts = [where.grid(by_place[name].to_numpy(float), "sum") for name in errors]
    shared = colour_span(np.stack(counts), alarm=True) if counts else None
    charts = [
        plate_chart(
            where, pd.Series(values), title=title, how=how, unit=unit, anchors=anchors, alarm=alarm,
            span=shared if alarm else (0.0, 1.0),
        )
        for title, values, how, unit, alarm in maps
    ]  # fmt: skip
    return (*charts, table)


def _map_title(name: str) -> str:
    return {"truth_missed": "Missed per well", "prediction_spurious": "Spurious per well"}[name]


def _group_sections(assessment: Assessment) -> list[Section]:
    shown = {table.name for table in _plate_table(assessment)}
    single = assessment.evaluation.groups.get("well")
    if single is not None and (single["images"] == 1).all():
        shown.add("by_well")  # the table of images has these numbers
    tables = [table for table in group_tables(assessment) if table.name not in shown]
    charts = _condition_charts(assessment.evaluation.groups.get("condition"))
    level = (
        f" Bars: {level_text(assessment.evaluation.summary)}. A condition of fewer than {FEWEST} images has none, and "
        "of fewer than about ten images bars are too short."
        if charts
        else ""
    )
    intro = f"Pooled over the images of a group.{level}"
    return [Section(name="groups", title="Groups", intro=intro, blocks=(*charts, *tables))] if tables else []


def _condition_charts(table: pd.DataFrame | None) -> list[Chart]:
    if table is None:
        return []
    labels = [
        f"{name} ({counted(number, 'image')})" for name, number in zip(table["condition"], table["images"])
    ]
    return [
        Chart(
            title=f"{name} by condition",
            figure=ranges(
                labels, table[name].tolist(), table[[f"{name}_low", f"{name}_high"]].to_numpy(float),
                x_title=name, x_range=(0, 1),
            ),
            height_px=height_px(len(labels)),
        )
        for name in ("meanAP", "AJI")
    ]  # fmt: skip
