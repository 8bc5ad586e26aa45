"""Truth and prediction over the image, each object in the colour of its kind of error, worst images first.

Truth is dashed and prediction solid. The worst images are large, with an outline per object; the others are
thumbnails, so that every row of the table has its picture.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadArgument
from pipeline.metrics.evaluation import Evaluation
from pipeline.report.blocks import Block, Gallery, LegendEntry, Outline, Picture, counted, number_text
from pipeline.report.evaluation.assessment import Assessment
from pipeline.report.evaluation.tables import worst_first
from pipeline.report.overlay import encoded_lines, line_numbers
from pipeline.report.palette import KIND_COLOURS, KIND_MEANINGS
from pipeline.report.pictures import (
    LARGE_BYTES,
    LARGE_PX,
    MOST_THUMBNAILS,
    THUMBNAIL_BYTES,
    PictureOf,
    column_px,
    contours,
    fullest_part,
    large_picture,
    merged,
    thumbnail,
    thumbnail_px,
    tolerance_px,
)

MOST_LARGE = 20
"""Images with a large picture."""

OUTLINE_BYTES = 2_000_000
"""When the outlines of the large pictures need more than this, the rest of the images are thumbnails."""

PART_PX = 1000
"""Side of the part of larger images that a large picture shows."""

SIDE_COLOUR = "#C9D1D9"
"""Legend colour of truth and prediction where it is the line that tells them apart."""

KINDS = tuple(KIND_COLOURS)

Kinds = tuple[dict[int, tuple[str, float]], dict[int, tuple[str, float]]]
"""``(kind, IoU)`` of the truth objects and of the predictions of an image, by id."""


def picture_blocks(
    assessment: Assessment, anchors: Mapping[str, str], wells: Mapping[str, str], picture: PictureOf
) -> tuple[Block, ...]:
    """Galleries of the images, worst first: large pictures, then thumbnails, none twice."""
    images = worst_first(assessment.evaluation.images)
    subjects = _subjects(images, assessment.evaluation.matches, anchors, wells)
    large: list[Picture] = []
    spent = 0
    while subjects and len(large) < MOST_LARGE and spent < OUTLINE_BYTES:
        if drawn := _large(subjects.pop(0), picture):
            large.append(drawn)
            spent += sum(len(outline.path) for outline in drawn.outlines)
    shown = subjects[:MOST_THUMBNAILS]
    small = [drawn for subject in shown if (drawn := _small(subject, picture, len(shown)))]
    galleries = [_large_gallery(large, len(images)), _small_gallery(small, len(subjects))]
    return tuple(gallery for gallery in galleries if gallery.pictures)


def compared_gallery(
    names: Sequence[str],
    anchors: Mapping[str, str],
    evaluations: Mapping[str, Evaluation],
    pictures: Mapping[str, PictureOf],
) -> Gallery:
    """Show some images, one row per image and one column per prediction, with the same part of the image in a row."""
    drawn = []
    for row, name in enumerate(names, start=1):
        for column, (prediction, picture) in enumerate(pictures.items(), start=1):
            subject = _compared_subject(
                name, prediction, f"{anchors[name]}-{column - 1}", evaluations[prediction]
            )
            if subject and (one := _large(subject, picture)):
                drawn.append(replace(one, title=prediction, place=(row, column)))
    return Gallery(
        title="",
        pictures=tuple(drawn),
        legend=(*_side_legend(), *_kind_legend(keyed=True)),
        plate_columns=len(pictures),
        caption="One row per image, one column per prediction; the images on which meanAP differs most come first. "
        "Truth is dashed, prediction solid, colour is the kind of error. A click enlarges a picture.",
    )


def _compared_subject(name: str, prediction: str, anchor: str, evaluation: Evaluation) -> "_Subject | None":
    """The image of one prediction; None if it was not measured there."""
    records = evaluation.images.loc[evaluation.images["image"].astype(str) == name].to_dict("records")
    if not records:
        return None
    rows = evaluation.matches[evaluation.matches["image"].astype(str) == name]
    return _Subject(
        name=name, anchor=anchor, well="", short_caption="", rows=rows if len(rows) else None,
        caption=f"{name}: meanAP {number_text(float(records[0]['meanAP']), 3)}, "
        f"{int(records[0]['n_prediction']):,} predicted, {int(records[0]['n_truth']):,} true",
    )  # fmt: skip


def kind_outlines(
    truth: np.ndarray | None, prediction: np.ndarray | None, kinds: Kinds, *, shown_px: int = LARGE_PX
) -> tuple[Outline, ...]:
    """Outline every object of both stacks in the colour of its kind; errors are drawn over matches.

    Objects that are not in ``kinds`` are left out.
    """
    outlines = []
    for side, stack, known in (("truth", truth, kinds[0]), ("prediction", prediction, kinds[1])):
        if stack is None:
            continue
        for label, _, path in contours(stack, tolerance_px=tolerance_px(stack.shape[1:], shown_px)):
            if label in known:
                outlines.append(_outline(side, label, path, *known[label]))
    return merged(sorted(outlines, key=lambda outline: not outline.key.endswith("match")))


def kind_lines(
    truth: np.ndarray | None, prediction: np.ndarray | None, kinds: Kinds
) -> Callable[[tuple[int, int]], str]:
    """Draw predictions and the truth objects that were not found at a size, in the colours of their kinds."""
    unmatched = {label: KINDS.index(kind) + 1 for label, (kind, _) in kinds[0].items() if kind != "match"}
    predicted = {label: KINDS.index(kind) + 1 for label, (kind, _) in kinds[1].items()}

    def draw(shape: tuple[int, int]) -> str:
        drawn = np.zeros(shape, np.uint8)
        for stack, numbers in ((truth, unmatched), (prediction, predicted)):
            if stack is not None:
                lines = line_numbers(stack, shape, numbers=numbers)
                drawn[lines > 0] = lines[lines > 0]
        return encoded_lines(drawn, tuple(KIND_COLOURS.values()))

    return draw


def kinds_of(rows: pd.DataFrame) -> Kinds:
    """Kind and IoU of every object of one image, from its rows of the table of matches."""
    if strangers := sorted(set(rows["kind"]) - set(KINDS)):
        raise BadArgument(f"unknown kind of error {strangers[0]!r}; known are {', '.join(KINDS)}")
    return (
        _by_label(rows[rows["side"] != "prediction"], "truth_label"),
        _by_label(rows[rows["side"] != "truth"], "prediction_label"),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Subject:
    """An image to be drawn."""

    name: str
    anchor: str
    well: str
    caption: str
    short_caption: str
    rows: pd.DataFrame | None


def _subjects(
    images: pd.DataFrame, matches: pd.DataFrame, anchors: Mapping[str, str], wells: Mapping[str, str]
) -> list[_Subject]:
    rows = {str(name): group for name, group in matches.groupby("image", sort=False)}
    return [
        _Subject(
            name=(name := str(record["image"])),
            anchor=anchors[name],
            well=wells.get(name, ""),
            caption=_caption(record),
            short_caption=f"meanAP {number_text(float(record['meanAP']), 3)}",
            rows=rows.get(name),
        )
        for record in images.to_dict("records")
    ]


def _by_label(rows: pd.DataFrame, column: str) -> dict[int, tuple[str, float]]:
    labels, kinds, ious = rows[column].tolist(), rows["kind"].tolist(), rows["iou"].astype(float).tolist()
    return {int(label): (str(kind), iou) for label, kind, iou in zip(labels, kinds, ious)}


def _caption(record: Mapping[Hashable, Any]) -> str:
    shown = (("meanAP", "meanAP"), ("AP_0.5", "AP.5"), ("AJI", "AJI"))
    scores = [f"{label} {number_text(float(record[key]), 3)}" for key, label in shown if key in record]
    return ", ".join([*scores, f"{int(record['n_prediction']):,} predicted, {int(record['n_truth']):,} true"])


def _outline(side: str, label: int, path: str, kind: str, iou: float) -> Outline:
    return Outline(
        path=path,
        colour=KIND_COLOURS[kind],
        key=f"{side} {kind}",
        title=f"{side} {label}: {kind}" + (f", IoU {iou:.2f}" if iou > 0 else ""),
        dashed=side == "truth",
    )


def _large(subject: _Subject, picture: PictureOf) -> Picture | None:
    arrays = picture(subject.name)
    if arrays is None:
        return None
    grey, truth, prediction = arrays
    part = fullest_part(truth if truth is not None else prediction, (grey.shape[0], grey.shape[1]), PART_PX)
    kinds = kinds_of(subject.rows) if subject.rows is not None else ({}, {})
    outlines = kind_outlines(
        truth[:, *part] if truth is not None else None,
        prediction[:, *part] if prediction is not None else None,
        kinds,
    )
    shown = grey[part]
    cut = f", part {shown.shape[1]} × {shown.shape[0]} px" if shown.shape != grey.shape else ""
    return large_picture(
        subject.anchor, subject.name, shown, outlines, caption=subject.caption + cut, group=subject.well
    )


def _small(subject: _Subject, picture: PictureOf, number: int) -> Picture | None:
    arrays = picture(subject.name)
    if arrays is None:
        return None
    grey, truth, prediction = arrays
    kinds = kinds_of(subject.rows) if subject.rows is not None else ({}, {})
    return thumbnail(
        subject.anchor,
        subject.name,
        grey,
        kind_lines(truth, prediction, kinds),
        longest_px=thumbnail_px(number),
        budget_bytes=min(LARGE_BYTES, THUMBNAIL_BYTES // number),
        caption=subject.short_caption,
        group=subject.well,
    )


def _large_gallery(pictures: list[Picture], images: int) -> Gallery:
    worst = f"The {counted(len(pictures), 'image')} with the lowest meanAP of {images:,}. "
    rest = worst if len(pictures) < images else ""
    return Gallery(
        title="Worst images first",
        pictures=tuple(pictures),
        legend=(*_side_legend(), *_kind_legend(keyed=True)),
        caption=f"{rest}Truth is dashed, prediction solid, colour is the kind of error. A click enlarges a picture; "
        "hovering over an outline gives the object's label and its IoU.",
    )


def _small_gallery(pictures: list[Picture], images: int) -> Gallery:
    left_out = f" {images - len(pictures):,} more have no picture." if images > len(pictures) else ""
    return Gallery(
        title="The other images",
        pictures=tuple(pictures),
        legend=(LegendEntry(key="outlines", label="outlines"), *_kind_legend(keyed=False)),
        column_px=column_px(len(pictures)),
        caption="In the same order and colours; outlines of predictions, and of truth objects that were not "
        f"found.{left_out}",
    )


def _side_legend() -> tuple[LegendEntry, LegendEntry]:
    return (
        LegendEntry(key="truth", label="truth", colour=SIDE_COLOUR, dashed=True),
        LegendEntry(key="prediction", label="prediction", colour=SIDE_COLOUR),
    )


def _kind_legend(*, keyed: bool) -> tuple[LegendEntry, ...]:
    return tuple(
        LegendEntry(key=kind if keyed else "", label=f"{kind}: {meaning}", colour=KIND_COLOURS[kind])
        for kind, meaning in KIND_MEANINGS.items()
    )
