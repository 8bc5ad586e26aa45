"""The pictures of a run report: every field as a thumbnail, and a closer look at a few that were chosen for a reason.

One image at a time is read through a callable; only its pictures are kept, and left-out images are named.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.report.blocks import Block, Gallery, LegendEntry, Note, Picture, counted
from pipeline.report.pictures import (
    MOST_THUMBNAILS,
    THUMBNAIL_BYTES,
    PictureOf,
    column_px,
    fullest_part,
    large_picture,
    layer_legend,
    layer_lines,
    layer_outlines,
    thumbnail,
    thumbnail_px,
)
from pipeline.report.run.numbers import DONE
from pipeline.report.wells import Places

MOST_COLUMNS = 24
"""Plates with more columns are not shown in their own shape."""

CLOSE_UP_PX = 640
"""Side of the part of a field that a closer look shows."""

REASONS: tuple[tuple[str, Callable[[pd.DataFrame], pd.Series]], ...] = (
    ("most objects", lambda table: table["objects"]),
    ("fewest objects", lambda table: -table["objects"]),
    ("largest median area", lambda table: table["area"]),
    ("smallest median area", lambda table: -table["area"]),
    ("most overlapping", lambda table: table["overlapping"].where(table["overlapping"] > 0)),
    ("typical number of objects", lambda table: -(table["objects"] - table["objects"].median()).abs()),
)


def field_blocks(
    where: Places, table: pd.DataFrame, anchors: Mapping[str, str], picture: PictureOf
) -> tuple[Block, ...]:
    """Galleries of the images that are done; few images get a closer look only."""
    done = table.index[table["status"] == DONE]
    if not len(done):
        return (Note(text="No image is done, so there is no picture.", tone="warn"),)
    wells = dict(zip(where.images, where.wells))
    if len(done) <= len(REASONS):
        return (_close_ups(table, {str(name): "" for name in done}, wells, anchors, picture),)
    chosen = _chosen(table.loc[done])
    closer = _close_ups(
        table, chosen, wells, {name: f"close-{at}" for at, name in enumerate(chosen)}, picture
    )
    return closer, _montage(where, table, [str(name) for name in done], anchors, picture)


def drawn_first(names: list[str], wells: Mapping[str, str], limit: int) -> list[str]:
    """At most ``limit`` names: the first image of every well, then the second, in the order given."""
    turn: dict[str, int] = {}
    ranked = []
    for at, name in enumerate(names):
        well = wells.get(name, "")
        turn[well] = turn.get(well, 0) + 1
        ranked.append((turn[well] if well else 0, at, name))
    return [name for _, name in sorted((at, name) for _, at, name in sorted(ranked)[:limit])]


def _chosen(table: pd.DataFrame) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for reason, score in REASONS:
        scores = score(table).drop(list(chosen)).dropna()
        if len(scores):
            chosen[str(scores.idxmax())] = reason
    return chosen


def _close_ups(
    table: pd.DataFrame,
    reasons: Mapping[str, str],
    wells: Mapping[str, str],
    anchors: Mapping[str, str],
    picture: PictureOf,
) -> Gallery:
    pictures, layers, cut = [], 1, False
    for name, reason in reasons.items():
        arrays = picture(name)
        if arrays is None:
            continue
        grey, _, stack = arrays
        part = fullest_part(stack, (grey.shape[0], grey.shape[1]), CLOSE_UP_PX)
        shown = grey[part]
        cut |= shown.shape != grey.shape
        outlines = layer_outlines(stack[:, *part]) if stack is not None else ()
        layers = max(
            layers, 1 + max((int(outline.key.removeprefix("layer")) for outline in outlines), default=0)
        )
        caption = ", ".join(text for text in (reason, _caption(table, name)) if text)
        pictures.append(
            large_picture(anchors[name], name or "image", shown, outlines, caption=caption, group=wells[name])
        )
    where = f"Of larger images, the {CLOSE_UP_PX} × {CLOSE_UP_PX} px with most object pixels. " if cut else ""
    return Gallery(
        title="A closer look" if any(reasons.values()) else "Images",
        pictures=tuple(pictures),
        legend=layer_legend(layers),
        caption=where + "A click enlarges a picture; hovering over an outline gives the object's label.",
    )


def _montage(
    where: Places,
    table: pd.DataFrame,
    names: list[str],
    anchors: Mapping[str, str],
    picture: PictureOf,
) -> Gallery:
    wells = dict(zip(where.images, where.wells))
    drawn = drawn_first(names, wells, MOST_THUMBNAILS)
    budget = THUMBNAIL_BYTES // len(drawn)
    pictures, layers = [], 1
    for name in drawn:
        arrays = picture(name)
        if arrays is None:
            continue
        grey, _, stack = arrays
        layers = max(layers, _layers(stack))
        pictures.append(
            thumbnail(
                anchors[name],
                name or "image",
                grey,
                layer_lines(stack),
                longest_px=thumbnail_px(len(drawn)),
                budget_bytes=budget,
                caption=_caption(table, name),
                group=wells[name],
            )
        )
    pictures, columns = _in_plate_shape(pictures, where)
    left_out = len(names) - len(pictures)
    missing = f" {counted(left_out, 'image')} without a picture here; first fields of every well come first."
    return Gallery(
        title="All images" if not left_out else f"{len(pictures):,} images",
        plate_columns=columns,
        pictures=tuple(pictures),
        legend=(
            LegendEntry(key="outlines", label="outlines"),
            *(replace(entry, key="") for entry in layer_legend(layers)),
        ),
        column_px=column_px(len(pictures)),
        caption=f"Whole images, scaled down; contrast is stretched per image.{missing if left_out else ''}",
    )


def _in_plate_shape(pictures: list[Picture], where: Places) -> tuple[list[Picture], int]:
    """Put the pictures where their wells are on the plate, and its number of columns; 0: wells have several fields."""
    wells = [picture.group for picture in pictures]
    if not where.is_plate or len(set(wells)) < len(wells) or len(where.plate_columns) > MOST_COLUMNS:
        return pictures, 0
    rows, columns = list(where.plate_rows), list(where.plate_columns)
    places = {
        well: (rows.index(row) + 1, columns.index(column) + 1)
        for well, row, column in zip(where.wells, where.rows, where.columns)
    }
    placed = [replace(picture, place=places[picture.group], title=picture.group) for picture in pictures]
    return placed, len(columns)


def _layers(stack: np.ndarray | None) -> int:
    if stack is None:
        return 1
    used = [at for at, layer in enumerate(stack) if layer.any()]
    return 1 + max(used, default=0)


def _caption(table: pd.DataFrame, name: str) -> str:
    count = table["objects"][name]
    return "" if np.isnan(count) else counted(int(count), "object")
