"""Whether objects that share pixels stay apart: pairs of true objects that overlap, and what became of them.

Only images with a picture are counted, because pixels are needed; the section states their number. Arrays in,
a section out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from pipeline.report.blocks import (
    Block,
    Column,
    Gallery,
    LegendEntry,
    Outline,
    Picture,
    Row,
    Section,
    Table,
    counted,
)
from pipeline.report.palette import ORANGE, SKY
from pipeline.report.pictures import PictureOf, contours, large_picture, tolerance_px

MOST_IMAGES = 20
"""Upper limit of the images whose pixels are analysed."""

MOST_PICTURES = 6
"""Pairs that are shown, those that share most pixels first."""

MARGIN_PX = 12
"""Pixels around a pair in its picture."""

INTRO = "Objects that cross share pixels. A method without layers gives these pixels to one of them, or merges both."

SHOWN_PX = 300
"""Side of a picture on the page, about."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two true objects that share pixels."""

    image: str
    truth: tuple[int, int]
    """Their ids."""
    shared_px: int
    prediction: tuple[int, int] | None
    """Ids of the predictions matched to them; None where one of them was not found."""
    kept_px: int = 0
    """Pixels that these share."""


def overlap_section(
    images: Sequence[str], matches: pd.DataFrame, picture: PictureOf, plates: Mapping[str, str]
) -> Section | None:
    """Count the overlapping pairs of the first images, and show some of which both objects were found.

    Args:
        images: names, in the order in which they are analysed.
        matches: table of matches of the evaluation.
        picture: as for the pictures of the page.
        plates: plate of each image, where there are several.

    Returns:
        None where no true objects share pixels.
    """
    seen = list(images[:MOST_IMAGES])
    pairs = [pair for name in seen for pair in _pairs(name, matches, picture)]
    if not pairs:
        return None
    predicted_pairs = [pair for pair in pairs if pair.prediction]
    kept = sorted(
        (pair for pair in predicted_pairs if pair.kept_px),
        key=lambda pair: (-pair.kept_px, pair.image, pair.truth),
    )
    shown = enumerate(kept[:MOST_PICTURES])
    drawn = [one for number, pair in shown if (one := _draw(number, pair, picture))]
    gallery = Gallery(
        title="Overlaps that survived" if drawn else "",
        pictures=tuple(drawn),
        legend=(
            LegendEntry(key="truth", label="truth", colour=SKY, dashed=True),
            LegendEntry(key="prediction", label="prediction", colour=SKY),
            LegendEntry(label="the other object of the pair", colour=ORANGE),
        ),
        caption="Each picture is one pair: both predictions hold the pixels where the objects cross.",
        column_px=280,
    )
    blocks: tuple[Block, ...] = (_table(pairs, plates, len(seen)), *([gallery] if drawn else []))
    return Section(name="overlaps", title="Overlaps", blocks=blocks, intro=INTRO)


def _table(pairs: Sequence[Pair], plates: Mapping[str, str], images: int) -> Table:
    """How many pairs there are, were found and kept, by plate where there are several."""
    by_plate: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_plate.setdefault(plates.get(pair.image, ""), []).append(pair)
    rows = tuple(
        Row(
            cells=(
                *([plate] if plates else []), len(some), sum(pair.prediction is not None for pair in some),
                sum(pair.kept_px > 0 for pair in some),
            )
        )
        for plate, some in by_plate.items()
    )  # fmt: skip
    columns = (
        *([Column(name="plate")] if plates else []),
        Column(name="overlapping pairs", hint="Pairs of true objects that share pixels."),
        Column(name="both found", hint="Each of the two is matched by a prediction of its own."),
        Column(name="overlap kept", hint="Both are found, and their predictions share pixels too."),
    )
    caption = f"Counted in {counted(images, 'image')}, those with the lowest meanAP."
    return Table(name="overlaps", title="", columns=columns, rows=rows, caption=caption, narrow=True)


def _pairs(name: str, matches: pd.DataFrame, picture: PictureOf) -> Iterator[Pair]:
    arrays = picture(name)
    if arrays is None or arrays[1] is None:
        return
    truth, prediction = arrays[1], arrays[2]
    rows = matches[(matches["image"].astype(str) == name) & (matches["kind"] == "match")]
    match = {int(t): int(p) for t, p in zip(rows["truth_label"], rows["prediction_label"])}
    kept = {} if prediction is None else shared_pixels(prediction)
    for both, pixels in shared_pixels(truth).items():
        a, b = (match.get(label, 0) for label in both)
        matched = (min(a, b), max(a, b)) if a and b else None
        yield Pair(
            image=name, truth=both, shared_px=pixels, prediction=(a, b) if a and b else None,
            kept_px=kept.get(matched, 0) if matched else 0,
        )  # fmt: skip


def shared_pixels(stack: np.ndarray) -> dict[tuple[int, int], int]:
    """Pixels that every two objects of a label stack share, by their ids, the smaller first."""
    shared: dict[tuple[int, int], int] = {}
    for first, second in combinations(stack, 2):
        both = (first > 0) & (second > 0)
        ids, counts = np.unique(
            np.sort(np.stack([first[both], second[both]]), axis=0), axis=1, return_counts=True
        )
        for a, b, count in zip(*ids.tolist(), counts.tolist()):
            shared[a, b] = shared.get((a, b), 0) + count
    return shared


def _draw(number: int, pair: Pair, picture: PictureOf) -> Picture | None:
    """The surroundings of a pair, with truth and prediction of both objects."""
    arrays = picture(pair.image)
    if arrays is None:
        return None
    grey, truth, prediction = arrays
    if truth is None or prediction is None or pair.prediction is None:
        return None
    part = _square(np.isin(truth, pair.truth).max(axis=0))
    outlines = (
        *_outlines(truth[:, *part], pair.truth, "truth", dashed=True),
        *_outlines(prediction[:, *part], pair.prediction, "prediction", dashed=False),
    )
    caption = f"share {pair.shared_px:,} px, their predictions {pair.kept_px:,}"
    title = f"{pair.image}, objects {pair.truth[0]} and {pair.truth[1]}"
    return large_picture(f"overlap-{number}", title, grey[part], outlines, caption=caption)


def _outlines(stack: np.ndarray, ids: tuple[int, int], side: str, *, dashed: bool) -> list[Outline]:
    """Outlines of the two objects of a pair, each in its colour."""
    colours = dict(zip(ids, (SKY, ORANGE)))
    alone = np.where(np.isin(stack, ids), stack, 0)
    return [
        Outline(path=path, colour=colours[label], key=side, title=f"{side} {label}", dashed=dashed)
        for label, _, path in contours(alone, tolerance_px=tolerance_px(stack.shape[1:], SHOWN_PX))
    ]


def _square(mask: np.ndarray) -> tuple[slice, slice]:
    """A square over a mask with a margin, cut where the image ends."""
    places = np.argwhere(mask)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    half = int((high - low).max()) // 2 + MARGIN_PX
    middle = (low + high) // 2
    y, x = (slice(max(int(at) - half, 0), int(at) + half) for at in middle)
    return y, x
